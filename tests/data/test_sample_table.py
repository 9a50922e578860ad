"""Tables of samples give single samples as they were put in, and take little memory for many."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest

from tests.data.tables import Row, build_hashes, build_rows_table, list_rows
from thaw.data.sample_table import HashTable, PathTable, Sample, build_table

PATHS = ["b/é.png", "a/1.png", "", "a/\udce9.png", "c/💡.png", "c/\ue000.png"]
ROWS = [
    Row("b/0.png", "bee", "train", "g2"),
    Row("a/1.png", "ant", "", "g1"),
    Row("a/0.png", "ant", "test", None),
    Row("c/0.png", "cat", "val", "g1"),
]


def test_paths_come_back_as_they_were() -> None:
    table = PathTable.build(PATHS)
    assert list(table) == [table[index] for index in range(len(PATHS))] == PATHS
    assert (table[-1], table[1:3]) == (PATHS[-1], PATHS[1:3])
    assert [path.decode("utf-8", "surrogateescape") for path in table.split_bytes()] == PATHS
    assert list(table.subset(np.array([3, 0, 3]))) == [PATHS[3], PATHS[0], PATHS[3]]
    assert list(PathTable.build([])) == list(table.subset(np.array([], dtype=np.int64))) == []
    with pytest.raises(IndexError):
        table[len(PATHS)]


def test_positions_of_paths_are_found() -> None:
    table = PathTable.build(PATHS)
    assert table.find_positions(PathTable.build(PATHS)).tolist() == list(range(len(PATHS)))
    assert table.find_positions(PathTable.build(["a/1.png", "a/2.png", PATHS[3]])).tolist() == [1, -1, 3]


def test_hashes_come_back_as_they_were() -> None:
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in "cabca"]
    table = build_hashes("cabca")
    assert list(table) == [table[index] for index in range(5)] == hashes
    assert (table[-1], table[:2]) == (hashes[-1], hashes[:2])
    first_positions, inverse = table.find_unique()
    distinct = sorted(set(hashes))
    assert first_positions.tolist() == [hashes.index(name) for name in distinct]
    assert inverse.tolist() == [distinct.index(name) for name in hashes]
    assert table.compute_digest() != build_hashes("acbca").compute_digest()
    assert table == HashTable.build(hashes) != build_hashes("cab")


def test_a_table_is_sorted_by_path_and_gives_the_samples() -> None:
    table = build_rows_table(ROWS)
    assert list_rows(table) == sorted(ROWS)
    assert (table.classes, table.group_names) == (("ant", "bee", "cat"), ("g1", "g2"))
    assert table[1] == list(table)[1] == Sample("a/1.png", 0, "", "g1")
    assert table[-1] == Sample("c/0.png", 2, "val", "g1")
    assert table[1:3] == list(table)[1:3]
    assert table == build_rows_table(ROWS[::-1]) != build_rows_table(ROWS[1:])
    assert len(table.subset(np.array([2, 0]))) == 2


def test_paths_are_sorted_as_python_sorts_them() -> None:
    """Splits are drawn by this order. That of bytes differs from it where names are not UTF-8."""
    table = build_table(PATHS, ["ant"] * len(PATHS))
    assert list(table.paths) == sorted(PATHS)


def test_columns_are_changed_and_selected() -> None:
    table = build_rows_table(ROWS)
    assert table.select_splits("train", "").tolist() == [False, True, True, False]
    assert table.finish_splits().list_splits() == ["test", "train", "train", "val"]
    assert table.finish_splits().sort_by_split().tolist() == [1, 2, 3, 0]
    assert table.replace_groups(["x", "", None, "x"]).list_groups() == ["x", None, None, "x"]
    renamed = table.replace_classes(["unused", "wasp", "ant", "cat"], ["ant", "wasp", "cat"])
    assert renamed.list_class_names() == ["ant", "ant", "wasp", "cat"]
    assert renamed.list_present_classes() == ["wasp", "ant", "cat"]
    assert [members.tolist() for members in renamed.group_by_class()] == [[2], [0, 1], [3]]


def test_a_table_holds_no_object_for_each_image() -> None:
    paths = [f"class{number % 10}/{number:07}.png" for number in range(20_000)]
    names = [path.partition("/")[0] for path in paths]
    tracemalloc.start()
    table = build_table(paths, names)
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(table) == 20_000
    assert held_bytes / 20_000 < 70  # the path takes 19 bytes; an object of its own would take 48 more
