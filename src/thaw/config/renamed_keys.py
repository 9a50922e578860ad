"""Keys that had other names in version 0.1: rejected on the command line with the new name, upgraded in old files.
Recipes of versions without `dataset.split_seed` get the splits that they had."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

# Old dotted key -> new dotted key. `*` stands for any one part of the key. A group is renamed with all keys below it.
RENAMED_KEYS = {
    "cache": "feature_cache",
    "data.cache": "data.cache_dir",
    "trainer.accumulate": "trainer.accumulate_grad_batches",
    "trainer.clip_norm": "trainer.gradient_clip_val",
    "trainer.workers": "trainer.num_workers",
    "trainer.nodes": "trainer.num_nodes",
    "strategy.start": "strategy.init",
    "strategy.source_pull": "strategy.l2_sp",
    "strategy.phases.*.share": "strategy.phases.*.fraction",
    "scheduler.rise": "scheduler.pct_start",
    "scheduler.start_divisor": "scheduler.div_factor",
    "scheduler.end_divisor": "scheduler.final_div_factor",
    "scheduler.every_epochs": "scheduler.step_size",
    "scheduler.factor": "scheduler.gamma",
    "scheduler.floor": "scheduler.min_lr_ratio",
    "scheduler.final": "scheduler.min_lr_ratio",
    "head.initialisation": "head.initialization",
    "augment.colour_jitter": "augment.color_jitter",
    "augment.random_resized_crop.centre": "augment.random_resized_crop.center",
    "hydra.sweeper.spared_trials": "hydra.sweeper.n_startup_trials",
    "hydra.sweeper.spared_epochs": "hydra.sweeper.n_warmup_steps",
}
RENAMED_VALUES = {"strategy.init": {"source": "pretrained"}}


def find_new_key(key: str) -> str | None:
    """Return the present name of `key`, a dotted key of version 0.1 or a key below one; None: it was not renamed."""
    parts = key.split(".")
    for old_key, new_key in RENAMED_KEYS.items():
        old_parts, new_parts = old_key.split("."), new_key.split(".")
        is_match = len(parts) >= len(old_parts) and all(map(_matches_part, old_parts, parts))
        if is_match:
            renamed_parts = [part if new == "*" else new for new, part in zip(new_parts, parts, strict=False)]
            return ".".join([*renamed_parts, *parts[len(old_parts) :]])
    return None


def _matches_part(pattern: str, part: str) -> bool:
    return pattern in ("*", part)


def convert_old_value(old_key: str, value: Any, div_factor: Any) -> Any:
    """Return the value for the new key. Version 0.1 counted `end_divisor` from the highest learning rate; torch counts
    `final_div_factor` from that of the first step."""
    if old_key == "scheduler.end_divisor" and isinstance(value, int | float) and isinstance(div_factor, int | float):
        return float(f"{value / div_factor:.12g}")
    new_key = find_new_key(old_key) or old_key
    return RENAMED_VALUES.get(new_key, {}).get(value, value) if isinstance(value, str) else value


def upgrade_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values`, the nested dict of a recipe, with the keys and values of version 0.1 renamed.

    Up to version 0.2, `seed` also drew the splits: a recipe without `dataset.split_seed` gets its seed there.
    """
    upgraded: dict[str, Any] = copy.deepcopy(dict(values))
    for old_key, new_key in RENAMED_KEYS.items():
        _rename(upgraded, old_key.split("."), new_key.split("."))
    for key, new_values in RENAMED_VALUES.items():
        group, name = key.split(".")
        section = upgraded.get(group)
        if isinstance(section, dict) and section.get(name) in new_values:
            section[name] = new_values[section[name]]
    dataset = upgraded.get("dataset")
    if isinstance(dataset, dict):
        _exclude_unread_files(dataset)
        if "seed" in upgraded:
            dataset.setdefault("split_seed", upgraded["seed"])
    return upgraded


def _exclude_unread_files(dataset: dict[str, Any]) -> None:
    """Exclude the placeholder of hymenoptera, which is a GIF: versions without this setting in the preset read none."""
    if dataset.get("name") == "hymenoptera":
        dataset.setdefault("exclude", ["imageNotFound.gif"])


def _rename(section: Any, old_parts: list[str], new_parts: list[str]) -> None:
    if not isinstance(section, dict):
        return
    part, *deeper_parts = old_parts
    if deeper_parts:
        for key in list(section) if part == "*" else [part]:
            _rename(section.get(key), deeper_parts, new_parts[1:])
    elif part in section:
        value = section[part]
        if part == "end_divisor":
            value = value / section.get("div_factor", 1.0)  # see convert_old_value
        renamed = {new_parts[-1] if key == part else key: entry for key, entry in section.items()}
        section.clear()
        section.update({**renamed, new_parts[-1]: value})
