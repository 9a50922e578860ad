"""`thaw report RUN`: the page of a run that has ended, written anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.cli.arguments import is_help_request
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError

HELP = """thaw report RUN...

  Writes RUN/report.html anew, from what lies in the run directory: what was trained on what and how, curves, metrics,
  confusion matrix, best and worst test images, Grad-CAM of a few, plan, environment. Every run writes it when it ends;
  this is for older ones, or after plots/ has changed.

    thaw report outputs/RUN

The test images are taken from the data set, which is fetched if it has to be; a page without them says so.
Exit status: 0, or 2 where there is something for you to change."""


def run(arguments: Sequence[str]) -> int:
    """Writes the pages of the runs that `arguments` name and returns the exit status.

    Raises:
        UserFault: where one is no run, or has not ended.
    """
    if is_help_request(arguments):
        print(HELP)
        return EXIT_SUCCESS
    if problems := [
        Problem(argument, "no such option", fix="thaw report RUN") for argument in arguments if argument.startswith("-")
    ]:
        raise UserError("nothing was started.", problems)
    from thaw.inference.report import check_reportable, write_report

    directories = [Path(argument).expanduser() for argument in arguments]
    for directory in directories:
        check_reportable(directory)
    for directory in directories:
        print(f"the report is {write_report(directory)}")
    return EXIT_SUCCESS
