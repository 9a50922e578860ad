"""Check the user's own presets, YAML files in the folder of --config-dir, before Hydra composes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override

from thaw.config.catalog import get_config_folder
from thaw.config.errors import Problem, find_closest_name, format_names
from thaw.config.renamed_keys import find_new_key

MAX_PRESET_KIB = 256
MAX_DEPTH = 32
MAX_NODES = 50_000  # after all aliases are replaced by what they stand for
YAML_TAG = "tag:yaml.org,2002:"
PLAIN_TAGS = frozenset(
    f"{YAML_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "map", "seq", "timestamp", "merge")
)
EXAMPLE_DEFAULTS = "a list, such as defaults: [folder]"


@dataclass(frozen=True)
class PresetFolder:
    """The folder of --config-dir. A preset is named by its path in it without the suffix: dataset/birds."""

    path: Path

    def find_file(self, preset: str) -> Path | None:
        """Return the file of a preset, or None if the folder does not have it."""
        file = self.path / f"{preset}.yaml"
        return file if file.is_file() else None

    def list_choices(self, group: str) -> list[str]:
        """Return the names of the presets of `group`."""
        return sorted(file.stem for file in (self.path / group).glob("*.yaml"))

    def find_problems(self) -> Iterator[Problem]:
        """Yield a problem if there is no such folder, or no preset in it."""
        subject = f"--config-dir {self.path}"
        if not self.path.is_dir():
            names = (
                [path.name for path in self.path.parent.glob("*") if path.is_dir()] if self.path.parent.is_dir() else []
            )
            closest = find_closest_name(self.path.name, names)
            fix = f"--config-dir {self.path.parent / closest}" if closest else ""
            yield Problem(subject, "no such folder", "a folder with your own presets", fix)
        elif not any(self.path.glob("*.yaml")) and not any(self.path.glob("*/*.yaml")):
            valid = "GROUP/NAME.yaml in it, such as dataset/birds.yaml"
            yield Problem(subject, "a folder without presets", valid)


def find_problems_in_presets(folder: PresetFolder, overrides: Sequence[Override], config_name: str) -> list[Problem]:
    """Return the problems of all presets in `folder` that the command uses, each with its line."""
    check = _PresetCheck(folder)
    presets = [config_name]
    for override in overrides:
        if override.is_delete() or override.is_interval_sweep():
            continue
        values = override.sweep_iterator() if override.is_discrete_sweep() else [override.value()]
        presets += [
            f"{override.key_or_group}/{name}"
            for value in values
            for name in (value if isinstance(value, list) else [value])
            if isinstance(name, str) and folder.list_choices(override.key_or_group)
        ]
    if not check.has_preset(config_name):
        names = sorted(path.stem for path in folder.path.glob("*.yaml"))
        closest = find_closest_name(config_name, names)
        fix = f"--config-name {closest}" if closest else "leave it out"
        check.problems.append(
            Problem(f"--config-name {config_name}", f"no such file in {folder.path}", format_names(names), fix)
        )
    for preset in dict.fromkeys(presets):
        check.check_preset(preset, ())
    return check.problems


@dataclass
class _PresetCheck:
    folder: PresetFolder
    problems: list[Problem] = field(default_factory=list)
    checked_presets: set[str] = field(default_factory=set)

    def check_preset(self, preset: str, parents: tuple[str, ...]) -> None:
        """Check a preset and those in its defaults; `parents` are the presets that led to it."""
        file = self.folder.find_file(preset)
        if preset in parents:
            path = self.folder.find_file(parents[-1])
            circle = " -> ".join([*parents[parents.index(preset) :], preset])
            self.problems.append(
                Problem(f"{path}: defaults", f"a circle: {circle}", "presets that do not extend each other")
            )
        elif file is not None and preset not in self.checked_presets:
            self.checked_presets.add(preset)
            shipped_file = get_config_folder() / f"{preset}.yaml"
            if shipped_file.is_file() and shipped_file.read_bytes() != file.read_bytes():
                got = "a preset of thaw has the same name, and is used instead"
                self.problems.append(Problem(str(file), got, "another name", "rename the file"))
                return
            problems = list(check_yaml_file(file))
            self.problems += problems
            for base_preset in [] if problems else _list_defaults(file, preset):
                if self.has_preset(base_preset):
                    self.check_preset(base_preset, (*parents, preset))
                else:
                    self.problems.append(self._build_unknown_preset_problem(file, base_preset))

    def has_preset(self, preset: str) -> bool:
        """Whether the folder or thaw has the preset; those of Hydra and its plugins are not looked for."""
        is_elsewhere = preset.startswith("hydra/") or find_new_key(preset.split("/")[0])  # or a group of version 0.1
        return bool(is_elsewhere) or any(
            (path / f"{preset}.yaml").is_file() for path in (self.folder.path, get_config_folder())
        )

    def _build_unknown_preset_problem(self, file: Path, preset: str) -> Problem:
        group, _, name = preset.rpartition("/")
        shipped_names = [path.stem for path in (get_config_folder() / group).glob("*.yaml")]
        names = sorted({*shipped_names, *self.folder.list_choices(group)} - {file.stem})
        closest = find_closest_name(name, names)
        return Problem(
            f"{file}: defaults", f"no preset {preset}", format_names(names), f"{closest} instead" if closest else ""
        )


def check_yaml_file(file: Path) -> Iterator[Problem]:
    """Yield what is wrong in a YAML file of a preset. Nothing in it is executed, whatever its tags say."""
    try:
        root = read_yaml(file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        tab_fix = "indent with spaces, not with tabs" if "\\t" in str(error.problem) else ""
        yield Problem(place, f"no YAML: {error.problem or error.context}", "key: value", tab_fix)
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        got = "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        yield Problem(str(file), got, "YAML in UTF-8, with key: value on each line")
    else:
        if root is None:
            yield Problem(str(file), "an empty file", "key: value")
        elif not isinstance(root, yaml.MappingNode):
            yield Problem(_format_place(file, root), "no key: value", "key: value on each line")
        else:
            yield from _check_nodes(file, root)


def read_yaml(file: Path) -> yaml.Node | None:
    """Return the nodes of a YAML file, of which nothing is built yet; None: it is empty.

    Raises:
        yaml.YAMLError: for wrong syntax.
        ValueError: if it is too large or not in UTF-8.
        OSError: if it cannot be read.
    """
    content = file.read_bytes() if file.stat().st_size <= MAX_PRESET_KIB * 1024 else None
    if content is None:
        raise ValueError(f"more than {MAX_PRESET_KIB} KiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not in UTF-8") from error
    node: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    return node


def _format_place(file: Path, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _check_nodes(file: Path, root: yaml.MappingNode) -> Iterator[Problem]:
    pending: list[tuple[yaml.Node, int, tuple[int, ...]]] = [(root, 0, ())]
    num_nodes = 0
    while pending:
        node, depth, parents = pending.pop()
        num_nodes += 1
        if id(node) in parents or depth > MAX_DEPTH or num_nodes > MAX_NODES:
            got = "a value inside itself" if id(node) in parents else "too many or too deeply nested values"
            yield Problem(_format_place(file, node), got, f"{MAX_NODES:,} values, nested {MAX_DEPTH} deep")
            return
        if node.tag not in PLAIN_TAGS:
            name = node.tag.replace(YAML_TAG, "!!")
            yield Problem(
                _format_place(file, node),
                f"the tag {name}",
                "plain values without tags",
                "quote the value, or remove the tag",
            )
        if isinstance(node, yaml.MappingNode):
            yield from _check_keys(file, node)
        children = (
            [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value
        )
        if not isinstance(node, yaml.ScalarNode):
            pending += [(child, depth + 1, (*parents, id(node))) for child in children]
    yield from _check_defaults(file, root)


def _check_keys(file: Path, node: yaml.MappingNode) -> Iterator[Problem]:
    first_lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == f"{YAML_TAG}null":
            yield Problem(_format_place(file, key), "a key that is no text", "key: value")
        elif key.value in first_lines:
            got = f"the key {key.value} twice, first in line {first_lines[key.value]}"
            yield Problem(_format_place(file, key), got, "each key once", "remove one of them")
        else:
            first_lines[key.value] = key.start_mark.line + 1


def _check_defaults(file: Path, root: yaml.MappingNode) -> Iterator[Problem]:
    for key, value in root.value:
        if key.value != "defaults":
            continue
        if not isinstance(value, yaml.SequenceNode):
            yield Problem(_format_place(file, value), "defaults that are no list", EXAMPLE_DEFAULTS)
            return
        for entry in value.value:
            nodes = [entry] if isinstance(entry, yaml.ScalarNode) else [node for pair in entry.value for node in pair]
            if isinstance(entry, yaml.SequenceNode) or (isinstance(entry, yaml.MappingNode) and len(entry.value) != 1):
                yield Problem(_format_place(file, entry), "no preset", EXAMPLE_DEFAULTS)
            elif any(node.tag == f"{YAML_TAG}bool" for node in nodes):
                got = "on, off, yes or no, which YAML reads as true or false"
                yield Problem(_format_place(file, entry), got, "text", 'quote on, off, yes and no: "off"')


def _list_defaults(file: Path, preset: str) -> list[str]:
    """Return the presets in the defaults of a checked file, as paths in the folder."""
    root, group = read_yaml(file), preset.rpartition("/")[0]
    assert isinstance(root, yaml.MappingNode)
    presets: list[str] = []
    for key, value in root.value:
        for entry in value.value if key.value == "defaults" else []:
            if isinstance(entry, yaml.ScalarNode):
                presets.append(_resolve_preset(group, entry.value))
                continue
            ((option, choice),) = entry.value
            nested_group = option.value.removeprefix("override ").strip().split("@")[0]
            names = choice.value if isinstance(choice, yaml.SequenceNode) else [choice]
            if not option.value.startswith("optional "):
                texts = [name.value for name in names if name.tag != f"{YAML_TAG}null"]
                presets += [_resolve_preset(group, f"{nested_group}/{text}") for text in texts]
    return [preset for preset in presets if "$" not in preset and not preset.endswith("_self_")]


def _resolve_preset(group: str, entry: str) -> str:
    """Return the path of a defaults entry: relative to the group of the file, unless it begins with a slash."""
    entry = entry.removesuffix(".yaml").split("@")[0]
    return entry.removeprefix("/") if entry.startswith("/") or not group else f"{group}/{entry}"


def find_base_preset(file: Path) -> str | None:
    """Return the preset of thaw that `file`, a preset without defaults, could extend; None: it has defaults, or there
    is no preset with its kind."""
    root, group = read_yaml(file), file.parent.name
    assert isinstance(root, yaml.MappingNode)
    values = {key.value: value.value for key, value in root.value}
    if "defaults" in values:
        return None
    choices = sorted(path.stem for path in (get_config_folder() / group).glob("*.yaml"))
    candidates = [values.get(name) for name in ("kind", "library", "name")]
    base_by_group = {
        "dataset": "folder",
        "head": "linear",
        "optimizer": "torch",
        "trainer": "default",
        "strategy": "finetune",
    }
    return next(
        (name for name in (*candidates, base_by_group.get(group)) if isinstance(name, str) and name in choices), None
    )


def merge_missing_keys(
    keyed_problems: Sequence[tuple[str, Problem]], chosen_files: dict[str, Path]
) -> list[tuple[str, Problem]]:
    """Return `keyed_problems` with one problem in place of those of all keys that a preset of the user lacks."""
    merged = list(keyed_problems)
    for group, file in chosen_files.items():
        missing = [entry for entry in merged if re.fullmatch(rf"{group}\.\S+ is missing", entry[1].subject)]
        base = find_base_preset(file) if missing else None
        if base is None:
            continue
        names = [problem.subject.removeprefix(f"{group}.").removesuffix(" is missing") for _, problem in missing]
        got = f"no {format_names(names)}"
        fix = f"defaults: [{base}] in {file} takes the values of {group}={base} for them"
        problem = Problem(f"{file} lacks keys of {group}", got, "every key, or defaults: [PRESET]", fix)
        merged = [(missing[0][0], problem), *(entry for entry in merged if entry not in missing)]
    return merged
