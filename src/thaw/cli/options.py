"""Options and paths of the verbs, their types, and the values that each type accepts in words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from thaw.config.errors import format_names


class Option(click.Option):
    """An option of a verb. The first of `names` is shown; the others are accepted too."""

    def __init__(
        self,
        *names: str,
        help: str,
        type: click.ParamType[Any] | None = None,
        default: Any = None,
        metavar: str = "VALUE",
        is_flag: bool = False,
    ) -> None:
        super().__init__(list(names), type=type, metavar=None if is_flag else metavar, is_flag=is_flag, help=help)
        self.default_value = False if is_flag else default

    @property
    def parameter_name(self) -> str:
        """Name of the function's parameter: min_lr for --min-lr."""
        return str(self.name)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return the option as it is written, and its meaning with the default."""
        has_default = self.default_value is not None and not self.is_flag
        default = f" (default: {format_value(self.default_value)})" if has_default else ""
        return f"{self.opts[0]} {self.metavar or ''}".rstrip(), f"{self.help}{default}"


def format_value(value: Any) -> str:
    """Return `value` as it is typed."""
    if isinstance(value, tuple):
        return ",".join(map(format_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def flag(name: str, help: str) -> Option:
    """Declare an option without a value."""
    return Option(name, is_flag=True, help=help)


def trust_option() -> Option:
    """Declare `--trust`, where a verb trains from a file that may be foreign."""
    return flag("--trust", "import the optimizer class of another package that the file names; that executes code")


def out_option(metavar: str, help: str) -> Option:
    """Declare `--out`, where a verb writes."""
    return Option("--out", type=FilePath(), metavar=metavar, help=help)


def config_dir_option() -> Option:
    """Declare `--config-dir`, a folder of the user's own presets."""
    return Option("--config-dir", metavar="DIR", type=FilePath(), help="folder with your own presets, as for train.py")


def path_argument(
    name: str, metavar: str, type: click.ParamType[Any] | None = None, required: bool = True
) -> click.Argument:
    """Declare a path, or any number of them if `metavar` ends in `...`; `name` is the function's parameter."""
    return click.Argument(
        [name], nargs=-1 if metavar.endswith("...") else 1, metavar=metavar, type=type, required=required
    )


class FilePath(click.Path):
    """A path; `~` is the user's home folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return `value` as a path."""
        return Path(value).expanduser()


class AnyWord(click.types.StringParamType):
    """Any word, also one with =."""


class Number(click.FloatRange):
    """A finite number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return `value` as a number.

        Raises:
            click.BadParameter: if it is not a finite number of the range.
        """
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail("not finite", param, ctx)
        return number


class NumberList(Number):
    """Numbers with commas between them; each counts once."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `value`, or the numbers of the text `value`, as a tuple.

        Raises:
            click.BadParameter: if one of them is not a finite number of the range.
        """
        if isinstance(value, tuple):
            return value
        numbers = [super(NumberList, self).convert(text, param, ctx) for text in str(value).split(",")]
        return tuple(dict.fromkeys(numbers))


class ChoiceList(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """Choices with commas between them; each counts once."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the choices in the text `value` as a tuple.

        Raises:
            click.BadParameter: if one of them is no choice.
        """
        return tuple(dict.fromkeys(super(ChoiceList, self).convert(text, param, ctx) for text in value.split(",")))


def describe_valid_values(parameter_type: click.ParamType[Any]) -> str:
    """Return the values that `parameter_type` accepts in words: "a whole number of at least 1"."""
    if isinstance(parameter_type, click.Choice):
        return format_names(map(str, parameter_type.choices))
    if isinstance(parameter_type, NumberList):
        return f"numbers {_describe_bounds(parameter_type)}, with commas between them"
    if isinstance(parameter_type, click.IntRange):
        return f"a whole number {_describe_bounds(parameter_type)}"
    if isinstance(parameter_type, click.FloatRange):
        return f"a number {_describe_bounds(parameter_type)}"
    return str(getattr(parameter_type, "valid", ""))


def _describe_bounds(number_range: click.IntRange | click.FloatRange) -> str:
    minimum = f"above {number_range.min:g}" if number_range.min_open else f"of at least {number_range.min:g}"
    return minimum if number_range.max is None else f"{minimum} and at most {number_range.max:g}"
