"""Folds: each image is tested once, classes are spread evenly, and splits of the data set itself are put aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.data.pictures import write_class_folders
from tests.data.tables import Row
from tests.data.test_groups import build_result, build_rows
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.data.evaluation_samples import build_evaluation_samples
from thaw.data.factory import load_fold_samples, load_samples
from thaw.data.folds import split_fold
from thaw.data.identity import build_identity
from thaw.data.leaks import find_group_leaks
from thaw.data.readers import ReaderResult
from thaw.data.sample_table import Sample
from thaw.data.samples import Samples
from thaw.data.splits import SplitSettings


def check_folds(all_samples: Sequence[Samples], max_difference: int = 1) -> None:
    """Check that each image is tested once, and that folds differ by few images, in all and of each class."""
    paths = sorted(sample.path for sample in all_samples[0].samples)
    tested = [[sample for sample in samples.samples if sample.split == "test"] for samples in all_samples]
    assert sorted(sample.path for samples in tested for sample in samples) == paths
    sizes = [len(samples) for samples in tested]
    assert max(sizes) - min(sizes) <= max_difference
    for label in range(len(all_samples[0].classes)):
        counts = [sum(sample.label == label for sample in samples) for samples in tested]
        assert max(counts) - min(counts) <= max_difference


def load_folds(*words: str) -> list[Samples]:
    return load_fold_samples(compose_recipe(words))


def test_folds_of_a_folder_test_each_image_once(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "own", {"ant": 7, "bee": 11, "cat": 13})
    words = ["dataset=folder", f"dataset.root={root}", "folds=3"]
    all_samples = load_folds(*words)
    check_folds(all_samples)
    assert all(samples.count_per_split()["val"] == 3 for samples in all_samples)  # 15 % of 4 or 5, 7 or 8, and 8 or 9
    single = [load_samples(compose_recipe([*words, f"fold={fold}"])) for fold in range(3)]
    assert [samples.fingerprint for samples in single] == [samples.fingerprint for samples in all_samples]
    assert single == all_samples
    other = load_folds(*words, "dataset.split_seed=1")
    assert {samples.fingerprint for samples in other}.isdisjoint(samples.fingerprint for samples in all_samples)
    assert [samples.fingerprint for samples in load_folds(*words, "seed=5")] == [
        samples.fingerprint for samples in all_samples
    ]


def test_folds_put_the_splits_of_the_data_set_aside(tmp_path: Path) -> None:
    for number, (split, count) in enumerate({"train": 8, "val": 4}.items()):
        write_class_folders(tmp_path / "insects" / split, {"ants": count, "bees": count + 1}, 100 * number)
    all_samples = load_folds("dataset=hymenoptera", f"dataset.root={tmp_path / 'insects'}", "folds=4")
    check_folds(all_samples)
    assert all_samples[0].notes == ("folds=4: the data set's own splits (train, test) are put aside",)


def test_folds_of_captchas_have_validation_images_in_the_proportion_of_the_data_set(tmp_path: Path) -> None:
    all_samples = load_folds(
        "dataset.characters=AB", "dataset.train=6", "dataset.val=2", "dataset.test=4", "dataset.side=32", "folds=3",
        f"data.cache_dir={tmp_path}",
    )  # fmt: skip
    check_folds(all_samples)
    assert [samples.count_per_split() for samples in all_samples] == [{"train": 12, "val": 4, "test": 8}] * 3


def test_folds_of_a_csv_keep_its_groups_together(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "own", {"ant": 12, "bee": 12})
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    lines = [
        f"{path},{path[:3]},p{number % 6},{'test' if number % 2 else 'train'}" for number, path in enumerate(paths)
    ]
    (root / "labels.csv").write_text("\n".join(["path,label,patient,split", *lines]) + "\n")
    words = ["dataset=csv", f"dataset.root={root}", "dataset.group_column=patient", "dataset.split_column=split"]
    all_samples = load_folds(*words, "folds=3")
    check_folds(all_samples)
    for samples in all_samples:
        splits = {(sample.group, sample.split) for sample in samples.samples}
        assert Counter(split for _, split in splits) == {"test": 2, "val": 1, "train": 3}
    assert not len(find_group_leaks(load_samples(compose_recipe(words))))
    with pytest.raises(UserError, match="patients") as error_info:
        load_samples(compose_recipe([*words[:2], "dataset.group_column=patients"]))
    assert "dataset.group_column=patient" in str(error_info.value)


def list_tested(rows: Sequence[Sample]) -> set[str]:
    return {row.path for row in rows if row.split == "test"}


def find_message(result: ReaderResult, folds: int) -> str:
    with pytest.raises(UserError) as error_info:
        split_fold(result, folds, 0, 0.15, 0)
    return str(error_info.value)


def test_more_folds_than_images_of_a_class_are_an_error_that_names_it() -> None:
    rows = [Row(f"{name}/{number}.png", name) for name, count in (("ant", 3), ("bee", 9)) for number in range(count)]
    assert find_message(build_result(rows, setting=""), 5) == "\n".join(
        [
            "more folds than images of a class.",
            "  folds=5",
            "      got:   classes of fewer images: ant (3)",
            "      valid: at least 5 images of each class",
            "      fix:   folds=3",
        ]
    )


def test_more_folds_than_groups_are_an_error_that_counts_them() -> None:
    assert find_message(build_result(build_rows([[9, 9]] * 4)), 5) == "\n".join(
        [
            "more folds than groups.",
            "  folds=5",
            "      got:   4 groups by dataset.group_column=patient",
            "      valid: at most 4, a group for each fold",
            "      fix:   folds=4",
        ]
    )


def test_a_class_of_one_group_cannot_be_cross_validated() -> None:
    message = find_message(build_result(build_rows([[9, 0], [9, 0], [9, 0], [9, 9]])), 3)
    assert message == "\n".join(
        [
            "too few groups of a class.",
            "  folds=3",
            "      got:   classes whose groups are all in one fold: class 1 (group 3)",
            "      valid: train images of every class in each fold, by dataset.group_column=patient",
            "      fix:   images of more groups, or other folds",
        ]
    )


def test_folds_without_a_fold_are_no_splits(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "own", {"ant": 4, "bee": 4})
    recipe = compose_recipe(["dataset=folder", f"dataset.root={root}"]).model_copy(update={"folds": 2})
    with pytest.raises(UserError, match="no fold") as error_info:
        load_samples(recipe)
    assert "fix:   fold=0, or -m sweep=folds folds=2" in str(error_info.value)


def test_other_data_are_evaluated_in_their_own_splits_after_a_training_on_a_fold(
    tmp_path: Path,
) -> None:
    for split in ("train", "test"):
        write_class_folders(tmp_path / split, {"ant": 4, "bee": 4}, 100 * (split == "test"))
    recipe = compose_recipe(["dataset=folder", f"dataset.root={tmp_path}", "folds=2", "fold=0"])
    trained = load_samples(recipe)
    result = build_result(
        [Row(sample.path, trained.classes[sample.label], sample.path.split("/")[0]) for sample in trained.samples],
        setting="", root=tmp_path, provided_splits={"train": "train/", "test": "test/"},
    )  # fmt: skip
    evaluation = build_evaluation_samples(result, trained.classes, SplitSettings({}, 0, None, 2, 0))
    nothing_known = build_identity("", trained.subset([]))
    own = evaluation.split_by_identity(nothing_known)
    assert all(sample.split == sample.path.split("/")[0] for sample in own.samples)
    assert evaluation.num_own_test_images == 8
