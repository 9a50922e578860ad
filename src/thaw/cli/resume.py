"""`thaw resume DIR`: continue a run, or the jobs of a sweep that are not done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import run_command
from thaw.cli.grammar import ANY_RECIPE_KEY, Verb
from thaw.cli.options import FilePath, path_argument, trust_option
from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SUCCESS
from thaw.system.portable import format_command

if TYPE_CHECKING:
    from thaw.system.reporter import Reporter


@Verb(
    "resume",
    summary="continue an interrupted run, or the jobs of a sweep that are not done",
    examples=(
        "thaw resume outputs/RUN",
        "thaw resume outputs/SWEEP",
        "thaw resume outputs/RUN trainer.epochs=20",
        "thaw resume outputs/RUN dataset.root=DIR",
    ),
    description="A run continues after its last whole epoch, as with python train.py resume=DIR. In a sweep, finished "
    "jobs stay as they are, interrupted jobs continue, and failed or missing jobs run; then all are compared again.\n\n"
    "dataset.root, data.cache_dir, backbone.weights and the hardware (trainer.devices, trainer.num_workers ...) can be "
    "set where they have changed; images and weights must be the same. trainer.epochs=N trains a run, also a finished "
    "one, to N epochs. A finished run whose metrics.json or predictions.csv is damaged is evaluated again.",
    paths=(path_argument("directory", "DIR", FilePath(file_okay=False)),),
    options=(trust_option(),),
    recipe_keys=ANY_RECIPE_KEY,
    exit_statuses="0 done; 1 a job failed again; 2 there is something for you to change; 130 interrupted.",
    no_args_is_help=True,
)
def resume(directory: Path, overrides: Sequence[str], trust: bool) -> int:
    """Continue the run or sweep in `directory` and return the exit status.

    Raises:
        UserError: if it holds neither, or a run that is done.
    """
    return resume_directory(directory, overrides, trust)


def resume_directory(directory: Path, overrides: Sequence[str] = (), trust: bool = False) -> int:
    """Continue the run or sweep in `directory`, with the changes `overrides`, and return the exit status.

    Raises:
        UserError: if it holds neither, or a run that is done.
    """
    from thaw.runs.lifecycle import check_resumable
    from thaw.sweeps.record import is_sweep
    from thaw.system.reporter import ConsoleReporter

    set_environment()
    if is_sweep(directory):
        from thaw.sweeps.sweep import resume_sweep

        command_line, reporter = get_command_line(), ConsoleReporter()
        result = resume_sweep(directory, overrides, command_line=command_line, trust=trust, reporter=reporter)
        return EXIT_FAILURE if result.unfinished_jobs else EXIT_SUCCESS
    check_resumable(directory, overrides)  # before torch is imported
    from thaw.training.start import resume_run

    command = get_command_line()
    return report_training(
        lambda reporter: resume_run(directory, overrides, command=command, trust=trust, reporter=reporter), directory
    )


def report_training(train: Callable[[Reporter], object], directory: Path) -> int:
    """Call `train` with a console reporter, print its error, if it raises one, and return the exit status. After an
    interruption, print how the run in `directory` continues."""
    from thaw.runs.lifecycle import format_resume_command
    from thaw.system.process import Interrupted
    from thaw.system.reporter import ConsoleReporter

    def report() -> int:
        try:
            train(ConsoleReporter())
        except Interrupted:
            print(f"\ninterrupted; continue with: {format_resume_command(directory)}", file=sys.stderr)
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
