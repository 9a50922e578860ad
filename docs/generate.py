"""Write the parts of the pages in docs/ that come from the code, between `<!-- generated: NAME -->` and `<!-- end -->`.

python docs/generate.py            writes the pages; `make docs` runs it
python docs/generate.py --check    writes nothing; exit status 1 if a page is out of date
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

DOCS = Path(__file__).resolve().parent
BLOCK = re.compile(r"<!-- generated: (?P<name>.+?) -->\n(?P<text>.*?)<!-- end -->", re.DOTALL)


def main(arguments: Sequence[str]) -> int:
    """Write or check all pages and return the exit status."""
    outdated = {page: text for page in sorted(DOCS.glob("*.md")) if (text := render_page(page)) != read_page(page)}
    for page, text in outdated.items():
        print(f"{page.relative_to(DOCS.parent)} is {'out of date' if '--check' in arguments else 'written'}")
        if "--check" not in arguments:
            page.write_text(text, encoding="utf-8")
    return int(bool(outdated) and "--check" in arguments)


def read_page(page: Path) -> str:
    """Return the text of `page`."""
    return page.read_text(encoding="utf-8")


def render_page(page: Path) -> str:
    """Return the text of `page` with its generated parts as the code says now."""
    return BLOCK.sub(_replace_block, read_page(page))


def _replace_block(block: re.Match[str]) -> str:
    text = _render_block(block).strip()
    return f"<!-- generated: {block['name']} -->\n\n" + (f"{text}\n\n" if text else "") + "<!-- end -->"


def _render_block(block: re.Match[str]) -> str:
    kind, _, verb = block["name"].partition(" ")
    if kind == "help":
        return render_options(verb.split())
    renderers = {"renamed keys": render_renamed_keys, "configuration": render_configuration, "api": render_api}
    try:
        return renderers[block["name"]]()
    except ImportError:  # the module that describes it is not there yet
        return block["text"]


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; line breaks and bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("\n", " ").replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def render_renamed_keys() -> str:
    """Return the table of configuration keys and values of version 0.1 and their new names."""
    from thaw.config.renamed_keys import RENAMED_KEYS, RENAMED_VALUES

    rows = [[f"`{old}`", f"`{new}`"] for old, new in RENAMED_KEYS.items()]
    rows += [
        [f"`{key}={old}`", f"`{key}={new}`"] for key, values in RENAMED_VALUES.items() for old, new in values.items()
    ]
    return format_table(["0.1", "0.2"], rows)


def render_configuration() -> str:
    """Return a table for each group of the recipe, with default, valid values and meaning of every key."""
    from thaw.config.reference import describe_keys

    keys = list(describe_keys())
    top_level_keys = [key for key in keys if "." not in key.key]
    groups = dict.fromkeys(key.key.split(".")[0] for key in keys if "." in key.key)
    sections = [_render_key_section("The whole run", top_level_keys)] if top_level_keys else []
    sections += [_render_key_section(f"`{group}`", _keys_of_group(keys, group)) for group in groups]
    return "\n".join(sections)


def _keys_of_group(keys: Iterable[Any], group: str) -> list[Any]:
    return [key for key in keys if key.key.startswith(f"{group}.")]


def _render_key_section(title: str, keys: Iterable[Any]) -> str:
    rows = [[_format_code(key.key), _format_code(key.default), _format_range(key), key.meaning] for key in keys]
    return f"## {title}\n\n{format_table(['key', 'default', 'valid values', 'meaning'], rows)}"


def _format_code(text: object) -> str:
    return "" if text in (None, "") else f"`{text}`"


def _format_range(key: Any) -> str:
    return ", ".join(dict.fromkeys(text for text in (key.type, key.range) if text))


def render_options(verb: Sequence[str]) -> str:
    """Return the options of `verb` as its `--help` prints them, or nothing if it has none."""
    from thaw.cli.main import main as run_thaw

    output = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["thaw", *verb, "--help"]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        run_thaw()
    options = re.search(r"^Options:\n(?P<lines>(?: +.*\n|\n(?= +-))+)", output.getvalue(), re.MULTILINE)
    return f"```text\n{inspect.cleandoc(options['lines'])}\n```\n" if options else ""


def render_api() -> str:
    """Return signature and docstring of everything in `thaw.__all__`, classes with their public members."""
    importlib.import_module("thaw.api")
    thaw = importlib.import_module("thaw")
    members = {name: getattr(thaw, name) for name in thaw.__all__}
    functions = [_render_function(name, member) for name, member in members.items() if inspect.isfunction(member)]
    classes = [_render_class(name, member) for name, member in members.items() if inspect.isclass(member)]
    return "\n".join([*functions, *classes])


def _render_function(name: str, function: Any) -> str:
    return f"### `thaw.{name}`\n\n```python\n{_format_signature(name, function)}\n```\n\n{_format_docstring(function)}"


def _format_signature(name: str, function: Any) -> str:
    text = f"def {name}{inspect.signature(function)}: ..."
    return text.replace("'", "").replace("collections.abc.", "").replace("pathlib.", "")


def _format_docstring(documented: Any) -> str:
    """Return the docstring as Markdown; its sections, such as `Raises:`, become lists."""
    paragraphs, lines = [], (inspect.getdoc(documented) or "").splitlines()
    for line in lines:
        section = re.fullmatch(r"(Raises|Returns|Args|Yields):", line)
        paragraphs.append(f"**{section[1]}**\n" if section else re.sub(r"^    (\w+): ", r"- `\1`: ", line))
    return "\n".join(paragraphs) + "\n"


def _render_class(name: str, documented: Any) -> str:
    public_members = {
        member_name: member
        for member_name, member in inspect.getmembers_static(documented)
        if not member_name.startswith("_") and (isinstance(member, property) or inspect.isfunction(member))
    }
    rows = [
        [f"`{member_name}{'' if isinstance(member, property) else '()'}`", _first_line(member)]
        for member_name, member in public_members.items()
        if not _is_inherited_from_library(documented, member_name)
    ]
    table = f"\n{format_table(['member', 'meaning'], rows)}" if rows else ""
    return f"### `thaw.{name}`\n\n{_format_docstring(documented)}{table}"


def _first_line(member: Any) -> str:
    return (inspect.getdoc(member) or "").split("\n\n")[0]


def _is_inherited_from_library(documented: Any, member_name: str) -> bool:
    owners = [base for base in documented.__mro__ if member_name in vars(base)]
    return not owners or not owners[0].__module__.startswith("thaw")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
