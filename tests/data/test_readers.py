"""CSV files -> tables of samples, and everything that can be wrong with one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.pictures import class_folders, picture
from thaw.config.errors import UserError
from thaw.data.readers import Columns, read_csv
from thaw.data.samples import Samples, build_samples

COLUMNS = Columns("path", "label")


def listed(root: Path, text: str, name: str = "labels.csv") -> Path:
    (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return class_folders(tmp_path, {"images": 20})


def lines(*classes: str, split: str = "") -> str:
    """images/00.png to 19.png, labelled in turn."""
    rows = [f"images/{number:02}.png,{classes[number % len(classes)]}{split}\n" for number in range(20)]
    return "".join(rows)


def table(root: Path, columns: Columns = COLUMNS, seed: int = 0, **fractions: float) -> Samples:
    return build_samples(root, read_csv(root, "labels.csv", columns), fractions or {"val": 0.2, "test": 0.1}, seed)


def fault(root: Path, columns: Columns = COLUMNS) -> str:
    with pytest.raises(UserError) as caught:
        table(root, columns)
    return str(caught.value)


def test_rows_are_labelled_and_split_class_by_class(pictures: Path) -> None:
    samples = table(listed(pictures, "path,label\n" + lines("cat", "dog")))
    assert samples.classes == ("cat", "dog")
    assert samples.count_per_split() == {"train": 14, "val": 4, "test": 2}
    assert all(one.label == int(Path(one.path).stem) % 2 for one in samples.samples)


def test_the_cut_is_that_of_an_image_folder_and_of_its_seed(pictures: Path) -> None:
    root = listed(pictures, "path,label\n" + lines("cat", "dog"))
    assert table(root, seed=1) == table(root, seed=1)
    assert table(root, seed=1).samples != table(root, seed=2).samples


def test_splits_of_a_column_are_kept_and_missing_ones_cut_from_train(pictures: Path) -> None:
    rows = lines("cat", "dog").replace("cat", "cat,train").replace("dog", "dog,train").splitlines()
    rows[:4] = [row.replace("train", "test") for row in rows[:4]]
    root = listed(pictures, "path,label,part\n" + "\n".join(rows))
    samples = table(root, Columns("path", "label", split="part"), val=0.25, test=0.5)
    assert samples.count_per_split() == {"train": 12, "val": 4, "test": 4}
    assert [one.path for one in samples.samples if one.split == "test"] == [f"images/{n:02}.png" for n in range(4)]


def test_a_folder_before_and_a_suffix_behind_make_the_path(pictures: Path) -> None:
    text = "breed,id,more\n" + "".join(f"{'ab'[number % 2]},{number:02},x\n" for number in range(20))
    samples = table(listed(pictures, text), Columns("id", "breed", folder="images", suffix=".png"))
    assert samples.samples[0].path.startswith("images/")
    assert len(samples.samples) == 20


def test_a_byte_order_mark_quotes_and_commas_are_read(pictures: Path) -> None:
    picture(9, 9).save(pictures / "one, two.png")
    text = '\ufeff"path","label"\r\n' + lines("cat", "dog").replace("\n", "\r\n") + '"one, two.png","cat"\r\n'
    assert len(table(listed(pictures, text)).samples) == 21


def test_images_that_no_row_names_are_passed_over_and_other_files_are_not(pictures: Path) -> None:
    picture(9, 9).save(pictures / "images" / "more.png")
    root = listed(pictures, "path,label\n" + lines("cat", "dog"))
    (root / "notes.txt").touch()
    assert table(root).ignored_files == ("images/more.png",)


def test_all_that_is_wrong_is_told_at_once_with_counts_and_names(pictures: Path) -> None:
    text = "path,label,split\n" + lines("cat", "dog", split=",train")
    text += "images/00.png,cat,train\nimages/gone.png,cat,train\nimages/lost.png,dog,train\n,cat,train\n"
    text = text.replace("01.png,dog", "01.png,").replace("02.png,cat,train", "02.png,cat,dev")
    told = fault(listed(pictures, text), Columns("path", "label", split="split"))
    for words in (
        "rows without a path: 1\n      got:   line 25",
        "rows without a label: 1\n      got:   images/01.png",
        "rows of an unknown split: 1\n      got:   images/02.png ('dev')\n      valid: train, val, test",
        "paths that stand there twice: 1\n      got:   images/00.png",
        "images that are missing: 2\n      got:   images/gone.png, images/lost.png",
    ):
        assert words in told


def test_of_many_missing_images_the_first_are_named(pictures: Path) -> None:
    told = fault(listed(pictures, "path,label\n" + lines("cat", "dog").replace("images", "pictures")))
    assert "images that are missing: 20" in told
    assert "pictures/04.png, ... (15 more)" in told


def test_one_image_written_in_two_ways_stands_there_twice(pictures: Path) -> None:
    told = fault(listed(pictures, "path,label\n" + lines("cat", "dog") + "./images//00.png,cat\n"))
    assert "paths that stand there twice: 1" in told


def test_missing_columns_are_told_together_with_those_that_are_there(pictures: Path) -> None:
    told = fault(listed(pictures, "file,labels\n" + lines("cat", "dog")))
    assert "dataset.path_column=path" in told
    assert "valid: file, labels" in told
    assert "fix:   dataset.label_column=labels" in told


def test_a_missing_table_is_told_with_the_nearest(pictures: Path) -> None:
    assert "dataset.file=label.csv" in fault(listed(pictures, "path,label\n", "label.csv"))


def test_an_empty_table_has_too_few_classes(pictures: Path) -> None:
    assert "two classes or more in column label of labels.csv" in fault(listed(pictures, "path,label\n"))


def test_a_table_that_gives_no_test_images_is_told_what_to_do(pictures: Path) -> None:
    root = listed(pictures, "path,label\n" + lines("cat", "dog"))
    with pytest.raises(UserError, match=r"rows of labels.csv with a split column=test, or dataset.fractions.test=0.15"):
        table(root, val=0.1, test=0.0)


def test_images_may_lie_outside_the_table_s_folder(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    root = listed(tmp_path / "tables", "path,label\n" + lines("cat", "dog"))
    for folder in (str(pictures), ".."):
        samples = table(root, Columns("path", "label", folder=folder))
        assert len(samples.samples) == 20
        assert all((samples.root / one.path).is_file() for one in samples.samples)


def test_broken_quotes_are_told(pictures: Path) -> None:
    assert "cannot be read" in fault(listed(pictures, 'path,label\n"images/00.png"x,cat\n'))


def test_class_names_that_differ_in_case_only_are_two_classes(pictures: Path) -> None:
    assert table(listed(pictures, "path,label\n" + lines("a", "A"))).classes == ("A", "a")


def test_file_and_class_names_may_be_of_any_script(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"蟻": 10, "пчела": 10, "fourmi à tête": 10})
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    listed(root, "path,label\n" + "".join(f"{name},{Path(name).parent}\n" for name in names))
    assert table(root).classes == ("fourmi à tête", "пчела", "蟻")


def test_a_file_name_that_is_no_utf8_is_a_sample_and_counts_in_the_fingerprint(pictures: Path) -> None:
    root = listed(pictures, "path,label\n" + lines("cat", "dog"))
    before = table(root).fingerprint
    try:
        (root / "images" / "00.png").rename(root / "images" / os.fsdecode(b"\xe9.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    content = (root / "labels.csv").read_bytes()
    (root / "labels.csv").write_bytes(content.replace(b"images/00.png", b"images/\xe9.png"))
    samples = table(root)
    assert "images/\udce9.png" in {one.path for one in samples.samples}
    assert samples.fingerprint != before


def test_a_label_that_is_no_utf8_is_told_in_letters_that_can_be_printed(pictures: Path) -> None:
    root = listed(pictures, "path,label\n" + lines("cat", "dog"))
    content = (root / "labels.csv").read_bytes()
    (root / "labels.csv").write_bytes(content.replace(b"dog", b"d\xf6g"))
    told = fault(root)
    assert "names that cannot be read" in told
    assert r"d\xf6g" in told
    told.encode("utf-8")
