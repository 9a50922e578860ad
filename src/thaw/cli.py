"""`thaw COMMAND`."""

from __future__ import annotations

import sys

from thaw.config.faults import Fault, UserFault, nearest

COMMANDS = {"train": "train a recipe or a sweep; the same as python train.py"}


def main() -> int:
    """Runs the command that the command line names and returns the exit status."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        print("\n".join(["thaw COMMAND", "", *(f"  {name:<10}{what}" for name, what in COMMANDS.items())]))
        return 0
    if command not in COMMANDS:
        fix = f"thaw {nearest(command, COMMANDS) or '--help'}"
        print(
            f"thaw: {UserFault('no such command.', [Fault(command, valid=', '.join(COMMANDS), fix=fix)])}",
            file=sys.stderr,
        )
        return 2
    from thaw.launch import launch

    return launch(rest)


if __name__ == "__main__":
    sys.exit(main())
