"""Write the parts of the pages in docs/ that come from the code, between `<!-- generated: NAME -->` and `<!-- end -->`.

python docs/generate.py            writes the pages; `make docs` runs it
python docs/generate.py --check    writes nothing; exit status 1 if a page is out of date
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

DOCS = Path(__file__).resolve().parent
MAX_SIGNATURE = 100  # characters in one line
BLOCK = re.compile(r"<!-- generated: (?P<name>.+?) -->\n.*?<!-- end -->", re.DOTALL)


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
    return renderers[block["name"]]()


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

    keys = describe_keys()
    groups = dict.fromkeys(key.key.partition(".")[0] for key in keys if "." in key.key)
    keys_by_title = {"The whole run": [key for key in keys if key.key.partition(".")[0] not in groups]}
    for group in groups:
        keys_by_title[f"`{group}`"] = [key for key in keys if key.key.startswith(f"{group}.")]
    return "\n".join(_render_key_section(title, section_keys) for title, section_keys in keys_by_title.items())


def _render_key_section(title: str, keys: Sequence[Any]) -> str:
    header = ["key", "default", "valid values", "meaning"]
    rows = [[f"`{key.key}`", _format_default(key), _format_valid_values(key), key.meaning] for key in keys]
    if any(key.variants for key in keys):  # some choices of the group have other keys
        header.append("only for")
        choices = [", ".join(f"`{variant}`" for variant in key.variants) for key in keys]
        rows = [[*row, choice] for row, choice in zip(rows, choices, strict=True)]
    return f"## {title}\n\n{format_table(header, rows)}"


def _format_default(key: Any) -> str:
    return "must be set" if "must be set" in key.default else f"`{key.default}`" if key.default else ""


def _format_valid_values(key: Any) -> str:
    return key.range if key.type == "choice" else ", ".join(text for text in (key.type, key.range) if text)


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
    """Return signature and docstring of each public function, then the classes that they return or raise."""
    api = importlib.import_module("thaw.api")
    members = {name: getattr(api, name) for name in importlib.import_module("thaw").__all__}
    functions = {name: member for name, member in members.items() if inspect.isfunction(member)}
    classes = {name: member for name, member in members.items() if inspect.isclass(member)}
    returned_classes = _find_returned_classes(api, functions.values())
    return "\n".join(
        [_render_function(name, function) for name, function in functions.items()]
        + [_render_class(f"thaw.{name}", documented) for name, documented in classes.items()]
        + [_render_class(name, documented) for name, documented in sorted(returned_classes.items())]
    )


def _find_returned_classes(api: ModuleType, functions: Iterable[Any]) -> dict[str, Any]:
    """Return the classes that the annotations of `functions` name; `api` imports them, some for typing only."""
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(api))) if isinstance(node, ast.ImportFrom)]
    modules = {alias.asname or alias.name: node.module for node in imports for alias in node.names if node.module}
    annotations = " ".join(str(inspect.signature(function).return_annotation) for function in functions)
    names = [name for name in re.findall(r"\w+", annotations) if name in modules]
    return {name: getattr(importlib.import_module(modules[name]), name) for name in names}


def _render_function(name: str, function: Any) -> str:
    return f"### `thaw.{name}`\n\n```python\n{_format_signature(name, function)}\n```\n\n{_format_docstring(function)}"


def _format_signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    text = f"def {name}{signature}: ..."
    if len(text) > MAX_SIGNATURE:
        parameters = re.split(r", (?=\*|\w+: )", str(signature)[1:].rpartition(") -> ")[0])
        lines = "".join(f"    {parameter},\n" for parameter in parameters)
        text = f"def {name}(\n{lines}) -> {signature.return_annotation}: ..."
    return text.replace("'", "")


def _format_docstring(documented: Any) -> str:
    """Return the docstring as Markdown; its sections, such as `Raises:`, become lists."""
    lines = []
    for line in (inspect.getdoc(documented) or "").splitlines():
        if section := re.fullmatch(r"(Args|Returns|Yields|Raises):", line):
            lines.append(f"**{section[1]}**\n")
        elif entry := re.match(r" {4}(\w+): ", line):
            lines.append(f"- `{entry[1]}`: {line[entry.end() :]}")
        else:
            lines.append(re.sub(r"^ {4}(?=\w)", "", re.sub(r"^ {8}", "  ", line)))
    return "\n".join(lines) + "\n"


def _render_class(name: str, documented: Any) -> str:
    fields = [field for field in getattr(documented, "__dataclass_fields__", {}) if not field.startswith("_")]
    rows = [[f"`{field}`", "", f"`{inspect.get_annotations(documented)[field]}`"] for field in fields]
    for member_name, member in inspect.getmembers_static(documented):
        if _is_public_member(documented, member_name, member):
            call = "" if isinstance(member, property) else "()"
            rows.append([f"`{member_name}{call}`", _first_paragraph(member), f"`{_return_annotation(member)}`"])
    table = f"\n{format_table(['member', 'meaning', 'type'], rows)}" if rows else ""
    return f"### `{name}`\n\n{_format_docstring(documented)}{table}"


def _is_public_member(documented: Any, name: str, member: Any) -> bool:
    """Return whether `member` is a property or method that a class of thaw defines."""
    owner = next((base for base in documented.__mro__ if name in vars(base)), object)
    is_listed = isinstance(member, property) or inspect.isfunction(member)
    return is_listed and not name.startswith("_") and owner.__module__.startswith("thaw")


def _first_paragraph(member: Any) -> str:
    return (inspect.getdoc(member) or "").split("\n\n")[0]


def _return_annotation(member: Any) -> str:
    function = member.fget if isinstance(member, property) else member
    return str(inspect.signature(function).return_annotation)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
