"""`thaw compare DIR...`: runs side by side, in one table, one page and some pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.cli.arguments import generate_unique_name, is_help_request
from thaw.config.errors import Problem, UserError
from thaw.runs.run import is_run

DEFAULT_OUTPUT_DIR = "outputs"
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
    if is_help_request(arguments):
        print(HELP)
        return 0
    settings = [argument for argument in arguments if argument.startswith(("-", "out=")) or _is_setting(argument)]
    output_folders = [argument.removeprefix("out=") for argument in settings if argument.startswith("out=")]
    unknown_settings = [argument for argument in settings if not argument.startswith("out=")]
    if unknown_settings or len(output_folders) > 1 or "" in output_folders:
        problems = [
            Problem(argument, valid="out=DIR", fix="thaw compare --help") for argument in unknown_settings or settings
        ]
        raise UserError("not understood.", problems)
    directories = [Path(argument).expanduser() for argument in arguments if argument not in settings]
    if not directories:
        raise UserError("nothing to compare.", [Problem("no folder", valid="run directories, sweeps, folders of them")])
    from thaw.comparison.comparison import compare
    from thaw.system.reporter import ConsoleReporter

    output_dir = Path(output_folders[0]).expanduser() if output_folders else _resolve_output_folder(directories)
    compare(directories, output_dir, ConsoleReporter())
    return 0


def _is_setting(argument: str) -> bool:
    """A run's folder may have = in its name (0_seed=1)."""
    return "=" in argument and "/" not in argument.partition("=")[0] and not Path(argument).expanduser().exists()


def _resolve_output_folder(directories: Sequence[Path]) -> Path:
    if len(directories) == 1 and not is_run(directories[0]):
        return directories[0]
    return Path(DEFAULT_OUTPUT_DIR) / generate_unique_name("comparison")
