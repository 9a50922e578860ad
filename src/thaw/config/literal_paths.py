"""Take paths and regular expressions on a command line literally: Hydra's grammar would read spaces, commas, brackets
and = in them."""

from __future__ import annotations

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from thaw.config.guesses import KEY_GUESSES

# The keys whose value is a path, as the schema declares them; and Hydra's directories of runs and sweeps.
PATH_KEYS = (
    "output_dir",
    "resume",
    "data.cache_dir",
    "dataset.root",
    "dataset.splits.train",
    "dataset.splits.val",
    "dataset.splits.test",
    "dataset.file",
    "dataset.unlabelled",
    "backbone.weights",
    "backbone.package.file",
    "hydra.run.dir",
    "hydra.sweep.dir",
)
PATTERN_KEYS = ("dataset.group_pattern",)  # regular expressions, in which $ is the end and a comma separates no values
# Text that Hydra's grammar reads as it stands: plain names, and null, which is no path.
PLAIN_TEXT = re.compile(r"(?!(?:true|false|inf|nan)$)[A-Za-z/][\w/.+-]*", re.IGNORECASE | re.ASCII)
# Text that is left to Hydra: quoted, an interpolation, or values for a sweep.
GRAMMAR = re.compile(r"""(['"]).*\1|.*\$.*|(?:choice|glob|interval|range|shuffle|sort|tag)\(.*\)""", re.DOTALL)
PATTERN_GRAMMAR = re.compile(r"""(['"]).*\1|.*\$\{.*|choice\(.*\)""", re.DOTALL)
SWEPT_VALUE = re.compile(r"""\s*((?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,])*)(?:,|$)""")


def is_path_key(key: str) -> bool:
    """Whether the value of `key` is a path; also that of a key of another library, such as data_dir."""
    return key in PATH_KEYS or any(f"{path_key}={{value}}" in str(KEY_GUESSES.get(key)) for path_key in PATH_KEYS)


def quote_path(line: str, multirun: bool) -> str:
    """Return the override `line` with its value quoted for Hydra if it is a path or a regular expression that Hydra
    would read otherwise. In a sweep each of several paths is quoted; a comma in a path needs quotes that the user
    types."""
    key, equals, text = line.partition("=")
    if key.lstrip("+") in PATTERN_KEYS and text and not PATTERN_GRAMMAR.fullmatch(text):
        return f"{key}={text}" if PLAIN_TEXT.fullmatch(text) else f"{key}={_quote_literally(text)}"
    if not text or GRAMMAR.fullmatch(text) or not is_path_key(key.lstrip("+")):
        return line
    values = [match[1].rstrip() for match in SWEPT_VALUE.finditer(text)] if multirun and "," in text else [text]
    return f"{key}{equals}{','.join(_quote(value) for value in values if value)}"


def _quote(text: str) -> str:
    is_left_to_hydra = PLAIN_TEXT.fullmatch(text) or GRAMMAR.fullmatch(text)
    return text if is_left_to_hydra else _quote_literally(text)


def _quote_literally(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def read_path(line: str) -> str | None:
    """Return the path that the override `line` sets; None for null.

    Raises:
        HydraException: if `line` cannot be parsed.
    """
    value = OverridesParser.create().parse_override(line).value()
    return None if value is None else str(value)
