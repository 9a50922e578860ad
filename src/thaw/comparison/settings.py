"""The settings of runs, and the keys that distinguish them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from thaw.comparison.records import RunResults

# Keys that do not change a result. Runs that differ only in them are one configuration.
IGNORED_KEYS = {
    "seed": "a configuration is repeated over seeds",
    "dataset.split_seed": "and over splits",
    "fold": "and over folds",
    "output_dir": "the place of runs",
    "resume": "a resumed run is the same run",
    "notes": "text for the reader",
    "data.cache_dir": "the place of images",
    "data.mirror": "the source of downloads; checksums ensure that they are equal",
    "data.store_gib": "how many decoded images are kept",
    "data.near_duplicates": "a check of the images that changes none",
    "data.group_leak": "whether a check of the images warns or stops",
    "feature_cache.gib": "how many features are kept",
    "trainer.threads": "changes times alone; a caveat says so",
    "trainer.num_workers": "changes times alone; a caveat says so",
}
KEYS_UNUSED_BY_PROBES = ("optimizer", "scheduler", "trainer")  # a probe's recipe has them, a probe ignores them
DISCRIMINATORS = ("name", "kind")  # the keys of a group that decide which other keys it has
ABSENT = object()
TRAINING, PROBE = "training", "probe"

Key = tuple[str, ...]


def extract_settings(run: RunResults) -> dict[str, Any]:
    """Return what decides the result of a run: its recipe without IGNORED_KEYS, and whether it is a probe. The dict is
    empty if the run failed before it had a recipe."""
    if not run.recipe:
        return {}
    settings = _name_weights(_drop_keys(run.recipe, set(IGNORED_KEYS)))
    if run.is_probe:
        settings = {key: value for key, value in settings.items() if key not in KEYS_UNUSED_BY_PROBES}
        return {"run": PROBE, **settings, "heads": run.record["probe"].get("grid", {})}
    return {"run": TRAINING, **settings}


def _name_weights(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `settings` with the name of the package that brings the weights, if any, as `backbone.weights`."""
    backbone = settings.get("backbone")
    if not isinstance(backbone, dict) or "package" not in backbone:
        return settings
    package = backbone["package"]
    weights = package.get("distribution") if isinstance(package, dict) else backbone.get("weights")
    own_keys = {key: value for key, value in backbone.items() if key != "package"}
    return {**settings, "backbone": {**own_keys, "weights": weights}}


def _drop_keys(values: Mapping[str, Any], keys: set[str], prefix: str = "") -> dict[str, Any]:
    items_by_path = {f"{prefix}{key}": (key, value) for key, value in values.items()}
    return {
        key: _drop_keys(value, keys, f"{dotted_key}.") if isinstance(value, dict) else value
        for dotted_key, (key, value) in items_by_path.items()
        if dotted_key not in keys
    }


def find_differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[Key]:
    """Return the keys whose values differ, in the order of the recipe.

    A group whose name differs (strategy, optimizer, ...) is one key. A key below it is listed only if it differs among
    recipes with the same name. A recipe that lacks a whole group is ignored there; a key that it lacks counts as null.
    """
    groups = dict.fromkeys(group for run_settings in settings for group in run_settings)
    keys_by_group = [
        _iter_differing_keys((group,), [run_settings[group] for run_settings in settings if group in run_settings])
        for group in groups
    ]
    return list(dict.fromkeys(key for keys in keys_by_group for key in keys))


def _iter_differing_keys(key: Key, values: Sequence[Any]) -> Iterator[Key]:
    if all(value == values[0] for value in values):
        return
    names = [_get_group_name(value) for value in values]
    can_recurse = all(isinstance(value, dict) or (value is None and any(names)) for value in values)
    if not can_recurse or len(set(names)) > 1:
        yield key
    for name in dict.fromkeys(names) if can_recurse else ():
        same_name_values = [
            value for value, value_name in zip(values, names, strict=True) if value_name == name and value is not None
        ]
        for subkey in dict.fromkeys(subkey for group in same_name_values for subkey in group):
            yield from _iter_differing_keys((*key, subkey), [group.get(subkey) for group in same_name_values])


def _get_group_name(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    return next((str(value[key]) for key in DISCRIMINATORS if key in value), None)


def get_value(settings: Mapping[str, Any], key: Key) -> Any:
    """Return the value of `key`, the name of a group that has one, or ABSENT if there is no such key."""
    value: Any = settings
    for part in key:
        if not isinstance(value, Mapping) or part not in value:
            return ABSENT
        value = value[part]
    return _get_group_name(value) or value


def format_value(value: Any) -> str:
    """Return `value` as text, close to how it is typed on a command line."""
    if value is ABSENT:
        return "-"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_value(nested_value)}" for key, nested_value in value.items())
    return " ".join(map(format_value, value)) if isinstance(value, list) else str(value)


def shorten_keys(keys: Sequence[Key]) -> list[str]:
    """Return the last part of each key, or the whole key if another one has the same last part."""
    endings = [key[-1] for key in keys]
    return [end if endings.count(end) == 1 else ".".join(key) for key, end in zip(keys, endings, strict=True)]


def build_labels(keys: Sequence[Key], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a label for each row of values, like `fixed · learning_rate 0.001`.

    The value of a group, or of the only key, has no key name before it. The label leaves out that a run is a training
    if there are other keys.
    """
    names = [
        "" if len(key) == 1 or len(keys) == 1 else f"{name} "
        for key, name in zip(keys, shorten_keys(keys), strict=True)
    ]
    hidden_values = ("-", TRAINING) if len(keys) > 1 else ("-",)
    parts = [
        [f"{name}{value}" for name, value in zip(names, row, strict=True) if value not in hidden_values] for row in rows
    ]
    return [" · ".join(row_parts) or "all runs" for row_parts in parts]
