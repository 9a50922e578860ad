"""`thaw resume DIR`: goes on with a run, or with the jobs of a sweep that are not done."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from thaw.cli.arguments import is_help_request
from thaw.config.errors import EXIT_FAILURE, EXIT_SUCCESS, Problem, UserError
from thaw.runs.run import check_resumable
from thaw.sweep.record import is_sweep
from thaw.system.reporter import ConsoleReporter

HELP = """thaw resume DIR

  Of a run: goes on from its last whole epoch, as python train.py resume=DIR does. Of a sweep: what is done stays as it
  is, what was interrupted goes on, what failed or is missing runs; then all of it is compared anew.

    thaw resume outputs/RUN
    thaw resume outputs/SWEEP

Exit status: 0 done, 1 where a job failed again, 2 where there is something for you to change, 130 interrupted."""


def run(arguments: Sequence[str]) -> int:
    """Goes on with what lies in the one folder that `arguments` name and returns the exit status.

    Raises:
        UserFault: where it holds neither run nor sweep, or a run that is done.
    """
    if is_help_request(arguments):
        print(HELP)
        return 0
    if len(arguments) > 1:
        problem = Problem("thaw resume", " ".join(arguments), "one folder", f"thaw resume {arguments[0]}")
        raise UserError("one at a time.", [problem])
    return resume(Path(arguments[0]).expanduser())


def resume(directory: Path) -> int:
    """Raises UserFault where there is no run or sweep in `directory`, or the run is done."""
    set_environment()
    if is_sweep(directory):
        from thaw.sweep.sweep import resume_sweep

        result = resume_sweep(directory, command_line=get_command_line(), reporter=ConsoleReporter())
        return EXIT_FAILURE if result.unfinished_jobs else EXIT_SUCCESS
    check_resumable(directory)  # before torch is imported
    from thaw.cli.train import report_training
    from thaw.training.start import resume_run

    return report_training(lambda reporter: resume_run(directory, reporter=reporter), directory)


def get_command_line() -> str:
    """Return the command of this process, as runs record it."""
    return shlex.join(["python", *sys.argv])


def set_environment() -> None:
    """What has to stand before torch and Hydra are imported, in this process and those that it starts."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # a traceback that we show is a bug of ours, wanted whole
    # Else torch warns of a setting that strategies of several phases need on several devices. It is read at the import.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
