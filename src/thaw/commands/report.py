"""`thaw report RUN`: the page of a run that has ended, written anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.commands.verbs import asks_for_help
from thaw.config.faults import DONE, Fault, UserFault

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
    if asks_for_help(arguments):
        print(HELP)
        return DONE
    if wrong := [Fault(one, "no such option", fix="thaw report RUN") for one in arguments if one.startswith("-")]:
        raise UserFault("nothing was started.", wrong)
    from thaw.trained.page import check_reportable, write_page

    directories = [Path(one).expanduser() for one in arguments]
    for directory in directories:
        check_reportable(directory)
    for directory in directories:
        print(f"the report is {write_page(directory)}")
    return DONE
