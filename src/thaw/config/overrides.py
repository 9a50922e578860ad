"""The overrides of a command line, each by itself: can it be read, does it name a choice that there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from thaw.config.extras import installation
from thaw.config.faults import Fault, listing, nearest
from thaw.config.schema import Recipe


@dataclass(frozen=True)
class Choices:
    """The choices of each group, which Hydra is asked for once: it copies its list of places for an answer, 15 ms."""

    loader: ConfigLoader
    known: dict[str, list[str]] = field(default_factory=dict)

    def of(self, group: str) -> list[str]:
        """None of what is no group: a key with a dot never is."""
        if group not in self.known:
            self.known[group] = [] if "." in group else self.loader.get_group_options(group)
        return self.known[group]


def sorted_out(
    lines: Sequence[str], multirun: bool, knows_choices: bool, known: Choices
) -> tuple[list[Override], list[Fault]]:
    """The overrides that can be composed, and the faults of those that cannot. Which keys a group has is open while
    its choice is wrong, so they are not judged then. `knows_choices` is false where the user has a folder of others."""
    sound, faults, unsettled = [], [], set[str]()
    parser = OverridesParser.create(config_loader=known.loader)
    for line in lines:
        try:
            (override,) = parser.parse_overrides([line])  # unlike parse_override it lets glob(*) know the choices
        except HydraException as error:
            faults.append(_unreadable(line, error))
            continue
        found = list(_faults_of_override(override, multirun, knows_choices, known))
        faults.extend(found)
        sound.extend([] if found else [override])
        unsettled.update([override.key_or_group] if found else [])
    return [one for one in sound if one.key_or_group.split(".")[0] not in unsettled], faults


def _unreadable(line: str, error: HydraException) -> Fault:
    if "=" not in line:
        return Fault(line, "a key without a value", "key=value", f"{line}=VALUE")
    value = line.split("=", 1)[1]
    got = f"{value!r}: {first_line(error.__cause__ or error)}" if value else "nothing after ="
    return Fault(line, got, "key=value", "quote a value that holds spaces or = , [ ] { }: 'key=\"VALUE\"'")


def _faults_of_override(override: Override, multirun: bool, knows_choices: bool, known: Choices) -> Iterator[Fault]:
    key, is_left_out = override.key_or_group, override.is_delete() and override.value() is None
    choices = [] if is_left_out else known.of(key)
    if override.is_sweep_override() and not multirun:
        yield Fault(
            str(override.input_line),
            "several values",
            "one value, or a sweep",
            f"put -m in front: -m {override.input_line}",
        )
    elif choices and override.is_interval_sweep():
        yield Fault(str(override.input_line), "an interval", listing(choices))
    elif choices and knows_choices:
        values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
        if not values:  # a sweep over nothing would end at once, as if all were well
            yield Fault(str(override.input_line), "a pattern that no choice fits", listing(choices))
        yield from _unknown_choices(key, values, choices)
    elif not choices and not override.is_sweep_override() and "." not in key and isinstance(override.value(), str):
        yield from _unknown_group(key, str(override.value()), known.loader)


def _unknown_choices(group: str, values: Sequence[Any], choices: list[str]) -> Iterator[Fault]:
    for value in values:
        named = value if isinstance(value, list) else [value]
        for name in [one for one in ("null" if one is None else str(one) for one in named) if one not in choices]:
            closest = nearest(name, choices)
            fix = _way_to_any(group, name) or (f"{group}={closest}" if closest else "")
            fix = f"~{group} takes none" if name == "null" else fix
            yield Fault(f"{group}={name}", f"{name!r}, no choice of the group {group}", listing(choices), fix)


def _way_to_any(group: str, name: str) -> str:
    from thaw.config.catalog import backbone_names, torch_optimizer

    if group == "optimizer" and torch_optimizer(name):
        return f"optimizer=torch optimizer.name={name}"
    fitting = [
        library for library in ("torchvision", "timm") if group == "backbone" and name in backbone_names(library)
    ]
    return f"backbone={fitting[0]} backbone.name={name}" if fitting else installation(group, name)


def _unknown_group(key: str, value: str, loader: ConfigLoader) -> Iterator[Fault]:
    groups = [group for group in loader.list_groups("") if group != "hydra"]
    closest = nearest(key, groups)
    if key not in Recipe.model_fields and closest:
        yield Fault(f"{key}={value}: no such group", valid=listing(groups), fix=f"{closest}={value}")


def forced(line: str, known: Choices) -> str:
    """A value is set even where Hydra knows no such key: the schema names all unknown keys at once, and a key can be
    set below one that is null (trainer.early_stopping.patience=5)."""
    key = line.lstrip("+").split("=", 1)[0]
    is_value = not line.startswith("~") and not key.startswith("hydra") and not known.of(key.split("@")[0])
    return f"++{line.lstrip('+')}" if is_value else line


def first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
