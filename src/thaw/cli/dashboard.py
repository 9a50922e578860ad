"""`thaw dashboard DIR`: TensorBoard on the right folder, with the runs of a strategy in one color."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path
from urllib.parse import quote, urlencode

import click

from thaw.cli.grammar import Verb
from thaw.cli.options import FilePath, Option, path_argument
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names

DEFAULT_PORT, HOST = 6006, "localhost"
EVENT_FILE_PATTERN, PROJECTOR_FILE = "*tfevents*", "projector_config.pbtxt"  # the files that TensorBoard looks for
# What names a strategy in a path: the folder of a sweep's job has strategy=fixed, that of a run ends in -fixed_3f2a1c.
STRATEGY_PATTERN = r"((?<=strategy=)\w+|(?<=-)[a-z]\w*(?=_[0-9a-f]{6}))"
CURVE_TAG_PATTERN = "^(train|val)/"


@Verb(
    "dashboard",
    summary="show a run, a sweep or all outputs in TensorBoard",
    examples=("thaw dashboard", "thaw dashboard outputs/SWEEP --port 6007"),
    description="DIR is a run, a sweep, or any folder of them (default: outputs). Ctrl-C ends the server. The runs of "
    "a strategy have one color. CUSTOM SCALARS has the curves of all runs on common charts; HPARAMS the keys that "
    "differ between them and the final metrics; IMAGES samples, confusion matrices and the worst predictions; PR "
    "CURVES a curve for each class. The projector shows what thaw features --projector DIR has written.",
    paths=(path_argument("directory", "[DIR]", FilePath(file_okay=False), required=False),),
    options=(
        Option("--port", type=click.IntRange(0, 2**16 - 1), default=DEFAULT_PORT, metavar="N", help="0: a free port"),
    ),
    exit_statuses="130 after Ctrl-C, or 2 if there is something for you to change.",
)
def dashboard(directory: Path | None, port: int) -> int:
    """Serve `directory` until Ctrl-C.

    Raises:
        UserError: if there is no such folder, nothing in it to show, or the port is taken.
        KeyboardInterrupt: when the user ends it.
    """
    folder = directory or Path("outputs")
    _check_folder(folder)
    print(f"TensorBoard on {folder}: {_start_server(folder, port)}\nCtrl-C ends it", flush=True)
    threading.Event().wait()
    return EXIT_SUCCESS


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        parent = folder.absolute().parent
        names = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
        closest, valid = find_closest_name(folder.name, names), "a run directory, a sweep, or a folder of them"
        fix = f"thaw dashboard {folder.parent / closest}" if closest else ""
        raise UserError("there is nothing to show.", [Problem(str(folder), "no such folder", valid, fix)])
    if not any(next(folder.rglob(name), None) for name in (EVENT_FILE_PATTERN, PROJECTOR_FILE)):
        names = sorted(path.name for path in folder.iterdir())
        got = f"no event file in it; {format_names(names, 5) or 'it is empty'}"
        raise UserError("there is nothing to show.", [Problem(str(folder), got, fix="train a run: python train.py")])


def _start_server(folder: Path, port: int) -> str:
    """Start TensorBoard in a thread of its own and return its address."""
    if port and not _is_port_free(port):
        free_port = next((candidate for candidate in range(port + 1, 2**16) if _is_port_free(candidate)), 0)
        problem = Problem(f"--port {port}", "another program listens there", fix=f"--port {free_port}")
        raise UserError("the port is taken.", [problem])
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(folder), "--port", str(port), "--host", HOST])
    address: str = board.launch()
    return f"{address}?{urlencode(_build_view_parameters(folder), quote_via=quote)}"


def _build_view_parameters(folder: Path) -> dict[str, str]:
    """Return what TensorBoard shows first: curves without smoothing and, of several strategies, a color for each."""
    paths = [str(file.relative_to(folder)) for file in folder.rglob(EVENT_FILE_PATTERN)]
    strategies = {match[1] for path in paths if (match := re.search(STRATEGY_PATTERN, path))}
    colors = {"runColorGroup": f"regex:{STRATEGY_PATTERN}"} if len(strategies) > 1 else {}
    return {"tagFilter": CURVE_TAG_PATTERN, "smoothing": "0"} | colors


def _is_port_free(port: int) -> bool:
    with socket.socket() as test_socket:
        test_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            test_socket.bind((HOST, port))
        except OSError:
            return False
    return True
