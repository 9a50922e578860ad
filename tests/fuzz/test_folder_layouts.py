"""Random folder trees and CSV files: every image is in exactly one split with its class, or named; or it is an error.

A seeded generator builds a layout with a known answer and writes it as people do. Harmless variations must give exactly
that answer; after harmful ones nothing but an error may follow, whose fix leads to something else.
"""

from __future__ import annotations

import csv
import io
import os
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

import pytest

from tests.data.tables import list_rows
from tests.data.trees import SPLIT_FOLDERS, write_files
from thaw.config.errors import UserError
from thaw.config.printable import escape_line
from thaw.data.csv_reader import Columns, read_csv
from thaw.data.folder_layout import SPLIT_NAMES, parse_split_name
from thaw.data.folder_reader import read_image_folder
from thaw.data.image import IMAGE_SUFFIXES
from thaw.data.readers import ReaderResult
from thaw.data.samples import build_samples
from thaw.data.splits import SplitSettings

NUM_TREES, NUM_TABLES = 220, 160
CLASSES = ["ant", "bée", "golden retriever", "0", "10", "2", "蟻", "a.b", "test_tube", "bullet train", "dev-board"]
LABELS = ["cat", "dog", 'say "hi"', "a, b", "x;y", "tab\tbed", "größe", "蟻", "1", "null"]
SUFFIXES = [".png", ".jpg", ".JPEG", ".gif", ".jfif", ".webp", ".tif"]
JUNK = ["@eaDir/{}.png", ".thumbs/{}.png", "Thumbs.db", "._{}.png", "notes.txt", "__MACOSX/{}.jpg", "{}.xml"]
AFFIXES = ["{}", "seg_{}", "{}_images", "My-{}", "{} set"]
FRACTIONS = {"val": 0.25, "test": 0.25}
MAX_FIXES = 8


@dataclass
class Tree:
    """Files to write and the answer: `labels` maps the path of an image to its split (None: it is drawn) and class.
    `bases` are the folders of the class folders, each empty or ending with "/"."""

    labels: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    other_files: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    bases: list[str] = field(default_factory=list)
    is_harmful: bool = False

    def move(self, prefix: str) -> None:
        self.labels = {f"{prefix}/{path}": label for path, label in self.labels.items()}
        self.other_files = [f"{prefix}/{path}" for path in self.other_files]
        self.links = {f"{prefix}/{path}": target for path, target in self.links.items()}


def vary_case(rng: random.Random, name: str) -> str:
    return rng.choice([name, name.capitalize(), name.upper()])


def build_tree(rng: random.Random) -> Tree:
    """Build a layout that must be understood."""
    tree, classes = Tree(), rng.sample(CLASSES, rng.randint(2, 5))
    splits: list[str | None] = rng.choice([[None], ["train"], ["train", "test"], ["train", "val"], [*SPLIT_NAMES]])
    affix = rng.choice(AFFIXES) if len(splits) > 1 else "{}"
    for split in splits:
        folder = f"{affix.format(vary_case(rng, rng.choice(SPLIT_NAMES[split])))}/" if split else ""
        base = folder * (2 if rng.random() < 0.2 else 1)
        tree.bases.append(base)
        present = classes if split in (None, "train") else rng.sample(classes, rng.randint(1, len(classes)))
        for name in present:
            fill_class(rng, tree, base, name, split)
        tree.other_files += [f"{base}{junk.format(8)}" for junk in JUNK if rng.random() < 0.1]
    return tree


def fill_class(rng: random.Random, tree: Tree, base: str, name: str, split: str | None) -> None:
    class_folder, sub_folder = f"{base}{normalize(rng.choice(['NFC', 'NFD']), name)}", rng.choice(["", "more/", "a/b/"])
    for number in range(rng.randint(5, 8)):
        path = f"{class_folder}/{sub_folder if number > 2 else ''}{number}{rng.choice(SUFFIXES)}"
        tree.labels[path] = (split, normalize("NFC", name))
    tree.other_files += [f"{class_folder}/{junk.format(7)}" for junk in JUNK if rng.random() < 0.1]


def add_link(rng: random.Random, tree: Tree, outside: Path) -> None:
    """Link a folder of images into a class folder, or back to a folder that is read already."""
    path, label = rng.choice(sorted(tree.labels.items()))
    class_folder = next(folder for folder in reversed(Path(path).parents) if normalize("NFC", folder.name) == label[1])
    if rng.random() < 0.5:
        write_files(outside, ["x.png", "deep/y.gif"])
        tree.links[f"{class_folder}/linked"] = str(outside)
        tree.labels |= {f"{class_folder}/linked/{name}": label for name in ("x.png", "deep/y.gif")}
    else:
        tree.links[f"{class_folder}/loop"] = "."


def damage(rng: random.Random, tree: Tree) -> None:
    """Change a layout so that no answer is right: something would be lost, or a split would be a class."""
    tree.is_harmful, base = True, rng.choice(tree.bases)
    class_name = (
        next(path for path in sorted(tree.labels) if path.startswith(base)).removeprefix(base).partition("/")[0]
    )
    split_folder = base.partition("/")[0]
    new_files = {
        "empty class": [f"{base}void/"],
        "class without images": [f"{base}clouds/{number}.heic" for number in range(3)],
        "split in class": [f"{base}{class_name}/Testing/1.png"],
        "nested classes": [f"{base}zoo/{name}/{number}.png" for name in ("x", "y") for number in range(5)],
        "split beside classes": [f"{base}{rng.choice(['VALID', 'train', 'Testing'])}/0.png"],
    }
    if split_folder:
        new_files["folder beside splits"] = ["labels/boxes.xml"]
        new_files["flat split"] = [f"{split_folder}_/0.png"]
    tree.other_files += new_files[rng.choice(sorted(new_files))]


def write_tree(root: Path, tree: Tree) -> None:
    linked = [f"{link}/" for link, target in tree.links.items() if target != "."]
    write_files(root, [path for path in tree.labels if not path.startswith(tuple(linked))] if linked else tree.labels)
    write_files(root, tree.other_files)
    for link, target in tree.links.items():
        (root / link).symlink_to(target)


def find_images(root: Path) -> set[str]:
    """Return the paths of all files with the suffix of an image, without following links to folders."""
    files = {Path(folder, name) for folder, _, names in os.walk(root) for name in names}
    return {str(path.relative_to(root)) for path in files if path.suffix.lower() in IMAGE_SUFFIXES}


def check_result(root: Path, result: ReaderResult, tree: Tree) -> None:
    top = result.root.relative_to(root)
    rows = {str(top / row.path): (row.split or None, row.class_name) for row in list_rows(result.rows)}
    assert len(rows) == len(result.rows)
    assert rows == tree.labels
    assert {escape_line(path) for path in find_images(root) - rows.keys()} <= {
        str(top / path) for path in result.ignored_files
    }
    assert not {class_name for _, class_name in rows.values() if parse_split_name(class_name)}
    samples = build_samples(result, SplitSettings(FRACTIONS))
    assert sorted(sample.path for sample in samples.samples) == sorted(row.path for row in result.rows)


def follow_fixes(root: Path) -> int:
    """Apply the fix of each error until there is none that can be typed; return how many there were."""
    exclude, folders, merge, messages = list[str](), dict[str, str | None](SPLIT_FOLDERS), False, list[str]()
    while len(messages) < MAX_FIXES:
        try:
            build_samples(read_image_folder(root, folders, exclude, merge), SplitSettings(FRACTIONS))
            return len(messages)
        except UserError as error:
            message = str(error)
        assert message not in messages, f"a fix that changes nothing: {message}"
        messages.append(message)
        if match := re.search(r"dataset\.splits\.(\w+)=null", message):
            folders[match[1]] = None
        elif match := re.search(r"dataset\.exclude=\[([^\]]+)\]", message):
            exclude += match[1].split(", ")
        elif "dataset.subfolders=merge" in message:
            merge = True
        else:
            break
    return len(messages)


@pytest.mark.long
def test_random_folder_trees_are_read_completely_or_refused(tmp_path: Path) -> None:
    counts = {"read": 0, "refused": 0, "fixes": 0}
    for seed in range(NUM_TREES):
        rng, root = random.Random(seed), tmp_path / str(seed) / "root"
        tree = build_tree(rng)
        if rng.random() < 0.3:
            add_link(rng, tree, tmp_path / str(seed) / "outside")
        if seed % 3 == 0:
            damage(rng, tree)
        if rng.random() < 0.2:
            tree.move(rng.choice(["flowers", "data/export"]))
        write_tree(root, tree)
        if tree.is_harmful:
            with pytest.raises(UserError) as error_info:
                build_samples(read_image_folder(root, SPLIT_FOLDERS), SplitSettings(FRACTIONS))
            assert error_info.value.problems, seed
            counts["refused"] += 1
            counts["fixes"] += follow_fixes(root)
        else:
            check_result(root, read_image_folder(root, SPLIT_FOLDERS), tree)
            counts["read"] += 1
    print(counts)
    assert min(counts.values()) >= NUM_TREES // 4


def write_table(rng: random.Random, root: Path) -> tuple[Columns, dict[str, tuple[str | None, str]]]:
    """Write labels.csv as one of many programs does, and return its columns and the answer."""
    classes = rng.sample(
        ["cat", "dog", 'say "hi"', "a, b", "x;y", "tab\tbed", "größe", "蟻", "1", "null"], rng.randint(2, 4)
    )
    names = [f"{rng.choice(['', 'images/', 'images/'])}{number}é.png" for number in range(rng.randint(16, 30))]
    write_files(root, names)
    has_splits, delimiter = rng.random() < 0.4, rng.choice(",;\t|")
    header = ["id", "path", "label", "note"] + (["part"] if has_splits else [])
    rows, labels = list[list[str]](), dict[str, tuple[str | None, str]]()
    for number, name in enumerate(names):
        split = rng.choice([*SPLIT_NAMES]) if has_splits and number >= 2 * len(classes) else "train"
        label = classes[number % len(classes)]
        written_path = rng.choice([name, name, f"./{name}", str(root / name), name.replace("/", "\\")])
        split_cell = vary_case(rng, rng.choice(SPLIT_NAMES[split]))
        written_path = normalize(rng.choice(["NFC", "NFD"]), written_path)
        cells = [
            str(number),
            written_path,
            f" {label} " if rng.random() < 0.1 else label,
            rng.choice(["", "new\nline"]),
        ]
        rows.append([*cells, *([split_cell] if has_splits else [])])
        labels[name] = (split if has_splits else None, label)
    damaging = rng.random() < 0.35
    if damaging:
        damage_rows(rng, header, rows)
        labels = {}
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerows([header, *rows])
    blank = rng.choice(["", "\n", f"{delimiter * 2}\n"])
    (root / "labels.csv").write_bytes((buffer.getvalue() + blank).encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"])))
    return Columns("path", "label", "part" if has_splits else None), labels


def damage_rows(rng: random.Random, header: list[str], rows: list[list[str]]) -> None:
    row = rng.choice(rows)
    kind = rng.randrange(7)
    if kind == 0:
        row.append("more")
    elif kind == 1:
        row.pop()
    elif kind == 2:
        row[1] = "gone.png"
    elif kind == 3:
        row[2] = " "
    elif kind == 4:
        rows.append(list(row))
    elif kind == 5:
        header[3] = rng.choice(["path", "label"])
    else:
        header[1] = "file"


@pytest.mark.long
def test_random_csv_files_are_read_completely_or_refused(tmp_path: Path) -> None:
    counts = {"read": 0, "refused": 0}
    for seed in range(NUM_TABLES):
        rng, root = random.Random(seed), tmp_path / str(seed)
        root.mkdir()
        columns, labels = write_table(rng, root)
        if not labels:
            with pytest.raises(UserError) as error_info:
                read_csv(root, "labels.csv", columns)
            assert error_info.value.problems, seed
            counts["refused"] += 1
            continue
        result = read_csv(root, "labels.csv", columns)
        assert {row.path: (row.split or None, row.class_name) for row in list_rows(result.rows)} == labels, seed
        assert result.ignored_files == {}
        counts["read"] += 1
    print(counts)
    assert min(counts.values()) >= NUM_TABLES // 5
