"""Keep this machine's folders out of files that people share: the home folder is written as `~`.

A recorded path is absolute or begins with `~`, so that it is found from any working folder.
"""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

PATH_START = r"(?:(?<=file://)|(?<![\w.~/\\-]))"  # elsewhere a home folder is a part of another path
HOME_SIGN_PATTERN = re.compile(rf"{PATH_START}~(?=/|$)")
TRACEBACK_FILE_PATTERN = re.compile(r'(?<=File ")([^"]+)(?=")')


def shorten_home(value: Any) -> Any:
    """Return `value`, plain data, with `~` for the home folder wherever a text in it names a path below that."""
    return _map_texts(value, _shorten_text)


def expand_home(text: str) -> str:
    """Return `text` with the home folder for each `~` that begins a path."""
    return HOME_SIGN_PATTERN.sub(lambda _: str(Path.home()), text)


def make_portable(path: str) -> str:
    """Return `path`, which may be relative to the working folder, so that it is found from any: absolute, or ~/PATH."""
    return path if path.startswith("~") else _shorten_text(str(Path(path).absolute()))


def shorten_path(path: Path) -> str:
    """Return `path` for display: relative if it is below the working folder, with `~` if below the home folder."""
    absolute_path, folder = path.absolute(), Path.cwd()
    return str(absolute_path.relative_to(folder)) if absolute_path.is_relative_to(folder) else _shorten_text(str(path))


def format_command(arguments: Sequence[str]) -> str:
    """Return a command line as text that can be typed elsewhere: the program's name without its folder."""
    program, words = Path(arguments[0]).name, [_shorten_text(word) for word in arguments[1:]]
    if program == "__main__.py":
        return shlex.join(["python", "-m", "thaw", *words])
    return shlex.join([*(["python"] if program.endswith(".py") else []), program, *words])


def format_traceback() -> str:
    """Return the traceback of the exception that is handled, with files relative to the folder of their package."""
    roots = sorted({str(Path(entry).absolute()) for entry in sys.path}, key=len, reverse=True)

    def shorten_file(match: re.Match[str]) -> str:
        file = Path(match[0])
        root = next((root for root in roots if file.is_relative_to(root)), None)
        return str(file.relative_to(root)) if root else match[0]

    return _shorten_text(TRACEBACK_FILE_PATTERN.sub(shorten_file, traceback.format_exc()))


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_map_texts(key, change): _map_texts(entry, change) for key, entry in value.items()}
    return [_map_texts(entry, change) for entry in value] if isinstance(value, list | tuple) else value


def _shorten_text(text: str) -> str:
    for home, pattern in _build_home_patterns(Path.home()).items():
        text = pattern.sub("~", text) if home in text else text
    return text


@cache
def _build_home_patterns(home: Path) -> dict[str, re.Pattern[str]]:
    """Return the names of the home folder, two if it is a link, with their patterns; none if it is the root."""
    names = {str(path) for path in (home, home.resolve()) if path != Path(path.anchor)}
    return {name: re.compile(rf"{PATH_START}{re.escape(name)}(?=/|$|[^\w.-])") for name in names}
