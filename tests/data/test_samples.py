"""Folders -> tables of samples: what counts, what is cut, what the fingerprint sees."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.data.pictures import class_folders, picture
from thaw.config.errors import UserError
from thaw.data.samples import SPLITS, Samples, load_folder_samples

NAMED = {"train": "train", "val": "val", "test": "test"}
FRACTIONS = {"val": 0.2, "test": 0.1}


def table(root: Path, seed: int = 0, folders: dict[str, str | None] | None = None, **fractions: float) -> Samples:
    return load_folder_samples(root, folders or {**NAMED}, fractions or FRACTIONS, seed)


def split_folders(root: Path, **counts: int) -> Path:
    for number, (split, count) in enumerate(counts.items()):
        class_folders(root / split, {"ant": count, "bee": count}, first_seed=1000 * number)
    return root


def paths_of(samples: Samples, split: str) -> set[str]:
    return {samples.samples[position].path for position in samples.get_positions(split)}


def per_class(samples: Samples, split: str) -> dict[str, int]:
    return dict(Counter(samples.classes[samples.samples[position].label] for position in samples.get_positions(split)))


def test_images_in_split_folders_keep_split_and_class(tmp_path: Path) -> None:
    samples = table(split_folders(tmp_path, train=3, val=2, test=1))
    assert samples.classes == ("ant", "bee")
    assert samples.count_per_split() == {"train": 6, "val": 4, "test": 2}
    for sample in samples.samples:
        split, name, _ = sample.path.split("/")
        assert (split, name) == (sample.split, samples.classes[sample.label])


def test_samples_stand_in_order_of_split_and_path(tmp_path: Path) -> None:
    samples = table(split_folders(tmp_path, test=2, train=3, val=2)).samples
    assert list(samples) == sorted(samples, key=lambda one: (SPLITS.index(one.split), one.path))


def test_positions_and_labels_belong_to_the_samples(tmp_path: Path) -> None:
    samples = table(split_folders(tmp_path, train=3, val=2, test=1))
    assert sorted(position for split in SPLITS for position in samples.get_positions(split)) == list(range(12))
    assert samples.get_labels().tolist() == [sample.label for sample in samples.samples]
    assert (samples.get_labels().dtype, samples.get_positions("val").dtype) == ("int64", "int64")


def test_splits_may_be_called_otherwise(tmp_path: Path) -> None:
    root = split_folders(tmp_path, training=4, official=2)
    samples = table(root, folders={"train": "training", "val": None, "test": "official"}, val=0.25)
    assert samples.count_per_split() == {"train": 6, "val": 2, "test": 4}


def test_images_in_sub_folders_of_a_class_belong_to_it(tmp_path: Path) -> None:
    root = class_folders(tmp_path, {"ant": 9, "bee": 9, "bee/garden/2024": 1})
    samples = table(root)
    assert {sample.label for sample in samples.samples if "garden" in sample.path} == {samples.classes.index("bee")}


def test_class_folders_alone_are_cut_class_by_class(tmp_path: Path) -> None:
    samples = table(class_folders(tmp_path, {"ant": 10, "bee": 20}))
    assert per_class(samples, "train") == {"ant": 7, "bee": 14}
    assert per_class(samples, "val") == {"ant": 2, "bee": 4}
    assert per_class(samples, "test") == {"ant": 1, "bee": 2}


def test_a_cut_gives_each_image_to_one_split(tmp_path: Path) -> None:
    samples = table(class_folders(tmp_path, {"ant": 10, "bee": 20}))
    assert len({sample.path for sample in samples.samples}) == len(samples.samples) == 30


def test_a_cut_is_the_same_on_repeat_and_another_with_another_seed(tmp_path: Path) -> None:
    class_folders(tmp_path, {"ant": 20, "bee": 20})
    assert table(tmp_path, seed=1).samples == table(tmp_path, seed=1).samples
    assert paths_of(table(tmp_path, seed=1), "val") != paths_of(table(tmp_path, seed=2), "val")


def test_a_cut_does_not_depend_on_the_order_in_which_files_were_made(tmp_path: Path) -> None:
    class_folders(tmp_path / "one", {"ant": 9, "bee": 9})
    for path in sorted((tmp_path / "one").rglob("*.png"), reverse=True):
        copy = tmp_path / "two" / path.relative_to(tmp_path / "one")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    one, two = table(tmp_path / "one"), table(tmp_path / "two")
    assert one.samples == two.samples
    assert one.fingerprint == two.fingerprint


def test_classes_are_not_cut_by_one_and_the_same_permutation(tmp_path: Path) -> None:
    samples = table(class_folders(tmp_path, {"ant": 30, "bee": 30}))
    names = {name: {Path(path).name for path in paths_of(samples, "val") if name in path} for name in ("ant", "bee")}
    assert names["ant"] != names["bee"]


def test_validation_images_are_cut_from_train_where_only_train_and_test_have_folders(tmp_path: Path) -> None:
    samples = table(split_folders(tmp_path, train=10, test=3), val=0.2, test=0.5)
    assert samples.count_per_split() == {"train": 16, "val": 4, "test": 6}
    assert all(path.startswith("train/") for path in paths_of(samples, "val"))


@pytest.mark.parametrize("seed", range(5))
def test_official_test_images_never_move(tmp_path: Path, seed: int) -> None:
    split_folders(tmp_path, train=10, test=3)
    samples = table(tmp_path, seed=seed, val=0.5, test=0.3)
    assert paths_of(samples, "test") == {one.path for one in samples.samples if one.path.startswith("test/")}


def test_a_fraction_of_zero_cuts_nothing(tmp_path: Path) -> None:
    assert table(split_folders(tmp_path, train=10, test=3), val=0.0).count_per_split() == {
        "train": 20,
        "val": 0,
        "test": 6,
    }


def test_a_cut_leaves_each_class_a_train_image(tmp_path: Path) -> None:
    samples = table(class_folders(tmp_path, {"ant": 2, "bee": 1, "cow": 9}), val=0.6, test=0.6)
    assert per_class(samples, "train") == {"ant": 1, "bee": 1, "cow": 1}


def test_files_that_are_no_images_are_passed_over_by_name(tmp_path: Path) -> None:
    class_folders(tmp_path, {"ant": 9, "bee": 9})
    strays = {"README.txt", "ant/notes.txt", "bee/Thumbs.db", "ant/.DS_Store", "bee/._00.png"}
    for name in strays:
        (tmp_path / name).write_bytes(b"no image")
    samples = table(tmp_path)
    assert samples.ignored_files == tuple(sorted(strays))
    assert len(samples.samples) == 18


def test_images_that_lie_in_no_class_folder_are_passed_over_by_name(tmp_path: Path) -> None:
    split_folders(tmp_path, train=9, test=3)
    picture(9, 9).save(tmp_path / "train" / "overview.png")
    assert table(tmp_path).ignored_files == ("train/overview.png",)


def test_copies_in_hidden_folders_are_no_samples(tmp_path: Path) -> None:
    class_folders(tmp_path, {"ant": 9, "bee": 9, "ant/.ipynb_checkpoints": 1, ".trash": 3})
    samples = table(tmp_path)
    assert samples.classes == ("ant", "bee")
    assert len(samples.samples) == 18
    assert "ant/.ipynb_checkpoints/00.png" in samples.ignored_files


def test_a_data_set_below_a_hidden_folder_is_one_like_any_other(tmp_path: Path) -> None:
    assert len(table(class_folders(tmp_path / ".cache" / "set", {"ant": 9, "bee": 9})).samples) == 18


def test_a_folder_without_images_is_no_class(tmp_path: Path) -> None:
    class_folders(tmp_path, {"ant": 9, "bee": 9, "empty": 0})
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "cite.pdf").touch()
    assert table(tmp_path).classes == ("ant", "bee")


def test_suffixes_may_be_written_in_capitals(tmp_path: Path) -> None:
    class_folders(tmp_path, {"ant": 9, "bee": 9})
    picture(9, 9).save(tmp_path / "ant" / "DSC_1.JPG")
    assert len(table(tmp_path).samples) == 19


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return split_folders(tmp_path / "known", train=4, test=2)


def test_the_fingerprint_stays_where_the_folder_is_moved(known: Path) -> None:
    before = table(known).fingerprint
    assert table(known.rename(known.with_name("elsewhere"))).fingerprint == before


def test_the_fingerprint_changes_with_one_byte(known: Path) -> None:
    before = table(known).fingerprint
    file = known / "train" / "ant" / "00.png"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert table(known).fingerprint != before


def test_the_fingerprint_changes_with_a_label(known: Path) -> None:
    before = table(known).fingerprint
    (known / "train" / "ant" / "00.png").rename(known / "train" / "bee" / "99.png")
    assert table(known).fingerprint != before


def test_the_fingerprint_changes_with_the_name_of_a_class(known: Path) -> None:
    before = table(known).fingerprint
    for split in ("train", "test"):
        (known / split / "bee").rename(known / split / "wasp")
    assert table(known).fingerprint != before


def test_the_fingerprint_changes_with_a_split(known: Path) -> None:
    assert len({table(known, seed=seed, val=0.25).fingerprint for seed in (0, 1, 2)}) > 1
    assert table(known, val=0.25).fingerprint != table(known, val=0.0).fingerprint


def test_the_fingerprint_changes_with_a_split_that_leaves_the_order_as_it_is(tmp_path: Path) -> None:
    root = split_folders(tmp_path, test=1)
    class_folders(root / "train", {"ant": 1, "bee": 3})
    uncut = table(root, val=0.0)
    cuts = [table(root, seed=seed, val=0.4) for seed in range(20)]
    alike = [cut for cut in cuts if [one.path for one in cut.samples] == [one.path for one in uncut.samples]]
    assert alike
    assert uncut.fingerprint not in {cut.fingerprint for cut in alike}


def test_the_fingerprint_does_not_see_what_is_passed_over(known: Path) -> None:
    before = table(known).fingerprint
    (known / "train" / "ant" / "notes.txt").touch()
    assert table(known).fingerprint == before


@pytest.mark.parametrize(("counts", "got"), [({}, "0 classes"), ({"ant": 5}, "1 class ant")])
def test_too_few_classes_are_a_fault_that_shows_the_layout(tmp_path: Path, counts: dict[str, int], got: str) -> None:
    with pytest.raises(UserError, match="too few classes") as caught:
        table(class_folders(tmp_path, counts))
    assert f"got:   {got}\n" in str(caught.value)
    assert "CLASS/IMAGE" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_class_without_a_train_image_is_a_fault_that_names_it(tmp_path: Path) -> None:
    split_folders(tmp_path, train=3, test=2)
    class_folders(tmp_path / "test", {"wasp": 1})
    with pytest.raises(UserError, match="no train image of wasp"):
        table(tmp_path)


def test_no_test_images_are_a_fault_with_the_two_fixes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no test images") as caught:
        table(split_folders(tmp_path, train=4), val=0.25)
    assert "6 train, 2 val, 0 test" in str(caught.value)
    assert "test/" in str(caught.value)
    assert "dataset.fractions.test=" in str(caught.value)
