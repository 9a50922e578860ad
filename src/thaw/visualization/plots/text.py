"""Prepare names from outside for pictures: on one line, without markup, in fonts that have their characters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

from thaw.config.printable import escape_line

DEFAULT_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
DEFAULT_FAMILY = "DejaVu Sans"


def clean_name(name: str) -> str:
    """Return `name` on one line, with a code point such as \\u732b for each character that no installed font has."""
    name = escape_line(name)
    missing_characters = find_missing_characters([name])
    return "".join(_escape(character) if character in missing_characters else character for character in name)


def format_label(name: str, max_length: int = 22) -> str:
    """Return `name` as text for matplotlib: clean, at most `max_length` characters, with `$` as a plain character."""
    name = clean_name(name)
    shortened_name = name if len(name) <= max_length else f"{name[: max_length - 1]}…"
    return shortened_name.replace("$", r"\$")  # without it matplotlib reads text between two of them as mathematics


def find_missing_characters(names: Iterable[str]) -> frozenset[str]:
    """Return the characters of `names` that no installed font has."""
    characters = {character for name in names if not name.isascii() for character in name if not character.isspace()}
    for font in _iter_fonts():
        characters -= _load_characters(font)
        if not characters:
            break
    return frozenset(characters)


def find_font(text: str) -> Path:
    """Return the first font that has all characters of `text`; the default font if none has."""
    characters = {character for character in text if not character.isspace()}
    return next((font for font in _iter_fonts() if characters <= _load_characters(font)), DEFAULT_FONT)


def select_font_families(figure: Figure) -> None:
    """Give each text of `figure` that the default font cannot write the families of fonts that can."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), FixedFormatter):
                axis.get_ticklabels()  # creates the texts, which matplotlib would do when it draws
    for artist in figure.findobj(Text):
        if isinstance(artist, Text) and not artist.get_text().isascii():
            artist.set_fontfamily([DEFAULT_FAMILY, *_find_families(artist.get_text())])


def _find_families(text: str) -> Iterator[str]:
    characters = {character for character in text if not character.isspace()} - _load_characters(DEFAULT_FONT)
    for font in _iter_fonts():
        if not characters:
            return
        if found_characters := characters & _load_characters(font):
            characters -= found_characters
            fontManager.addfont(font)  # which it does not know if it was installed lately
            yield FT2Font(str(font)).family_name


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _iter_fonts() -> Iterator[Path]:
    yield DEFAULT_FONT
    yield from _list_installed_fonts()


@cache
def _list_installed_fonts() -> tuple[Path, ...]:
    """Return the machine's fonts, also those installed after matplotlib listed them: sans-serif and regular ones first,
    without fonts that have a box for every character."""
    fonts = [Path(font) for font in findSystemFonts() if "LastResort" not in font]
    return tuple(sorted(fonts, key=_rank_font))


def _rank_font(font: Path) -> tuple[bool, bool, bool, str]:
    return "Serif" in font.name, "Mono" in font.name, "Regular" not in font.name, font.name


@cache
def _load_characters(font: Path) -> frozenset[str]:
    """Return the characters that `font` has; none for a font of bitmaps, such as color emoji, and an unreadable one."""
    try:
        face = FT2Font(str(font))
        face.set_size(10, 72)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, face.get_charmap()))
