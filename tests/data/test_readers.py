"""CSV files are read as samples, and their problems are reported together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.pictures import make_image, write_class_folders
from thaw.config.errors import UserError
from thaw.data.csv_reader import Columns, read_csv
from thaw.data.samples import Samples, build_samples
from thaw.data.splits import SplitSettings

COLUMNS = Columns("path", "label")


def write_csv(root: Path, text: str, name: str = "labels.csv") -> Path:
    (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path, {"images": 20})


def make_rows(*classes: str, split: str = "") -> str:
    """Make rows of images/00.png to 19.png with the labels `classes` in turn."""
    rows = [f"images/{number:02}.png,{classes[number % len(classes)]}{split}\n" for number in range(20)]
    return "".join(rows)


def load(root: Path, columns: Columns = COLUMNS, seed: int = 0, **fractions: float) -> Samples:
    return build_samples(
        read_csv(root, "labels.csv", columns), SplitSettings(fractions or {"val": 0.2, "test": 0.1}, seed)
    )


def load_and_get_error(root: Path, columns: Columns = COLUMNS) -> str:
    with pytest.raises(UserError) as error_info:
        load(root, columns)
    return str(error_info.value)


def test_rows_are_labelled_and_stratified(image_folder: Path) -> None:
    samples = load(write_csv(image_folder, "path,label\n" + make_rows("cat", "dog")))
    assert samples.classes == ("cat", "dog")
    assert samples.count_per_split() == {"train": 14, "val": 4, "test": 2}
    assert all(sample.label == int(Path(sample.path).stem) % 2 for sample in samples.samples)


def test_the_seed_determines_the_splits(image_folder: Path) -> None:
    root = write_csv(image_folder, "path,label\n" + make_rows("cat", "dog"))
    assert load(root, seed=1) == load(root, seed=1)
    assert load(root, seed=1).samples != load(root, seed=2).samples


def test_splits_of_a_column_are_kept_and_missing_ones_created_from_train(image_folder: Path) -> None:
    rows = make_rows("cat", "dog").replace("cat", "cat,train").replace("dog", "dog,train").splitlines()
    rows[:4] = [row.replace("train", "test") for row in rows[:4]]
    root = write_csv(image_folder, "path,label,part\n" + "\n".join(rows))
    samples = load(root, Columns("path", "label", split="part"), val=0.25, test=0.5)
    assert samples.count_per_split() == {"train": 12, "val": 4, "test": 4}
    assert [sample.path for sample in samples.samples if sample.split == "test"] == [
        f"images/{n:02}.png" for n in range(4)
    ]


def test_folder_and_suffix_complete_the_path(image_folder: Path) -> None:
    text = "breed,id,more\n" + "".join(f"{'ab'[number % 2]},{number:02},x\n" for number in range(20))
    samples = load(write_csv(image_folder, text), Columns("id", "breed", folder="images", suffix=".png"))
    assert samples.samples[0].path.startswith("images/")
    assert len(samples.samples) == 20


def test_a_byte_order_mark_quotes_and_commas_are_read(image_folder: Path) -> None:
    make_image(9, 9).save(image_folder / "one, two.png")
    text = '\ufeff"path","label"\r\n' + make_rows("cat", "dog").replace("\n", "\r\n") + '"one, two.png","cat"\r\n'
    assert len(load(write_csv(image_folder, text)).samples) == 21


def test_unlisted_images_are_ignored_files_and_other_files_are_not(image_folder: Path) -> None:
    make_image(9, 9).save(image_folder / "images" / "more.png")
    root = write_csv(image_folder, "path,label\n" + make_rows("cat", "dog"))
    (root / "notes.txt").touch()
    assert load(root).ignored_files == {"images/more.png": "image in no row of labels.csv"}


def test_all_problems_are_reported_together_with_counts_and_names(image_folder: Path) -> None:
    text = "path,label,split\n" + make_rows("cat", "dog", split=",train")
    text += "images/00.png,cat,train\nimages/gone.png,cat,train\nimages/lost.png,dog,train\n,cat,train\n"
    text = text.replace("01.png,dog", "01.png,").replace("02.png,cat,train", "02.png,cat,pool")
    message = load_and_get_error(write_csv(image_folder, text), Columns("path", "label", split="split"))
    for text in (
        "rows without a path: 1\n      got:   line 25",
        "rows without a label: 1\n      got:   images/01.png",
        "rows of an unknown split: 1\n      got:   images/02.png ('pool')\n      valid: train, val, test",
        "duplicate paths: 1\n      got:   images/00.png",
        "missing images: 2\n      got:   images/gone.png, images/lost.png",
    ):
        assert text in message


def test_the_first_of_many_missing_images_are_named(image_folder: Path) -> None:
    message = load_and_get_error(
        write_csv(image_folder, "path,label\n" + make_rows("cat", "dog").replace("images", "pictures"))
    )
    assert "missing images: 20" in message
    assert "pictures/04.png, ... (15 more)" in message


def test_two_spellings_of_a_path_are_duplicates(image_folder: Path) -> None:
    message = load_and_get_error(
        write_csv(image_folder, "path,label\n" + make_rows("cat", "dog") + "./images//00.png,cat\n")
    )
    assert "duplicate paths: 1" in message


def test_missing_columns_are_reported_with_the_existing_ones(image_folder: Path) -> None:
    message = load_and_get_error(write_csv(image_folder, "file,labels\n" + make_rows("cat", "dog")))
    assert "dataset.path_column=path" in message
    assert "valid: file, labels" in message
    assert "fix:   dataset.label_column=labels" in message


def test_a_missing_csv_file_is_reported_with_the_closest_name(image_folder: Path) -> None:
    assert "dataset.file=label.csv" in load_and_get_error(write_csv(image_folder, "path,label\n", "label.csv"))


def test_an_empty_csv_file_has_too_few_classes(image_folder: Path) -> None:
    assert "two classes or more in column label of labels.csv" in load_and_get_error(
        write_csv(image_folder, "path,label\n")
    )


def test_missing_test_images_are_reported_with_the_fixes(image_folder: Path) -> None:
    root = write_csv(image_folder, "path,label\n" + make_rows("cat", "dog"))
    with pytest.raises(UserError, match=r"rows of labels.csv with a split column=test, or dataset.fractions.test=0.15"):
        load(root, val=0.1, test=0.0)


def test_images_may_be_outside_the_root(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    root = write_csv(tmp_path / "tables", "path,label\n" + make_rows("cat", "dog"))
    for folder in (str(image_folder), ".."):
        samples = load(root, Columns("path", "label", folder=folder))
        assert len(samples.samples) == 20
        assert all((samples.root / sample.path).is_file() for sample in samples.samples)


def test_invalid_quotes_are_reported(image_folder: Path) -> None:
    assert "cannot be read" in load_and_get_error(write_csv(image_folder, 'path,label\n"images/00.png"x,cat\n'))


def test_class_names_that_differ_in_case_only_are_two_classes(image_folder: Path) -> None:
    assert load(write_csv(image_folder, "path,label\n" + make_rows("a", "A"))).classes == ("A", "a")


def test_file_and_class_names_may_use_any_script(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"蟻": 10, "пчела": 10, "fourmi à tête": 10})
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    write_csv(root, "path,label\n" + "".join(f"{name},{Path(name).parent}\n" for name in names))
    assert load(root).classes == ("fourmi à tête", "пчела", "蟻")


def test_a_file_name_that_is_not_utf8_is_a_sample_and_changes_the_fingerprint(image_folder: Path) -> None:
    root = write_csv(image_folder, "path,label\n" + make_rows("cat", "dog"))
    before = load(root).fingerprint
    try:
        (root / "images" / "00.png").rename(root / "images" / os.fsdecode(b"\xe9.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    content = (root / "labels.csv").read_bytes()
    (root / "labels.csv").write_bytes(content.replace(b"images/00.png", b"images/\xe9.png"))
    samples = load(root)
    assert "images/\udce9.png" in {sample.path for sample in samples.samples}
    assert samples.fingerprint != before


def test_a_label_that_is_not_utf8_is_reported_as_printable_text(image_folder: Path) -> None:
    root = write_csv(image_folder, "path,label\n" + make_rows("cat", "dog"))
    content = (root / "labels.csv").read_bytes()
    (root / "labels.csv").write_bytes(content.replace(b"dog", b"d\xf6g"))
    message = load_and_get_error(root)
    assert "labels that are not UTF-8: 10" in message
    assert r"d\xf6g (line 3)" in message
    assert "dataset.encoding=cp1252" in message
    message.encode("utf-8")
