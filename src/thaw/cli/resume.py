"""`thaw resume DIR`: continue a run, or the jobs of a sweep that are not done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import run_command
from thaw.cli.grammar import Verb
from thaw.cli.options import FilePath, path_argument
from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SUCCESS
from thaw.system.portable import format_command

if TYPE_CHECKING:
    from thaw.system.reporter import Reporter


@Verb(
    "resume",
    summary="continue an interrupted run, or the jobs of a sweep that are not done",
    examples=("thaw resume outputs/RUN", "thaw resume outputs/SWEEP"),
    description="A run continues after its last whole epoch, as with python train.py resume=DIR. In a sweep, finished "
    "jobs stay as they are, interrupted jobs continue, and failed or missing jobs run; then all are compared again.",
    paths=(path_argument("directory", "DIR", FilePath(file_okay=False)),),
    exit_statuses="0 done; 1 a job failed again; 2 there is something for you to change; 130 interrupted.",
    no_args_is_help=True,
)
def resume(directory: Path) -> int:
    """Continue the run or sweep in `directory` and return the exit status.

    Raises:
        UserError: if it holds neither, or a run that is done.
    """
    return resume_directory(directory)


def resume_directory(directory: Path) -> int:
    """Continue the run or sweep in `directory` and return the exit status.

    Raises:
        UserError: if it holds neither, or a run that is done.
    """
    from thaw.runs.run import check_resumable
    from thaw.sweeps.record import is_sweep
    from thaw.system.reporter import ConsoleReporter

    set_environment()
    if is_sweep(directory):
        from thaw.sweeps.sweep import resume_sweep
        from thaw.system.reporter import ConsoleReporter

        result = resume_sweep(directory, command_line=get_command_line(), reporter=ConsoleReporter())
        return EXIT_FAILURE if result.unfinished_jobs else EXIT_SUCCESS
    check_resumable(directory)  # before torch is imported
    from thaw.training.start import resume_run

    return report_training(lambda reporter: resume_run(directory, reporter=reporter), directory)


def report_training(train: Callable[[Reporter], object], directory: Path) -> int:
    """Call `train` with a console reporter, print its error, if it raises one, and return the exit status. After an
    interruption, print how the run in `directory` continues."""
    from thaw.system.process import Interrupted
    from thaw.system.reporter import ConsoleReporter

    def report() -> int:
        try:
            train(ConsoleReporter())
        except Interrupted:
            print(f"\ninterrupted; continue with: python train.py resume={directory}", file=sys.stderr)
            return EXIT_INTERRUPTED
        return EXIT_SUCCESS

    return run_command(report)


def get_command_line() -> str:
    """Return the command of this process, as runs record it."""
    return format_command(sys.argv)


def set_environment() -> None:
    """Set the variables that torch and Hydra read when they are imported, in this process and those that it starts."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # a traceback that reaches the user is a bug in thaw: show all of it
    # Without it torch warns of a setting that strategies of several phases need on several devices.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
