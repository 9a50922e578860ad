"""`thaw compare DIR...`: runs side by side, in one table, one page and some pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.commands.verbs import asks_for_help, new_name
from thaw.config.faults import Fault, UserFault
from thaw.training.run import RECORD

OUTPUTS = "outputs"
HELP = """thaw compare DIR [DIR ...] [out=DIR]

  DIR    a run directory, a sweep, or any folder with runs below it
  out    where the comparison goes; the sweep where one folder is given, else a new folder in outputs

  Runs that differ in nothing but the seed are one configuration. comparison.md, .csv and .html (one file, for the
  browser) have a row for each: test accuracy with its spread over seeds and 95 % interval, a paired test against the
  configuration that is best on the validation images, corrected for their number, time and trainable parameters. PNG
  files show learning curves, accuracy against time, and the classes. It is said where runs are not comparable, and
  which are not done.

    thaw compare outputs/2026-11-22_06-14-30_sweep_d2542a
    thaw compare outputs/RUN outputs/OTHER out=outputs/why

Exit status: 0, or 2 where there is something for you to change."""


def run(arguments: Sequence[str]) -> int:
    """Compares and returns the exit status.

    Raises:
        UserFault: for arguments that are not understood, folders without runs, or runs of which none is done.
    """
    if asks_for_help(arguments):
        print(HELP)
        return 0
    settings = [one for one in arguments if one.startswith(("-", "out=")) or _is_setting(one)]
    given = [one.removeprefix("out=") for one in settings if one.startswith("out=")]
    strange = [one for one in settings if not one.startswith("out=")]
    if strange or len(given) > 1 or "" in given:
        faults = [Fault(one, valid="out=DIR", fix="thaw compare --help") for one in strange or settings]
        raise UserFault("not understood.", faults)
    directories = [Path(one).expanduser() for one in arguments if one not in settings]
    if not directories:
        raise UserFault("nothing to compare.", [Fault("no folder", valid="run directories, sweeps, folders of them")])
    from thaw.comparison.build import compare
    from thaw.comparison.terminal import print_comparison

    print_comparison(compare(directories, Path(given[0]).expanduser() if given else _folder(directories)))
    return 0


def _is_setting(argument: str) -> bool:
    """A run's folder may have = in its name (0_seed=1)."""
    return "=" in argument and "/" not in argument.partition("=")[0] and not Path(argument).expanduser().exists()


def _folder(directories: Sequence[Path]) -> Path:
    if len(directories) == 1 and not (directories[0] / RECORD).is_file():
        return directories[0]
    return Path(OUTPUTS) / new_name("comparison")
