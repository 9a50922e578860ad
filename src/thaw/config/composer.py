"""Compose the jobs of a command with Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from thaw.config.overrides import GroupChoices, force_override

CONFIG_NAME = "config"


@dataclass(frozen=True)
class Command:
    """A parsed command line. `arguments` are all words, options first; `shows_help` is true if it prints help or the
    configuration and trains nothing."""

    arguments: tuple[str, ...]
    overrides: tuple[str, ...]
    multirun: bool
    shows_help: bool
    config_dir: str | None
    config_name: str

    @property
    def has_shipped_config(self) -> bool:
        """Whether the recipe without overrides is the one in `conf/`, which is valid."""
        return self.config_dir is None and self.config_name == CONFIG_NAME


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
            f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"
            for config_dir in (self.command.config_dir,)
            if config_dir
        ]
        return [*map(self.force_override, lines), *search_path_overrides]

    def _load_config(self, lines: Sequence[str], mode: RunMode) -> DictConfig:
        key = (mode, tuple(lines))
        if key not in self.composed_configs:
            try:
                self.composed_configs[key] = self.config_loader.load_configuration(
                    self.command.config_name, list(lines), run_mode=mode
                )
            except (ValueError, YAMLError) as error:  # a defaults list with `off` without quotes; a syntax error
                raise ConfigCompositionException(" ".join(str(error).split())) from error
        return self.composed_configs[key]


def resolve_values(config: DictConfig) -> dict[str, Any]:
    """Return the values of the recipe, with interpolations resolved and without Hydra's section."""
    recipe_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values = OmegaConf.to_container(recipe_config, resolve=True, throw_on_missing=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
