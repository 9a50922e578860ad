"""Compose the jobs of a command with Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from thaw.config.command import Command
from thaw.config.overrides import GroupChoices, force_override

DATASET_LABEL = "${thaw.folder_name:}"  # the name of a data set, on which no other value depends
# What Hydra and OmegaConf raise for a configuration that they cannot compose, besides their own exceptions: `off`
# without quotes in a defaults list, text as the index of a list, a choice that is a folder, a value inside itself.
HYDRA_FAULTS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    YAMLError,
)


@dataclass(frozen=True)
class Composer:
    """Compose the jobs of `command`, each once, because that takes about 0.1 s."""

    command: Command
    config_loader: ConfigLoader
    group_choices: GroupChoices
    composed_configs: dict[tuple[RunMode, tuple[str, ...]], DictConfig] = field(default_factory=dict)

    def compose_job(self, lines: Sequence[str]) -> DictConfig:
        """Compose one job with the overrides `lines`."""
        return self._load_config(self.force_overrides(lines), RunMode.RUN)

    def compose_shared_config(self, overrides: Sequence[Override]) -> DictConfig:
        """Compose the part of a sweep that all its jobs share."""
        return self._load_config(
            self.force_overrides([override.input_line or "" for override in overrides]), RunMode.MULTIRUN
        )

    def force_override(self, line: str) -> str:
        """Return `line` as `overrides.force_override` does."""
        return force_override(line, self.group_choices)

    def force_overrides(self, lines: Sequence[str]) -> list[str]:
        """Return the overrides that Hydra gets: `lines`, forced, and the search path of the user's own presets."""
        search_path_overrides = [
            f"hydra.searchpath=[{QuotedString(f'file://{folder.path.resolve()}', Quote.single).with_quotes()}]"
            for folder in (self.group_choices.preset_folder,)
            if folder
        ]
        return [*map(self.force_override, lines), *search_path_overrides]

    def find_own_presets(self, config: DictConfig) -> dict[str, Path]:
        """Return the files of the user's own presets in the composed `config`, by group."""
        folder = self.group_choices.preset_folder
        choices = {
            group: name for group, name in config.hydra.runtime.choices.items() if folder and isinstance(name, str)
        }
        files = {group: folder.find_file(f"{group}/{name}") for group, name in choices.items() if folder}
        return {str(group): file for group, file in files.items() if file}

    def _load_config(self, lines: Sequence[str], mode: RunMode) -> DictConfig:
        key = (mode, tuple(lines))
        if key not in self.composed_configs:
            try:
                self.composed_configs[key] = self.config_loader.load_configuration(
                    self.command.config_name, list(lines), run_mode=mode
                )
            except HYDRA_FAULTS as error:
                raise ConfigCompositionException(" ".join(str(error).split()) or type(error).__name__) from error
        return self.composed_configs[key]


def resolve_values(config: DictConfig) -> dict[str, Any]:
    """Return the values of the recipe, with interpolations resolved and without Hydra's section."""
    return _convert(config, resolve=True)


def has_interpolations(config: DictConfig) -> bool:
    """Whether a value of the recipe refers to another key."""
    return "${" in str(_convert(config, resolve=False)).replace(DATASET_LABEL, "")


def _convert(config: DictConfig, resolve: bool) -> dict[str, Any]:
    recipe_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        values = OmegaConf.to_container(recipe_config, resolve=resolve, throw_on_missing=False)
    except RecursionError as error:
        raise ConfigCompositionException("a value refers to itself") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
