"""Build the JSON schema of recipes and presets, with which editors check and complete YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from thaw.config.reference import iter_models, read_field_docs
from thaw.config.schema import Recipe
from thaw.config.search_space import SearchSettings

DIALECT = "http://json-schema.org/draft-07/schema#"  # the one that yaml-language-server supports best
SCHEMA_FOLDER = "schema"  # next to conf/; generated: python -m thaw.config.json_schema
SWEEPER_GROUP = "sweeper"
# Groups whose presets set one section of the recipe; a preset of any other group sets keys of the whole recipe.
SECTION_GROUPS = (
    "dataset",
    "backbone",
    "head",
    "strategy",
    "optimizer",
    "scheduler",
    "augment",
    "trainer",
    "feature_cache",
)
DEFAULTS_LIST = {
    "type": "array",
    "description": "Presets that this file extends, and choices of groups: - override /backbone: resnet18",
}
HYDRA_SECTION = {"type": "object", "description": "Settings of Hydra: run directories, launcher, sweeper."}


def build_json_schema(group: str | None = None) -> dict[str, Any]:
    """Return the JSON schema of a preset of `group`; without a group, of a file that sets keys of the whole recipe.

    No key is required, because a file may leave every key to the presets that it extends.

    Raises:
        KeyError: if there is no such group.
    """
    schema = SearchSettings.model_json_schema() if group == SWEEPER_GROUP else Recipe.model_json_schema()
    definitions = schema.pop("$defs", {})
    _describe_definitions(definitions, schema, SearchSettings if group == SWEEPER_GROUP else Recipe)
    for definition in (schema, *definitions.values()):
        _make_partial(definition)
    if group in SECTION_GROUPS:
        schema = _select_section(schema["properties"][group], definitions)
    elif group == SWEEPER_GROUP:
        _add_properties(schema, {"_target_": {"type": "string"}, "params": {"type": "object"}})
    elif group is None:
        _add_properties(schema, {"defaults": DEFAULTS_LIST, "hydra": HYDRA_SECTION})
    else:
        raise KeyError(group)
    schema["title"] = f"thaw: {group or 'recipe'}"
    used_definitions = _select_used_definitions(schema, definitions)
    return {"$schema": DIALECT, **schema} | ({"$defs": used_definitions} if used_definitions else {})


def build_schema_files() -> dict[str, str]:
    """Return the content of every file in the folder `schema`, by name: one for each group, and recipe.json."""
    schemas = {"recipe": build_json_schema()}
    schemas |= {group: build_json_schema(group) for group in (*SECTION_GROUPS, SWEEPER_GROUP)}
    return {f"{name}.json": f"{json.dumps(schema, indent=1)}\n" for name, schema in schemas.items()}


def write_schema_files(folder: Path) -> None:
    """Write the files of `build_schema_files` to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in build_schema_files().items():
        (folder / name).write_text(content, encoding="utf-8")


def _describe_definitions(definitions: dict[str, Any], schema: dict[str, Any], root: type[BaseModel]) -> None:
    """Add the descriptions of all fields. A class's own docstring describes its definition already."""
    models = {model.__name__: model for model in _iter_models_below(root)}
    for name, definition in {root.__name__: schema, **definitions}.items():
        docs = read_field_docs(models[name])
        for field, property_schema in definition.get("properties", {}).items():
            property_schema.pop("title", None)
            property_schema["description"] = docs[field]


def _iter_models_below(model: type[BaseModel]) -> list[type[BaseModel]]:
    nested_models = [nested for field in model.model_fields.values() for nested in iter_models(field.annotation)]
    return [model, *(deeper for nested in nested_models for deeper in _iter_models_below(nested))]


def _make_partial(definition: Any) -> None:
    """Require no key, and drop the discriminators, which a partial file may leave out."""
    if isinstance(definition, dict):
        definition.pop("required", None)
        definition.pop("discriminator", None)
        if "oneOf" in definition:
            definition["anyOf"] = definition.pop("oneOf")
        for entry in definition.values():
            _make_partial(entry)
    elif isinstance(definition, list):
        for entry in definition:
            _make_partial(entry)


def _select_section(section: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one section, with `defaults` in each of its variants."""
    references = [entry["$ref"] for entry in section.get("anyOf", [section])]
    for reference in references:
        _add_properties(definitions[reference.rpartition("/")[2]], {"defaults": DEFAULTS_LIST})
    return dict(section)


def _add_properties(schema: dict[str, Any], properties: dict[str, Any]) -> None:
    schema["properties"] = {**schema["properties"], **properties}


def _select_used_definitions(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    pending, names = [schema], set[str]()
    while pending:
        text = json.dumps(pending.pop())
        referenced = {name for name in definitions if f'"#/$defs/{name}"' in text} - names
        names |= referenced
        pending += [definitions[name] for name in sorted(referenced)]
    return {name: definitions[name] for name in sorted(names)}


if __name__ == "__main__":
    from thaw.config.presets import get_config_folder

    write_schema_files(get_config_folder().parent / SCHEMA_FOLDER)
