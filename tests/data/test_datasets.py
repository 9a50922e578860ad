"""Every data set of `conf/dataset/` with its own settings, from archives in the official layouts: to samples, and
through a whole training."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import only_run
from tests.data import official
from tests.data.official import BREEDS, CIFAR_CLASSES, written
from tests.data.server import Server
from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.config.schema import CsvDatasetConfig
from thaw.data.factory import load_samples
from thaw.data.samples import Samples

CALTECH = {"Faces": 12, "Faces_easy": 8, "chair": 40}
SMALL = (
    "dataset.image_size=32",
    "trainer.epochs=1",
    "trainer.batch_size=8",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
)
Official = Callable[..., list[str]]


@pytest.fixture
def served(server: Server) -> Official:
    """The overrides that choose a data set whose official archive is `content`, served by this machine."""

    def overrides(choice: str, content: bytes, key: str = "archive", *more: str) -> list[str]:
        url = server.serving(f"/{choice}.archive", content)
        checksum = hashlib.sha256(content).hexdigest()
        address = [f"dataset.{key}.url={url}", f"dataset.{key}.checksum=sha256:{checksum}"]
        return [f"dataset={choice}", *address, *more]

    return overrides


def samples(overrides: list[str], cache: Path, seed: int = 0) -> Samples:
    return load_samples(compose_recipe(overrides).dataset, seed, cache, None)


def per_class(table: Samples, split: str) -> dict[str, int]:
    return dict(Counter(table.classes[table.samples[position].label] for position in table.get_positions(split)))


def tiny_dogs() -> bytes:
    return official.zipped(official.dog_breeds("kaggle_dog_tiny/"))


def arguments(served: Official) -> dict[str, Callable[[], list[str]]]:
    return {
        "hotdog": lambda: served("hotdog", official.hotdog()),
        "hymenoptera": lambda: served("hymenoptera", official.hymenoptera()),
        "dog_breeds": lambda: served("dog_breeds", tiny_dogs(), "archives.tiny", "dataset.variant=tiny"),
        "caltech101": lambda: served("caltech101", official.caltech101(CALTECH)),
        "cifar10": lambda: served("cifar10", official.tarred(official.cifar_files(each=2))),
    }


@pytest.mark.parametrize("choice", ["hotdog", "hymenoptera", "dog_breeds", "caltech101", "cifar10"])
def test_a_data_set_trains_from_its_official_archive(choice: str, served: Official, tmp_path: Path) -> None:
    recipe = arguments(served)[choice]()
    places = [f"data.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'outputs'}"]
    assert launch([*recipe, *SMALL, *places]) == 0
    metrics = json.loads((only_run(tmp_path / "outputs") / "metrics.json").read_text())
    assert metrics["test"]["count"] > 0


def test_hotdog_keeps_its_test_images_and_cuts_validation_images_from_train(served: Official, tmp_path: Path) -> None:
    table = samples(served("hotdog", official.hotdog(train=20, test=5)), tmp_path)
    assert table.classes == ("hotdog", "not-hotdog")
    assert table.count_per_split() == {"train": 36, "val": 4, "test": 10}
    assert {one.path.split("/")[0] for one in table.samples if one.split == "test"} == {"test"}


def test_hymenoptera_passes_over_its_stray_file(served: Official, tmp_path: Path) -> None:
    table = samples(served("hymenoptera", official.hymenoptera()), tmp_path)
    assert table.count_per_split() == {"train": 16, "val": 4, "test": 8}
    assert table.ignored_files == ("train/ants/imageNotFound.gif",)


def test_dog_breeds_are_split_breed_by_breed(served: Official, tmp_path: Path) -> None:
    table = samples(served("dog_breeds", tiny_dogs(), "archives.tiny", "dataset.variant=tiny"), tmp_path)
    assert table.classes == BREEDS
    assert per_class(table, "train") == dict.fromkeys(BREEDS, 8)
    assert per_class(table, "val") == per_class(table, "test") == dict.fromkeys(BREEDS, 1)
    labels = (table.root / "labels.csv").read_text()
    assert all(f"{Path(one.path).stem},{table.classes[one.label]}\n" in labels for one in table.samples)


@pytest.mark.parametrize("folder", ["", "dog-breed-identification/"])
@pytest.mark.parametrize("packed", [True, False])
def test_dog_breeds_are_read_from_a_copy_in_kaggles_layout(folder: str, packed: bool, tmp_path: Path) -> None:
    root = written(tmp_path / "copy", official.dog_breeds(folder))
    if packed:
        root = tmp_path / "dog-breed-identification.zip"
        root.write_bytes(official.zipped(official.dog_breeds(folder)))
    table = samples(["dataset=dog_breeds", f"dataset.root={root}"], tmp_path / "cache")
    assert table.count_per_split() == {"train": 32, "val": 4, "test": 4}


def test_a_copy_of_the_tiny_dog_breeds_needs_no_variant(tmp_path: Path) -> None:
    root = written(tmp_path, official.dog_breeds("kaggle_dog_tiny/"))
    assert samples(["dataset=dog_breeds", f"dataset.root={root}"], tmp_path).root == root / "kaggle_dog_tiny"


def test_unlabelled_dogs_are_no_samples_not_passed_over_and_within_reach(tmp_path: Path) -> None:
    root = written(tmp_path, official.dog_breeds(unlabelled=3))
    recipe = compose_recipe(["dataset=dog_breeds", f"dataset.root={root}"])
    assert isinstance(recipe.dataset, CsvDatasetConfig)
    assert recipe.dataset.unlabelled is not None
    table = load_samples(recipe.dataset, 0, tmp_path, None)
    assert not any(one.path.startswith("test/") for one in table.samples)
    assert table.ignored_files == ()
    assert len(list((table.root / recipe.dataset.unlabelled).glob("*.jpg"))) == 3


def test_caltech101_is_unpacked_twice_and_cut_in_half_and_quarters(served: Official, tmp_path: Path) -> None:
    table = samples(served("caltech101", official.caltech101(CALTECH)), tmp_path)
    assert table.classes == tuple(sorted(CALTECH))
    assert per_class(table, "train") == {"Faces": 6, "Faces_easy": 4, "chair": 20}
    assert per_class(table, "val") == per_class(table, "test") == {"Faces": 3, "Faces_easy": 2, "chair": 10}
    assert table.ignored_files == ()
    assert [path.name for path in table.root.parent.iterdir()] == ["101_ObjectCategories"]


def test_the_background_of_caltech101_is_a_class_on_demand(served: Official, tmp_path: Path) -> None:
    recipe = served("caltech101", official.caltech101(CALTECH), "archive", "dataset.exclude=[]")
    assert "BACKGROUND_Google" in samples(recipe, tmp_path).classes


def test_caltech101_is_cut_by_images_a_class_as_papers_do(served: Official, tmp_path: Path) -> None:
    recipe = served("caltech101", official.caltech101(CALTECH), "archive", "dataset.per_class=4")
    table = samples(recipe, tmp_path)
    assert per_class(table, "train") == dict.fromkeys(CALTECH, 4)
    assert per_class(table, "val") == {"Faces": 2, "Faces_easy": 1, "chair": 9}
    assert per_class(table, "test") == {"Faces": 6, "Faces_easy": 3, "chair": 27}


@pytest.mark.parametrize("form", ["zip", "unpacked zip", "tar.gz", "folder", "parent"])
def test_a_copy_of_caltech101_is_taken_in_every_form(form: str, tmp_path: Path) -> None:
    images = official.class_images("101_ObjectCategories", CALTECH)
    inner = {"caltech-101/101_ObjectCategories.tar.gz": official.tarred(images)}
    (tmp_path / "caltech-101.zip").write_bytes(official.caltech101(CALTECH))
    root = {
        "zip": tmp_path / "caltech-101.zip",
        "unpacked zip": written(tmp_path / "unpacked", inner),
        "tar.gz": written(tmp_path / "inner", inner) / "caltech-101" / "101_ObjectCategories.tar.gz",
        "folder": written(tmp_path / "images", images) / "101_ObjectCategories",
        "parent": tmp_path / "images",
    }[form]
    table = samples(["dataset=caltech101", f"dataset.root={root}"], tmp_path / "cache")
    assert table.count_per_split() == {"train": 30, "val": 15, "test": 15}
    assert table.root.name == "101_ObjectCategories"


def test_cifar10_becomes_pictures_of_every_class(served: Official, tmp_path: Path) -> None:
    table = samples(served("cifar10", official.tarred(official.cifar_files(each=2))), tmp_path)
    assert table.classes == CIFAR_CLASSES
    assert per_class(table, "train") == dict.fromkeys(CIFAR_CLASSES, 9)
    assert per_class(table, "val") == dict.fromkeys(CIFAR_CLASSES, 1)
    assert per_class(table, "test") == dict.fromkeys(CIFAR_CLASSES, 2)
    with Image.open(table.root / table.samples[0].path) as opened:
        assert (opened.size, opened.mode) == ((32, 32), "RGB")


@pytest.mark.parametrize("form", ["folder", "parent", "tar.gz", "pictures"])
def test_a_copy_of_cifar10_is_taken_in_every_form(form: str, served: Official, tmp_path: Path) -> None:
    written(tmp_path / "copy", official.cifar_files(each=2))
    (tmp_path / "cifar.tar.gz").write_bytes(official.tarred(official.cifar_files(each=2)))
    roots = {"folder": "copy/cifar-10-batches-py", "parent": "copy", "tar.gz": "cifar.tar.gz"}
    by_pickles = ["dataset=cifar10", f"dataset.root={tmp_path / roots.get(form, 'copy')}"]
    table = samples(by_pickles, tmp_path / "cache")
    if form == "pictures":
        assert samples(["dataset=cifar10", f"dataset.root={table.root}"], tmp_path / "other") == table
    assert table.count_per_split() == {"train": 90, "val": 10, "test": 20}


def test_a_data_set_from_kaggle_or_nowhere_is_a_valid_recipe_without_a_network() -> None:
    assert compose_recipe(["dataset=dog_breeds"]).dataset.name == "dog_breeds"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["dataset=dog_breeds", "dataset.variant=tny"], ["dataset.variant=tny", "full, tiny", "dataset.variant=tiny"]),
        (["dataset=csv", "dataset.root=.", "dataset.variant=tiny"], ["no such variant", "dataset.variant=null"]),
        (["dataset=csv", "dataset.root=no/such"], ["dataset.root=no/such", "a folder, or an archive"]),
        (["dataset=hotdog", "dataset.archive.checksum=null"], ["dataset.archive.checksum=null", "sha256:HEX"]),
        (["dataset=dog_breeds", "dataset.fractions.val=0.95"], ["leave nothing to train on"]),
        (["dataset=caltech101", "dataset.per_class=0"], ["dataset.per_class=0", "greater than 0"]),
    ],
)
def test_settings_that_cannot_be_are_told(overrides: list[str], told: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        compose_recipe(overrides)
    assert [words for words in told if words not in str(caught.value)] == []
