"""CSV files are read as spreadsheets and other programs write them; what would be lost is an error with its line."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest

from tests.data.trees import FRACTIONS, list_labels, write_files
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.data.csv_reader import Columns, read_csv
from thaw.data.csv_table import TableFormat
from thaw.data.samples import Samples, build_samples
from thaw.data.splits import SplitSettings

COLUMNS = Columns("path", "label")
NAMES = [f"{number}.png" for number in range(12)]
ROWS = [(name, "ab"[number % 2]) for number, name in enumerate(NAMES)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path, NAMES)


def load(root: Path, text: str | bytes, columns: Columns = COLUMNS, table_format: TableFormat | None = None) -> Samples:
    (root / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    result = read_csv(root, "labels.csv", columns, table_format=table_format or TableFormat())
    return build_samples(result, SplitSettings(FRACTIONS))


def get_error(root: Path, text: str | bytes, columns: Columns = COLUMNS) -> str:
    with pytest.raises(UserError) as error_info:
        load(root, text, columns)
    return str(error_info.value)


def join_rows(delimiter: str = ",", header: tuple[str, ...] = ("path", "label")) -> str:
    return "".join(f"{delimiter.join(row)}\n" for row in (header, *ROWS))


def assert_read(samples: Samples) -> None:
    assert {path: name for path, (_, name) in list_labels(samples).items()} == dict(ROWS)
    assert (samples.ignored_files, samples.warnings) == ({}, ())


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_delimiter_and_encoding_are_detected(root: Path, delimiter: str, encoding: str) -> None:
    assert_read(load(root, join_rows(delimiter).encode(encoding)))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace(",", ", ").replace("a\n", '"a"\n'),
        lambda text: text.replace("\n", "\n\n") + "\n  \n,\n",
        lambda text: text.replace("\n", ",\n"),
        lambda text: "sep=;\n" + text.replace(",", ";"),
        lambda text: text.replace("\n1.png", "\n.\\1.png").replace("2.png", "no/../2.png"),
    ],
    ids=["CR LF", "CR", "spaces", "blank lines", "a trailing delimiter", "sep=", "backslashes and dots"],
)
def test_what_programs_write_otherwise_is_read(root: Path, change: object) -> None:
    assert callable(change)
    assert_read(load(root, change(join_rows())))


def test_another_delimiter_and_encoding_can_be_set(root: Path) -> None:
    text = join_rows("~").replace("~a", "~ä").encode("cp1252")
    assert load(root, text, table_format=TableFormat("~", "cp1252")).classes == ("b", "ä")
    assert "dataset.delimiter=CHARACTER" in get_error(root, join_rows("~"))
    message = get_error(root, join_rows().replace(",a", ",ä").encode("cp1252"))
    assert r"\xe4 (line 2)" in message
    assert "dataset.encoding=cp1252" in message
    with pytest.raises(UserError, match="cannot be decoded"):
        load(root, b"\x81" + text, table_format=TableFormat("~", "cp1252"))


def test_settings_of_the_format_are_checked_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such encoding"):
        compose_recipe(["dataset=csv", f"dataset.root={tmp_path}", "dataset.encoding=base64"])
    with pytest.raises(UserError, match="delimiter"):
        compose_recipe(["dataset=csv", f"dataset.root={tmp_path}", "dataset.delimiter=';;'"])


def test_rows_of_other_lengths_are_named_by_line(root: Path) -> None:
    message = get_error(root, join_rows().replace("3.png,b", "3.png").replace("5.png,b", "5.png,b, wild"))
    assert "rows with fewer cells than the header: 1\n      got:   line 5\n      valid: 2 cells" in message
    assert "rows with more cells than the header: 1\n      got:   line 7\n" in message


def test_a_column_of_the_labels_that_is_there_twice_is_reported(root: Path) -> None:
    text = "path,label,label\n" + "".join(f"{name},{label},x\n" for name, label in ROWS)
    assert "column label\n      got:   2 columns of this name" in get_error(root, text)
    unused = "path,label,x,x\n" + "".join(f"{name},{label},1,2\n" for name, label in ROWS)
    assert_read(load(root, unused))


def test_a_file_without_a_header_or_of_another_kind_is_recognized(root: Path) -> None:
    assert "a first line with the names of the columns: path,label" in get_error(root, join_rows().partition("\n")[2])
    assert "Excel workbook" in get_error(root, b"PK\x03\x04" + bytes(100))
    assert "line 3" in get_error(root, join_rows().replace("1.png", '"1.png"x'))


def test_absolute_paths_below_the_root_are_the_relative_ones(root: Path, tmp_path: Path) -> None:
    rows = "".join(f"{root / name},{label}\n" for name, label in ROWS)
    assert_read(load(root, f"path,label\n{rows}"))
    link = tmp_path.with_name(f"{tmp_path.name}_link")
    link.symlink_to(root)
    assert_read(load(link, f"path,label\n{rows}"))


def test_absolute_paths_elsewhere_are_said_or_reported(root: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    text = "path,label\n" + "".join(f"{root / name},{label}\n" for name, label in ROWS)
    samples = load(tmp_path / "tables", text)
    assert samples.notes == ("images that are not below the root: 12",)
    message = get_error(root, join_rows().replace("\n1.png", "\n/old/1.png").replace("2.png", "C:\\set\\2.png"))
    assert "absolute paths without a file: 2\n      got:   /old/1.png, C:\\set\\2.png" in message


def test_other_names_of_splits_are_taken_and_said(root: Path) -> None:
    names = ["Training", "valid", "TEST"]
    rows = "".join(f"{name},{label},{names[number // 2 % 3]}\n" for number, (name, label) in enumerate(ROWS))
    samples = load(root, f"path,label,part\n{rows}", Columns("path", "label", "part"))
    assert samples.count_per_split() == {"train": 4, "val": 4, "test": 4}
    assert samples.notes == ("splits: TEST -> test, Training -> train, valid -> val",)


def test_a_class_without_train_images_is_asked_for_in_the_file(root: Path) -> None:
    rows = "".join(f"{name},{label},{'train' if label == 'a' else 'test'}\n" for name, label in ROWS)
    message = get_error(root, f"path,label,part\n{rows}", Columns("path", "label", "part"))
    assert "fix:   train rows of b in labels.csv" in message


def test_a_line_break_in_a_label_becomes_a_space_and_is_said(root: Path) -> None:
    samples = load(root, join_rows().replace(",a\n", ',"golden\nretriever"\n'))
    assert samples.classes == ("b", "golden retriever")
    assert samples.notes == (
        "labels in one line and in composed characters (Unicode NFC): 6 (line 2, line 5, line 8, line 11, line 14, ... "
        "(1 more))",
    )


def test_composed_and_decomposed_characters_are_the_same(root: Path) -> None:
    (root / "0.png").rename(root / normalize("NFD", "é.png"))
    text = join_rows().replace("0.png", normalize("NFC", "é.png"), 1).replace(",a\n", f",{normalize('NFD', 'ä')}\n")
    samples = load(root, text)
    assert samples.classes == ("b", normalize("NFC", "ä"))
    assert normalize("NFD", "é.png") in list_labels(samples)


def test_a_folder_on_top_is_skipped(tmp_path: Path) -> None:
    inner = write_files(tmp_path / "set" / "export", NAMES)
    (inner / "labels.csv").write_text(join_rows())
    samples = build_samples(read_csv(tmp_path, "labels.csv", COLUMNS), SplitSettings(FRACTIONS))
    assert samples.root == inner
    assert samples.notes == ("read from set/export/, the only folder",)
