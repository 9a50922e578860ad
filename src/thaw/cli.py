"""`thaw COMMAND`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from thaw.config.faults import Fault, UserFault, nearest

COMMANDS = {
    "train": "train a recipe or a sweep; the same as python train.py",
    "list": "backbones with their figures, strategies, data sets and all other choices",
    "inspect": "a network's stages and layers: shapes, parameters, multiply-adds",
    "find": "a learning rate, or a batch size, for a recipe on this machine",
    "data": "fetch, verify or report on a data set",
    "submit": "predict a data set's unlabelled images into a file that Kaggle takes",
}


def main() -> int:
    """Runs the command that the command line names and returns the exit status."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        print("\n".join(["thaw COMMAND", "", *(f"  {name:<10}{what}" for name, what in COMMANDS.items())]))
        return 0
    try:
        return _run(command, rest)
    except UserFault as fault:
        print(f"thaw: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(command: str, arguments: Sequence[str]) -> int:
    if command == "train":
        from thaw.launch import launch

        return launch(arguments)
    if command == "list":
        from thaw.commands import listing

        return listing.run(arguments)
    if command == "inspect":
        from thaw.commands import inspect

        return inspect.run(arguments)
    if command == "find":
        from thaw.commands import find

        return find.run(arguments)
    if command == "data":
        from thaw.commands import data

        return data.run(arguments)
    if command == "submit":
        from thaw.commands import submit

        return submit.run(arguments)
    fix = f"thaw {nearest(command, COMMANDS) or '--help'}"
    raise UserFault("no such command.", [Fault(command, valid=", ".join(COMMANDS), fix=fix)])


if __name__ == "__main__":
    sys.exit(main())
