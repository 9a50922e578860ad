"""`thaw audit key=value`: copies, probable wrong labels, shortcuts and leaks of a data set, before training."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import compose_recipe, generate_output_path, run_interruptible
from thaw.cli.grammar import ANY_RECIPE_KEY, Parameters, Verb
from thaw.cli.options import config_dir_option, flag, out_option
from thaw.cli.probe import EPOCH_KEYS, PROCESS_KEYS
from thaw.config.errors import EXIT_FAILURE, EXIT_SUCCESS, Problem, format_count

if TYPE_CHECKING:
    from thaw.auditing.result import AuditResult

FIXED_OVERRIDES = ("strategy=fixed", "head=linear")
VALID_OVERRIDES = "keys of data, backbone and hardware, and the options of thaw audit"
UNSUPPORTED_GROUPS = {
    "strategy": "an audit trains nothing",
    "head": "an audit trains nothing",
    "optimizer": "an audit trains nothing",
    "scheduler": "an audit trains nothing",
    "augment": "an audit looks at the images as they are",
    "experiment": "it sets keys that an audit does not use",
    "resume": "an audit takes a minute and cannot be interrupted and continued",
    "hydra": "an audit is one job",
    "sweep": "an audit is one job",
    "launcher": "an audit is one job",
    "folds": "an audit looks at all images, and has folds of its own",
    "fold": "an audit looks at all images, and has folds of its own",
}
UNSUPPORTED_KEYS = {
    "data.train_per_class": "an audit looks at all images",
    "data.near_duplicates": "an audit always searches for copies, in a better way",
    "data.group_leak": "an audit reports groups on both sides of a split and goes on",
}


def _find_unsupported_overrides(parameters: Parameters) -> Iterator[Problem]:
    for override in parameters["overrides"]:
        key = override.lstrip("+~").split("=", 1)[0]
        group, _, name = key.partition(".")
        if override in FIXED_OVERRIDES or key == "head.replaces":
            continue
        if reason := UNSUPPORTED_GROUPS.get(group) or UNSUPPORTED_KEYS.get(key):
            yield Problem(override, reason, VALID_OVERRIDES, "leave it out")
        elif group == "trainer" and name.split(".")[0] in EPOCH_KEYS:
            yield Problem(override, "it is about training in epochs", VALID_OVERRIDES, "leave it out")
        elif (group == "trainer" and name in PROCESS_KEYS) or override in ("trainer=ddp", "trainer=fsdp"):
            yield Problem(override, "an audit runs in one process, on one device", VALID_OVERRIDES, "leave it out")


@Verb(
    "audit",
    summary="find copies, probable wrong labels, shortcuts and leaks of a data set, before training",
    examples=(
        "thaw audit dataset=hymenoptera",
        "thaw audit dataset=folder dataset.root=DIR --out outputs/audit --strict",
    ),
    description="From one pass of frozen features: exact and near copies, within and across splits and with different "
    "labels; probable wrong labels, with the recall measured on labels that are changed on purpose; shortcuts by file "
    "size, image size, format or name; groups that the file names suggest; classes that are hard to tell apart; "
    "outliers and blank images. Writes audit.html with pictures, audit.csv and audit.json with all findings, and "
    "exclude.csv and relabel.csv for data.exclude= and data.relabel=, which an audit applies too: a second one shows "
    "what is left. Labels are suggestions: look at them before you use relabel.csv.",
    options=(
        out_option("DIR", "folder to write to (default: a new one in output_dir)"),
        flag("--strict", "exit with status 1 if something was found"),
        config_dir_option(),
    ),
    recipe_keys=ANY_RECIPE_KEY,
    check=_find_unsupported_overrides,
    exit_statuses="0; with --strict 1 if something was found; 2 if there is something for you to change.",
    no_args_is_help=True,
)
def audit(overrides: Sequence[str], out: Path | None, strict: bool, config_dir: Path | None) -> int:
    """Audit the recipe's data set and return the exit status.

    Raises:
        UserError: if the recipe is wrong, or data and weights are not available.
    """
    own_overrides = [override for override in overrides if override not in FIXED_OVERRIDES]
    recipe = compose_recipe([*FIXED_OVERRIDES, *own_overrides], config_dir)  # before torch is imported
    folder = out or generate_output_path(recipe, "audit")
    from thaw.auditing.audit import audit as audit_dataset
    from thaw.runs.lifecycle import create_directory
    from thaw.system.reporter import ConsoleReporter

    with create_directory(folder):  # before the audit, which takes a minute
        result = run_interruptible(lambda: audit_dataset(recipe, ConsoleReporter()))
        _print_result(result, result.write(folder), own_overrides)
    return EXIT_FAILURE if strict and result.findings else EXIT_SUCCESS


def _print_result(result: AuditResult, folder: Path, overrides: Sequence[str]) -> None:
    from thaw.auditing.result import HEADINGS, PAGE_FILE
    from thaw.cli.table import Column, print_table
    from thaw.system.portable import shorten_path
    from thaw.system.reporter import ConsoleReporter
    from thaw.visualization.reports.console import print_dataset_summary

    print_dataset_summary(ConsoleReporter(), result.dataset, result.samples, result.facts["skipped"])
    print()
    columns = [*map(Column, HEADINGS[:-1]), Column(HEADINGS[-1], is_numeric=True)]
    print_table(columns, result.list_rows())
    times = f"{result.seconds:.0f} s, {result.facts['feature_seconds']:.0f} s of them for the features"
    count = format_count(len(result.findings), "finding")
    print(f"\n{count} in {times}; everything is in {shorten_path(folder)}, with pictures in {PAGE_FILE}")
    commands = result.format_commands(folder)
    if commands:
        print("next:")
    for purpose, setting in commands:
        print(f"  {setting}\n      {purpose}")
    settings = [
        setting for _, setting in commands if not setting.startswith("data.relabel=")
    ]  # labels are to be checked
    if settings:
        words = [shlex.quote(override) for override in overrides if override.partition("=")[0] != "data.exclude"]
        print(f"for example:\n  python train.py {' '.join([*words, *settings])}")
