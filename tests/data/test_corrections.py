"""`data.exclude` leaves images out and `data.relabel` corrects labels, before splits are drawn."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from unicodedata import normalize

import pytest

from tests.data.trees import FRACTIONS, list_labels, write_classes, write_files
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.config.schema import DataConfig
from thaw.data.corrections import apply_corrections, describe_missing_files
from thaw.data.evaluation_samples import build_evaluation_samples
from thaw.data.folder_reader import read_image_folder
from thaw.data.samples import Samples, build_samples
from thaw.data.splits import SplitSettings

CLASSES = ("ants", "bees", "wasps")


@functools.cache
def compose_default_settings() -> DataConfig:
    return compose_recipe([]).data


def build_settings(tmp_path: Path, exclude: str | None = None, relabel: str | None = None) -> DataConfig:
    """Write the texts of the files beside the data, and return the settings that name them."""
    files = {}
    for key, text in (("exclude", exclude), ("relabel", relabel)):
        if text is not None:
            (tmp_path / f"{key}.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
            files[key] = str(tmp_path / f"{key}.csv")
    return compose_default_settings().model_copy(update=files)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "data", *CLASSES, count=10)


def load(root: Path, settings: DataConfig) -> Samples:
    return build_samples(apply_corrections(read_image_folder(root, {}), settings), SplitSettings(FRACTIONS))


def get_error(root: Path, settings: DataConfig) -> str:
    with pytest.raises(UserError) as error_info:
        load(root, settings)
    return str(error_info.value)


def test_images_are_left_out_and_relabeled_and_no_other_changes_its_split(root: Path, tmp_path: Path) -> None:
    exclude = "path,why\nants/1.png,a copy\nbees/3.png,\nants/1.png,twice\n"
    relabel = "path;label;score\nants/2.png;bees;0.9\nwasps/4.png;wasps;0.1\nbees/3.png;ants;0.5\n"
    samples, before = load(root, build_settings(tmp_path, exclude, relabel)), load(root, compose_default_settings())
    labels = list_labels(samples)
    assert labels.keys() == list_labels(before).keys() - {"ants/1.png", "bees/3.png"}
    assert {path for path, (_, name) in labels.items() if path.split("/")[0] != name} == {"ants/2.png"}
    assert labels["ants/2.png"][1] == "bees"
    splits, splits_before = ({sample.path: sample.split for sample in data.samples} for data in (samples, before))
    assert splits == {path: split for path, split in splits_before.items() if path in splits}
    assert samples.fingerprint != before.fingerprint
    assert samples.corrections["excluded"].count == 2
    assert samples.corrections["relabeled"].count == 1
    digest = hashlib.sha256((tmp_path / "relabel.csv").read_bytes()).hexdigest()
    assert samples.corrections["relabeled"].sha256 == digest
    assert samples.group_ignored_files() == {"left out by data.exclude": ["ants/1.png", "bees/3.png"]}
    assert f"excluded by data.exclude={tmp_path / 'exclude.csv'}: 2 images" in samples.notes


def test_files_that_change_nothing_keep_the_fingerprint(root: Path, tmp_path: Path) -> None:
    samples = load(root, build_settings(tmp_path, "path\n", "path,label\nants/1.png,ants\n"))
    assert samples.fingerprint == load(root, compose_default_settings()).fingerprint
    assert [correction.count for correction in samples.corrections.values()] == [0, 0]


def test_paths_are_understood_as_other_programs_write_them(tmp_path: Path) -> None:
    names = ["a/ä.png", "a/=1.png", "a/b c.png", "a/\udcff.png", "a/é.png", "a/keep.png", "b/keep.png"]
    root = write_files(tmp_path / "data", [*names, *(f"{name}/{number}.png" for name in "ab" for number in range(8))])
    texts = ["a\\" + normalize("NFD", "ä.png"), f"{root}/a/=1.png", "a/b c.png", "./a/\udcff.png", "a/x/../é.png"]
    samples = load(root, build_settings(tmp_path, "path\n" + "".join(f"{text}\n" for text in texts)))
    assert [name for name in names if name in list_labels(samples)] == ["a/keep.png", "b/keep.png"]


def test_cells_that_were_quoted_for_spreadsheets_are_understood(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", "=1+1", "+b")
    relabel = "path,label\n'=1+1/0.png,'+b\n"
    labels = list_labels(load(root, build_settings(tmp_path, relabel=relabel)))
    assert labels["=1+1/0.png"][1] == "+b"


def test_all_problems_of_both_files_are_reported_together(root: Path, tmp_path: Path) -> None:
    exclude = "path\nants/1.png\n" + "".join(f"ants/missing{number}.png\n" for number in range(7))
    relabel = "path,label\nants/2.png,bee\nants/3.png,\nants/4.png,bees\nants/4.png,wasps\nother/0.png,bees\n"
    message = get_error(root, build_settings(tmp_path, exclude, relabel))
    assert "exclude.csv: paths without an image: 7\n" in message
    assert "ants/missing0.png, ants/missing1.png" in message
    assert "(2 more)" in message
    assert "relabel.csv: paths without an image: 1\n      got:   other/0.png" in message
    assert "images with no label: 1\n      got:   ants/3.png" in message
    assert "images with several labels: 1\n      got:   ants/4.png" in message
    assert "labels that are no class of the data set: 1\n      got:   bee\n      valid: ants, bees, wasps" in message
    assert "fix:   bees in " in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nants/1.png\n", "a first line with the names of the columns: path"),
        ("path,label\nants/1.png\n", "rows with fewer cells than the header: 1"),
        ("PK\x03\x04", "save it as CSV"),
        ("", "a first line with the names of the columns: path"),
    ],
)
def test_a_file_of_another_kind_is_explained(text: str, message: str, root: Path, tmp_path: Path) -> None:
    error = get_error(root, build_settings(tmp_path, text))
    assert message in error
    assert str(tmp_path / "exclude.csv") in error
    assert "dataset." not in error  # its columns and its format are no settings


def test_a_class_that_loses_all_its_images_is_an_error(root: Path, tmp_path: Path) -> None:
    exclude = "path\n" + "".join(f"bees/{number}.png\n" for number in range(10))
    message = get_error(root, build_settings(tmp_path, exclude))
    assert "it leaves no image of bees" in message
    assert "leave some of its images out of" in message


def test_a_class_may_be_merged_with_another(root: Path, tmp_path: Path) -> None:
    relabel = "path,label\n" + "".join(f"bees/{number}.png,wasps\n" for number in range(10))
    assert load(root, build_settings(tmp_path, relabel=relabel)).classes == ("ants", "wasps")


def test_a_class_without_train_images_names_the_file(tmp_path: Path) -> None:
    folders = ["train/ants", "train/bees", "test/ants", "test/bees"]
    root = write_classes(tmp_path / "data", *folders)
    settings = build_settings(tmp_path, "path\n" + "".join(f"train/bees/{number}.png\n" for number in range(4)))
    with pytest.raises(UserError, match=r"no train images of bees") as error_info:
        build_samples(
            apply_corrections(read_image_folder(root, {"train": "train", "test": "test"}), settings), SplitSettings()
        )
    assert "or fewer images in data.exclude=" in str(error_info.value)


def test_an_evaluation_of_other_images_ignores_what_it_does_not_have(root: Path, tmp_path: Path) -> None:
    settings = build_settings(tmp_path, "path\nants/99.png\nants/1.png\n", "path,label\nants/2.png,gone\nx,ants\n")
    result = apply_corrections(read_image_folder(root, {}), settings, is_evaluation=True)
    samples = build_evaluation_samples(result, [*CLASSES, "gone"], SplitSettings(FRACTIONS)).samples
    assert samples.corrections["excluded"].count == samples.corrections["relabeled"].count == 1
    missing = settings.model_copy(update={"exclude": str(tmp_path / "moved.csv"), "relabel": None})
    assert len(apply_corrections(read_image_folder(root, {}), missing, is_evaluation=True).rows) == 30
    assert "moved.csv: no such file" in "".join(describe_missing_files(missing))


def test_a_missing_file_is_found_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "exclude.csv").write_text("path\n")
    with pytest.raises(UserError) as error_info:
        compose_recipe([f"data.exclude={tmp_path / 'exlude.csv'}", f"data.relabel={tmp_path}"])
    assert f"fix:   data.exclude={tmp_path / 'exclude.csv'}" in str(error_info.value)
    assert f"data.relabel={tmp_path}\n      got:   a folder" in str(error_info.value)
