"""`thaw dashboard DIR`: TensorBoard on the right folder, with the runs of a strategy in one colour."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from thaw.config.faults import DONE, Fault, UserFault, listing, nearest

PORT, HOST = 6006, "localhost"
HELP = """thaw dashboard [DIR] [port=6006]

  TensorBoard on a run, a sweep, or any folder of them; by default outputs. Ctrl-C ends it.

    thaw dashboard
    thaw dashboard outputs/SWEEP port=6007

Its address has the runs of a strategy in one colour. CUSTOM SCALARS has the curves of all runs on common charts,
HPARAMS the keys that differ between them and the final metrics, IMAGES samples, confusion matrices and the worst
predictions, PR CURVES a curve a class. For the projector: thaw features --projector DIR, then thaw dashboard DIR.
Exit status: 130 after Ctrl-C, or 2 where there is something for you to change."""
EVENTS, PROJECTOR = "*tfevents*", "projector_config.pbtxt"  # the files that TensorBoard looks for
# What names a strategy in a path: the folder of a sweep's job says strategy=fixed, that of a run ends in -fixed_3f2a1c.
STRATEGY = r"((?<=strategy=)\w+|(?<=-)[a-z]\w*(?=_[0-9a-f]{6}))"
CURVES = "^(train|val)/"


def run(arguments: Sequence[str]) -> int:
    """Serves until Ctrl-C.

    Raises:
        UserFault: where there is no such folder, nothing in it to show, or the port is taken.
        KeyboardInterrupt: when it is ended.
    """
    if not {"--help", "-h"}.isdisjoint(arguments):
        print(HELP)
        return DONE
    folder, port = _wanted(arguments)
    _check_folder(folder)
    print(f"TensorBoard on {folder}: {_served(folder, port)}\nCtrl-C ends it", flush=True)
    threading.Event().wait()
    return DONE


def _wanted(arguments: Sequence[str]) -> tuple[Path, int]:
    folders, ports, faults = list[Path](), list[int](), list[Fault]()
    for word in arguments:
        key, is_setting, value = word.partition("=")
        if is_setting and key == "port" and value.isdecimal() and int(value) < 2**16:
            ports.append(int(value))
        elif is_setting and key == "port":
            faults.append(Fault(word, valid="a number below 65536; 0 takes a free one", fix=f"port={PORT}"))
        elif word.startswith("-") or (is_setting and nearest(key, ["port"])):
            faults.append(Fault(word, "no such setting", "DIR and port=NUMBER", "thaw dashboard --help"))
        else:
            folders.append(Path(word).expanduser())
    faults += [Fault(str(one), "a second folder", "one", "the folder that holds both") for one in folders[1:]]
    if faults:
        raise UserFault("nothing was started.", faults)
    return folders[0] if folders else Path("outputs"), ports[-1] if ports else PORT


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        parent = folder.absolute().parent
        names = sorted(one.name for one in parent.iterdir() if one.is_dir()) if parent.is_dir() else []
        near, valid = nearest(folder.name, names), "a run directory, a sweep, or a folder of them"
        fix = f"thaw dashboard {folder.parent / near}" if near else ""
        raise UserFault("there is nothing to show.", [Fault(str(folder), "no such folder", valid, fix)])
    if not any(next(folder.rglob(name), None) for name in (EVENTS, PROJECTOR)):
        got = f"no event file in it; {listing(sorted(one.name for one in folder.iterdir()), 5) or 'it is empty'}"
        raise UserFault("there is nothing to show.", [Fault(str(folder), got, fix="train a run: python train.py")])


def _served(folder: Path, port: int) -> str:
    """The address. The server runs in a thread of its own."""
    if port and not _is_free(port):
        other = next((one for one in range(port + 1, 2**16) if _is_free(one)), 0)
        raise UserFault(
            "the port is taken.", [Fault(f"port={port}", "another program listens there", fix=f"port={other}")]
        )
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(folder), "--port", str(port), "--host", HOST])
    address: str = board.launch()
    return f"{address}?{urlencode(_view(folder), quote_via=quote)}"


def _view(folder: Path) -> dict[str, str]:
    """What TensorBoard shows first: curves as they are, and where there are several strategies a colour for each."""
    paths = [str(file.relative_to(folder)) for file in folder.rglob(EVENTS)]
    strategies = {found[1] for path in paths if (found := re.search(STRATEGY, path))}
    colours = {"runColorGroup": f"regex:{STRATEGY}"} if len(strategies) > 1 else {}
    return {"tagFilter": CURVES, "smoothing": "0"} | colours


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True
