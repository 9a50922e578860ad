"""`thaw dashboard DIR`: TensorBoard on the right folder, with the runs of a strategy in one colour."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names

DEFAULT_PORT, HOST = 6006, "localhost"
HELP = """thaw dashboard [DIR] [port=6006]

  TensorBoard on a run, a sweep, or any folder of them; by default outputs. Ctrl-C ends it.

    thaw dashboard
    thaw dashboard outputs/SWEEP port=6007

Its address has the runs of a strategy in one colour. CUSTOM SCALARS has the curves of all runs on common charts,
HPARAMS the keys that differ between them and the final metrics, IMAGES samples, confusion matrices and the worst
predictions, PR CURVES a curve a class. For the projector: thaw features --projector DIR, then thaw dashboard DIR.
Exit status: 130 after Ctrl-C, or 2 where there is something for you to change."""
EVENT_FILE_PATTERN, PROJECTOR_FILE = "*tfevents*", "projector_config.pbtxt"  # the files that TensorBoard looks for
# What names a strategy in a path: the folder of a sweep's job says strategy=fixed, that of a run ends in -fixed_3f2a1c.
STRATEGY_PATTERN = r"((?<=strategy=)\w+|(?<=-)[a-z]\w*(?=_[0-9a-f]{6}))"
CURVE_TAG_PATTERN = "^(train|val)/"


def run(arguments: Sequence[str]) -> int:
    """Serves until Ctrl-C.

    Raises:
        UserFault: where there is no such folder, nothing in it to show, or the port is taken.
        KeyboardInterrupt: when it is ended.
    """
    if not {"--help", "-h"}.isdisjoint(arguments):
        print(HELP)
        return EXIT_SUCCESS
    folder, port = _parse_arguments(arguments)
    _check_folder(folder)
    print(f"TensorBoard on {folder}: {_start_server(folder, port)}\nCtrl-C ends it", flush=True)
    threading.Event().wait()
    return EXIT_SUCCESS


def _parse_arguments(arguments: Sequence[str]) -> tuple[Path, int]:
    folders, ports, problems = list[Path](), list[int](), list[Problem]()
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if separator and key == "port" and value.isdecimal() and int(value) < 2**16:
            ports.append(int(value))
        elif separator and key == "port":
            problems.append(
                Problem(argument, valid="a number below 65536; 0 takes a free one", fix=f"port={DEFAULT_PORT}")
            )
        elif argument.startswith("-") or (separator and find_closest_name(key, ["port"])):
            problems.append(Problem(argument, "no such setting", "DIR and port=NUMBER", "thaw dashboard --help"))
        else:
            folders.append(Path(argument).expanduser())
    problems += [Problem(str(folder), "a second folder", "one", "the folder that holds both") for folder in folders[1:]]
    if problems:
        raise UserError("nothing was started.", problems)
    return folders[0] if folders else Path("outputs"), ports[-1] if ports else DEFAULT_PORT


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        parent = folder.absolute().parent
        names = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
        closest, valid = find_closest_name(folder.name, names), "a run directory, a sweep, or a folder of them"
        fix = f"thaw dashboard {folder.parent / closest}" if closest else ""
        raise UserError("there is nothing to show.", [Problem(str(folder), "no such folder", valid, fix)])
    if not any(next(folder.rglob(name), None) for name in (EVENT_FILE_PATTERN, PROJECTOR_FILE)):
        actual = (
            f"no event file in it; {format_names(sorted(path.name for path in folder.iterdir()), 5) or 'it is empty'}"
        )
        raise UserError("there is nothing to show.", [Problem(str(folder), actual, fix="train a run: python train.py")])


def _start_server(folder: Path, port: int) -> str:
    """The address. The server runs in a thread of its own."""
    if port and not _is_port_free(port):
        free_port = next(
            (candidate_port for candidate_port in range(port + 1, 2**16) if _is_port_free(candidate_port)), 0
        )
        raise UserError(
            "the port is taken.", [Problem(f"port={port}", "another program listens there", fix=f"port={free_port}")]
        )
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(folder), "--port", str(port), "--host", HOST])
    address: str = board.launch()
    return f"{address}?{urlencode(_build_view_parameters(folder), quote_via=quote)}"


def _build_view_parameters(folder: Path) -> dict[str, str]:
    """What TensorBoard shows first: curves as they are, and where there are several strategies a colour for each."""
    paths = [str(file.relative_to(folder)) for file in folder.rglob(EVENT_FILE_PATTERN)]
    strategies = {match[1] for path in paths if (match := re.search(STRATEGY_PATTERN, path))}
    colours = {"runColorGroup": f"regex:{STRATEGY_PATTERN}"} if len(strategies) > 1 else {}
    return {"tagFilter": CURVE_TAG_PATTERN, "smoothing": "0"} | colours


def _is_port_free(port: int) -> bool:
    with socket.socket() as test_socket:
        test_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            test_socket.bind((HOST, port))
        except OSError:
            return False
    return True
