"""`thaw list [KIND] [PATTERN]`: list the choices that a recipe is composed of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from thaw.cli.grammar import Verb
from thaw.cli.options import flag, path_argument
from thaw.config.catalog import get_config_folder, list_group_choices, read_description
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names
from thaw.config.guesses import KEY_GUESSES

BACKBONES, RUNS = "backbones", "runs"


@Verb(
    "list",
    summary="list runs with their results, backbones with their figures, and all other choices",
    examples=("thaw list runs", "thaw list strategies", "thaw list backbones 'convnext*'"),
    description="Without KIND: the kinds and the choices of each. backbones: presets, and torchvision's classifiers "
    "with their published figures; with PATTERN, a quoted shell pattern, also those of timm. Every other kind: a line "
    "for each choice. runs: a line for each run in the folder PATTERN (default: outputs) with status, accuracy, time "
    "and age; those that cannot be read are named.\n\n"
    "GMACs are billions of multiply-adds for one image, which many papers call GFLOPs; top-1 is accuracy on ImageNet "
    "in percent. Both, and the number of parameters, are those of the default weights and of images of the size "
    'beside them. "weights here" names weights that need no network: those of an installed package, or files in '
    "thaw's cache, torch hub's or Hugging Face's. Nothing is downloaded.",
    paths=(
        path_argument("kind", "[KIND]", required=False),
        path_argument("pattern", "[PATTERN]", required=False),
    ),
    options=(flag("--csv", "comma-separated values; with backbones all of them, those of timm too"),),
)
def list_choices(kind: str | None, pattern: str | None, csv: bool) -> int:
    """Print the choices of `kind` that match `pattern` and return the exit status.

    Raises:
        UserError: if there is no such kind, or no choice that matches.
    """
    from thaw.cli.table import Column, print_rows

    groups = {re.sub("y$", "ie", group) + "s": group for group in list_group_choices()}  # strategies: strategy
    if kind is None:
        columns = [Column("kind", no_wrap=True), Column("in a recipe", no_wrap=True), Column("choices")]
        choices = list_group_choices()
        rows = [[name, f"{group}=NAME", ", ".join(choices[group])] for name, group in groups.items()]
        print_rows(columns, rows, csv)
        return EXIT_SUCCESS
    if kind in (RUNS, "run"):
        from thaw.cli import list_runs

        return list_runs.list_runs(pattern, csv)
    kind = _resolve_kind(kind, groups)
    if kind == BACKBONES:
        from thaw.cli import backbones

        return backbones.list_backbones(pattern, csv)
    columns = [Column("name", no_wrap=True), Column("description")]
    print_rows(columns, _build_description_rows(kind, groups[kind], pattern), csv)
    return EXIT_SUCCESS


def _resolve_kind(name: str, groups: dict[str, str]) -> str:
    kinds_by_group = {group: kind for kind, group in groups.items()}
    if name in groups or name in kinds_by_group:
        return kinds_by_group.get(name, name)
    guess = str(KEY_GUESSES.get(name.removesuffix("s"), "")).partition("=")[0]  # models: backbone={value}
    fix = f"thaw list {kinds_by_group.get(guess) or find_closest_name(name, [*groups, RUNS]) or ''}".strip()
    if find_closest_name(name, groups) is None and find_closest_name(name, kinds_by_group) is None:
        fix = f"thaw list backbones '*{name.strip('*')}*'" if re.search(r"[\d*]", name) else fix
    raise UserError(
        "no such kind of choice.", [Problem(f"thaw list {name}", valid=format_names([RUNS, *groups]), fix=fix)]
    )


def _build_description_rows(kind: str, group: str, pattern: str | None) -> Sequence[Sequence[str]]:
    files = {file.stem: file for file in sorted((get_config_folder() / group).glob("*.yaml"))}
    matching_names = [name for name in files if pattern is None or fnmatchcase(name, pattern)]
    if not matching_names:
        fix = f"thaw list {kind} {find_closest_name(pattern or '', files) or ''}".strip()
        problem = Problem(f"thaw list {kind} {pattern}", valid=format_names(files), fix=fix)
        raise UserError(f"none of the {kind} matches.", [problem])
    return [[name, read_description(files[name])] for name in matching_names]
