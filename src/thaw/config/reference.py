"""Describe every key of the recipe (type, default, range, meaning), read from the schema and from `conf/`; build the
JSON schema of the recipe."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from thaw.config.errors import format_value
from thaw.config.schema import Recipe
from thaw.config.search_space import SearchSettings

DICT_KEY = "NAME"  # stands for any key of a mapping: strategy.phases.NAME.train
DISCRIMINATORS = ("kind", "name")  # fields that tell the models of a union apart
NOT_SET = "none: must be set"
MAX_INLINE_CHOICES = 2  # a type with more fixed values is a `choice`, and its range lists them
TYPE_NAMES = {int: "integer", float: "number", bool: "boolean", str: "text", NoneType: "null", Any: "any value"}
LIMIT_WORDS = {"gt": "greater than {}", "ge": "at least {}", "lt": "less than {}", "le": "at most {}"}
DIALECT = "http://json-schema.org/draft-07/schema#"  # the one that yaml-language-server supports best
SCHEMA_FOLDER = "schema"  # next to conf/; generated: python -m thaw.config.reference
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


@dataclass(frozen=True)
class KeyDescription:
    """One key of the recipe.

    `default` is empty for a mapping whose keys have descriptions of their own. `variants` are the choices of its group
    that have the key like this, if not all of them do: ("linear", "cosine").
    """

    key: str
    type: str
    default: str
    range: str
    meaning: str
    variants: tuple[str, ...] = ()


@cache
def describe_keys() -> list[KeyDescription]:
    """Return every key of the recipe in the order of the schema; defaults are those of the presets in `conf/`."""
    descriptions: list[KeyDescription] = []
    for description in _iter_descriptions(Recipe, "", "", {"": _read_yaml("config.yaml")}):
        same_key = replace(description, variants=())
        matches = [index for index, known in enumerate(descriptions) if replace(known, variants=()) == same_key]
        if matches:
            known = descriptions[matches[0]]
            descriptions[matches[0]] = replace(known, variants=known.variants + description.variants)
        else:
            descriptions.append(description)
    return descriptions


def _iter_descriptions(
    model: type[BaseModel], prefix: str, variant: str, defaults: dict[str, Any]
) -> Iterator[KeyDescription]:
    docs = read_field_docs(model)
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        default = _find_default(key, field, defaults)
        models = list(iter_models(field.annotation))
        is_group = not prefix and name in _read_default_choices()
        if not is_group:
            yield KeyDescription(
                key,
                describe_type(field.annotation),
                default,
                describe_range(field),
                docs[name],
                (variant,) if variant else (),
            )
        nested_prefix = f"{key}.{DICT_KEY}." if get_origin(field.annotation) is dict else f"{key}."
        for nested_model in models:
            nested_variant = _find_variant(nested_model) if len(models) > 1 else ""
            nested_defaults = defaults | (_read_preset(name, nested_variant) if is_group else {})
            yield from _iter_descriptions(nested_model, nested_prefix, nested_variant or variant, nested_defaults)


def _find_default(key: str, field: FieldInfo, defaults: dict[str, Any]) -> str:
    """Return the default of `key`: the value in the preset, else that of the schema."""
    *parents, name = key.split(".")
    section: Any = defaults.get(parents[0] if parents and parents[0] in defaults else "", {})
    for parent in parents[1:] if parents and parents[0] in defaults else parents:
        section = section.get(parent) if isinstance(section, dict) else None
    if isinstance(section, dict) and name in section:
        has_own_rows = isinstance(section[name], dict) and get_origin(field.annotation) is not dict
        return "" if has_own_rows else NOT_SET if section[name] == "???" else format_value(section[name])
    return NOT_SET if field.is_required() else format_value(field.get_default(call_default_factory=True))


def _read_yaml(path: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from thaw.config.catalog import get_config_folder

    values = OmegaConf.to_container(OmegaConf.load(get_config_folder() / path), resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@cache
def _read_default_choices() -> dict[str, str]:
    """Return the groups of the recipe and the default choice of each, as `conf/config.yaml` lists them."""
    entries = [entry for entry in _read_yaml("config.yaml")["defaults"] if isinstance(entry, dict)]
    return {group: choice for entry in entries for group, choice in entry.items() if group in Recipe.model_fields}


def _read_preset(group: str, variant: str) -> dict[str, Any]:
    """Return {group: values} of the preset that is named like `variant`, else of the default choice."""
    return {group: _read_yaml(f"{group}/{variant or _read_default_choices()[group]}.yaml")}


def _find_variant(model: type[BaseModel]) -> str:
    """Return the value of the field that tells `model` apart from the others of its union."""
    for name in DISCRIMINATORS:
        if (field := model.model_fields.get(name)) and get_origin(field.annotation) is Literal:
            return str(get_args(field.annotation)[0])
    return ""


def iter_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in `annotation`, at any depth of unions, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for nested_annotation in get_args(annotation):
        yield from iter_models(nested_annotation)


def iter_literals(annotation: Any) -> Iterator[Any]:
    """Yield the fixed values in `annotation`, such as "auto" in `int | Literal["auto"]`."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for nested_annotation in get_args(annotation):
            yield from iter_literals(nested_annotation)


def find_fields(key: str) -> list[FieldInfo]:
    """Return the fields that the dotted `key` can mean: several if choices of a group differ, none if unknown."""
    models: list[type[BaseModel]] = [Recipe]
    *parents, name = key.split(".")
    is_mapping_key = False
    for parent in parents:
        if is_mapping_key:
            is_mapping_key = False
            continue
        annotations = [model.model_fields[parent].annotation for model in models if parent in model.model_fields]
        is_mapping_key = any(get_origin(annotation) is dict for annotation in annotations)
        models = [model for annotation in annotations for model in iter_models(annotation)]
    return [] if is_mapping_key else [model.model_fields[name] for model in models if name in model.model_fields]


def describe_type(annotation: Any) -> str:
    """Return the type in words: `integer`, `number or null`, `list of text`, `mapping`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(str, arguments)) if len(arguments) <= MAX_INLINE_CHOICES else "choice"
    if origin is list:
        return f"list of {describe_type(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    if annotation in TYPE_NAMES:
        return TYPE_NAMES[annotation]
    if hasattr(annotation, "__metadata__"):
        return describe_type(arguments[0])
    return " or ".join(dict.fromkeys(map(describe_type, arguments)))


def describe_range(field: FieldInfo) -> str:
    """Return what values of the type are valid: `greater than 0`, `auto, cpu, gpu`; empty: all."""
    limits = [*_describe_limits(field.annotation), *_describe_metadata(field.metadata)]
    return ", ".join(dict.fromkeys(limits))


def _describe_limits(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        if len(get_args(annotation)) > MAX_INLINE_CHOICES:
            yield ", ".join(map(str, get_args(annotation)))
    elif get_origin(annotation) is not dict:
        yield from _describe_metadata(getattr(annotation, "__metadata__", ()))
        for nested_annotation in get_args(annotation):
            if nested_annotation not in getattr(annotation, "__metadata__", ()):
                yield from _describe_limits(nested_annotation)


def _describe_metadata(metadata: Sequence[Any]) -> Iterator[str]:
    for limit in metadata:
        if isinstance(limit, FieldInfo):
            yield from _describe_metadata(limit.metadata)
            continue
        for name, words in LIMIT_WORDS.items():
            if (bound := getattr(limit, name, None)) is not None:
                yield words.format(bound)
        if pattern := getattr(limit, "pattern", None):
            yield f"matches {pattern}"


def describe_valid_values(key: str) -> str:
    """Return type and range of `key` in one phrase: `number (greater than 0)`; empty if there is no such key."""
    phrases = []
    for field in find_fields(key):
        type_name, value_range = describe_type(field.annotation), describe_range(field)
        is_choice = type_name.startswith("choice")
        phrases.append(value_range if is_choice else f"{type_name} ({value_range})" if value_range else type_name)
    return " or ".join(dict.fromkeys(phrases))


@cache
def read_field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each field of `model`: the string below it in the source of the class or of a base."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            docs |= _read_docs_of_module(base.__module__).get(base.__name__, {})
    return {name: docs.get(name, "") for name in model.model_fields}


@cache
def _read_docs_of_module(module_name: str) -> dict[str, dict[str, str]]:
    path = inspect.getsourcefile(sys.modules[module_name])
    assert path is not None
    classes = [
        node for node in ast.parse(Path(path).read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
    ]
    return {node.name: dict(_iter_docs_of_class(node)) for node in classes}


def _iter_docs_of_class(class_node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for node, following in zip(class_node.body, class_node.body[1:], strict=False):
        match node, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


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
    from thaw.config.catalog import get_config_folder

    write_schema_files(get_config_folder().parent / SCHEMA_FOLDER)
