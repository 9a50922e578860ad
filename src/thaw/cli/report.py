"""`thaw report RUN`: write the report of a finished run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.cli.grammar import Verb
from thaw.cli.options import FilePath, path_argument
from thaw.config.errors import EXIT_SUCCESS


@Verb(
    "report",
    summary="write report.html of finished runs again",
    examples=("thaw report outputs/RUN", "thaw report outputs/SWEEP/*/"),
    description="The report shows what was trained on which data and how, curves, metrics, the confusion matrix, the "
    "best and worst test images, Grad-CAM of a few, the plan and the environment. Every run writes it when it ends; "
    "this verb is for older runs, or after plots/ has changed.\n\n"
    "The test images are read from the data set, which is downloaded if necessary; a report without them says so.",
    paths=(path_argument("runs", "RUN...", FilePath(file_okay=False)),),
    no_args_is_help=True,
)
def report(runs: Sequence[Path]) -> int:
    """Write the reports of `runs` and return the exit status.

    Raises:
        UserError: if one of them is no run, or has not ended.
    """
    from thaw.inference.report import check_reportable, write_report

    for directory in runs:
        check_reportable(directory)
    for directory in runs:
        print(f"the report is {write_report(directory)}")
    return EXIT_SUCCESS
