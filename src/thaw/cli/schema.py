"""`thaw schema [GROUP]`: the JSON schema of the recipe, with which editors check and complete YAML files."""

from __future__ import annotations

import json
from pathlib import Path

from thaw.cli.grammar import Verb
from thaw.cli.options import out_option, path_argument
from thaw.config.catalog import list_group_choices
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names


@Verb(
    "schema",
    summary="print the JSON schema of the recipe, for editors that check and complete YAML",
    examples=("thaw schema --out recipe.schema.json", "thaw schema strategy"),
    description="GROUP is a group of the recipe, such as strategy: then the schema is that of its presets.",
    paths=(path_argument("group", "[GROUP]", required=False),),
    options=(out_option("FILE", "file to write (default: standard output)"),),
)
def schema(group: str | None, out: Path | None) -> int:
    """Print or write the JSON schema and return the exit status.

    Raises:
        UserError: if there is no such group.
    """
    from thaw.config.reference import build_json_schema
    from thaw.config.schema import Recipe

    groups = [name for name in list_group_choices() if name in Recipe.model_fields]
    if group is not None and group not in groups:
        closest = find_closest_name(group, groups)
        fix = f"thaw schema {closest}" if closest else "thaw schema"
        raise UserError("no such group.", [Problem(f"thaw schema {group}", valid=format_names(groups), fix=fix)])
    text = json.dumps(build_json_schema(group), indent=2) + "\n"
    if out is None:
        print(text, end="")
        return EXIT_SUCCESS
    out.write_text(text, encoding="utf-8")
    print(f"the schema is {out}")
    return EXIT_SUCCESS
