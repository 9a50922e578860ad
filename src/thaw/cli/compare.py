"""`thaw compare DIR...`: compare runs in one table, one page and some plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.cli.arguments import generate_unique_name
from thaw.cli.grammar import Verb
from thaw.cli.options import FilePath, out_option, path_argument
from thaw.config.errors import EXIT_SUCCESS

DEFAULT_OUTPUT_DIR = "outputs"


@Verb(
    "compare",
    summary="compare runs: spread over seeds, intervals, paired tests, learning curves",
    examples=(
        "thaw compare outputs/2026-11-22_06-14-30_sweep_d2542a",
        "thaw compare outputs/RUN outputs/OTHER --out outputs/comparison",
    ),
    description="DIR is a run directory, a sweep, or any folder with runs below it. Runs that differ only in the seed "
    "are one configuration. comparison.md, .csv and .html (one file, for the browser) have a row for each: test "
    "accuracy with its spread over seeds and 95 % interval; a paired test against the configuration that is best on "
    "the validation images, corrected for the number of tests; time and trainable parameters. PNG files show learning "
    "curves, accuracy against time, and the classes. Runs that are not comparable or not done are named.",
    paths=(path_argument("directories", "DIR...", FilePath(file_okay=False)),),
    options=(out_option("DIR", "folder to write to (default: the sweep, or a new folder in outputs)"),),
    no_args_is_help=True,
)
def compare(directories: Sequence[Path], out: Path | None) -> int:
    """Compare the runs in `directories` and return the exit status.

    Raises:
        UserError: for folders without runs, or runs of which none is done.
    """
    from thaw.comparison.comparison import compare as compare_runs
    from thaw.system.reporter import ConsoleReporter

    compare_runs(directories, out or _choose_output_folder(directories), ConsoleReporter())
    return EXIT_SUCCESS


def _choose_output_folder(directories: Sequence[Path]) -> Path:
    from thaw.runs.run import is_run

    if len(directories) == 1 and not is_run(directories[0]):
        return directories[0]
    return Path(DEFAULT_OUTPUT_DIR) / generate_unique_name("comparison")
