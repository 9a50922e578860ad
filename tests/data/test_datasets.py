"""Every data set of `conf/dataset/` loads from an archive in its official layout, and trains."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import get_only_run
from tests.data import official
from tests.data.official import BREEDS, CIFAR_CLASSES, write_files
from tests.data.server import Server
from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.config.schema import CsvDatasetConfig
from thaw.data.factory import load_samples
from thaw.data.samples import Samples

CALTECH = {"Faces": 12, "Faces_easy": 8, "chair": 40}
SMALL_TRAINING = (
    "dataset.image_size=32",
    "trainer.epochs=1",
    "trainer.batch_size=8",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
)
ServeArchive = Callable[..., list[str]]


@pytest.fixture
def serve_archive(server: Server) -> ServeArchive:
    """Return a function that serves `content` as the archive of a data set and returns the overrides to use it."""

    def overrides(choice: str, content: bytes, key: str = "archive", *more: str) -> list[str]:
        url = server.serve(f"/{choice}.archive", content)
        checksum = hashlib.sha256(content).hexdigest()
        address = [f"dataset.{key}.url={url}", f"dataset.{key}.checksum=sha256:{checksum}"]
        return [f"dataset={choice}", *address, *more]

    return overrides


def load(overrides: list[str], cache: Path, seed: int = 0) -> Samples:
    return load_samples(compose_recipe([*overrides, f"data.cache_dir={cache}", f"seed={seed}"]))


def count_per_class(samples: Samples, split: str) -> dict[str, int]:
    return dict(Counter(samples.classes[samples.samples[position].label] for position in samples.get_positions(split)))


def make_tiny_dogs_zip() -> bytes:
    return official.make_zip(official.make_dog_breeds_files("kaggle_dog_tiny/"))


def make_override_functions(serve_archive: ServeArchive) -> dict[str, Callable[[], list[str]]]:
    return {
        "hotdog": lambda: serve_archive("hotdog", official.make_hotdog_zip()),
        "hymenoptera": lambda: serve_archive("hymenoptera", official.make_hymenoptera_zip()),
        "dog_breeds": lambda: serve_archive(
            "dog_breeds", make_tiny_dogs_zip(), "archives.tiny", "dataset.variant=tiny"
        ),
        "caltech101": lambda: serve_archive("caltech101", official.make_caltech101_zip(CALTECH)),
        "cifar10": lambda: serve_archive("cifar10", official.make_tar(official.make_cifar_files(each=2))),
    }


@pytest.mark.parametrize("choice", ["hotdog", "hymenoptera", "dog_breeds", "caltech101", "cifar10"])
def test_a_data_set_trains_from_its_official_archive(choice: str, serve_archive: ServeArchive, tmp_path: Path) -> None:
    recipe = make_override_functions(serve_archive)[choice]()
    folders = [f"data.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'outputs'}"]
    assert launch([*recipe, *SMALL_TRAINING, *folders]) == 0
    metrics = json.loads((get_only_run(tmp_path / "outputs") / "metrics.json").read_text())
    assert metrics["test"]["count"] > 0


def test_hotdog_keeps_its_test_images_and_splits_validation_images_from_train(
    serve_archive: ServeArchive, tmp_path: Path
) -> None:
    samples = load(serve_archive("hotdog", official.make_hotdog_zip(train=20, test=5)), tmp_path)
    assert samples.classes == ("hotdog", "not-hotdog")
    assert samples.count_per_split() == {"train": 36, "val": 4, "test": 10}
    assert {sample.path.split("/")[0] for sample in samples.samples if sample.split == "test"} == {"test"}


def test_the_placeholder_of_hymenoptera_is_excluded(serve_archive: ServeArchive, tmp_path: Path) -> None:
    samples = load(serve_archive("hymenoptera", official.make_hymenoptera_zip()), tmp_path)
    assert samples.count_per_split() == {"train": 16, "val": 4, "test": 8}
    assert samples.ignored_files == {}


def test_dog_breeds_are_stratified_by_breed(serve_archive: ServeArchive, tmp_path: Path) -> None:
    samples = load(serve_archive("dog_breeds", make_tiny_dogs_zip(), "archives.tiny", "dataset.variant=tiny"), tmp_path)
    assert samples.classes == BREEDS
    assert count_per_class(samples, "train") == dict.fromkeys(BREEDS, 8)
    assert count_per_class(samples, "val") == count_per_class(samples, "test") == dict.fromkeys(BREEDS, 1)
    labels = (samples.root / "labels.csv").read_text()
    assert all(f"{Path(sample.path).stem},{samples.classes[sample.label]}\n" in labels for sample in samples.samples)


@pytest.mark.parametrize("folder", ["", "dog-breed-identification/"])
@pytest.mark.parametrize("is_archive", [True, False])
def test_dog_breeds_are_read_from_a_copy_in_kaggles_layout(folder: str, is_archive: bool, tmp_path: Path) -> None:
    root = write_files(tmp_path / "copy", official.make_dog_breeds_files(folder))
    if is_archive:
        root = tmp_path / "dog-breed-identification.zip"
        root.write_bytes(official.make_zip(official.make_dog_breeds_files(folder)))
    samples = load(["dataset=dog_breeds", f"dataset.root={root}"], tmp_path / "cache")
    assert samples.count_per_split() == {"train": 32, "val": 4, "test": 4}


def test_a_copy_of_the_tiny_dog_breeds_needs_no_variant(tmp_path: Path) -> None:
    root = write_files(tmp_path, official.make_dog_breeds_files("kaggle_dog_tiny/"))
    assert load(["dataset=dog_breeds", f"dataset.root={root}"], tmp_path).root == root / "kaggle_dog_tiny"


def test_unlabelled_dogs_are_neither_samples_nor_ignored_files(tmp_path: Path) -> None:
    root = write_files(tmp_path, official.make_dog_breeds_files(unlabelled=3))
    recipe = compose_recipe(["dataset=dog_breeds", f"dataset.root={root}", f"data.cache_dir={tmp_path}"])
    assert isinstance(recipe.dataset, CsvDatasetConfig)
    assert recipe.dataset.unlabelled is not None
    samples = load_samples(recipe)
    assert not any(sample.path.startswith("test/") for sample in samples.samples)
    assert samples.ignored_files == {}
    assert len(list((samples.root / recipe.dataset.unlabelled).glob("*.jpg"))) == 3


def test_caltech101_is_extracted_twice_and_split_in_half_and_quarters(
    serve_archive: ServeArchive, tmp_path: Path
) -> None:
    samples = load(serve_archive("caltech101", official.make_caltech101_zip(CALTECH)), tmp_path)
    assert samples.classes == tuple(sorted(CALTECH))
    assert count_per_class(samples, "train") == {"Faces": 6, "Faces_easy": 4, "chair": 20}
    assert (
        count_per_class(samples, "val")
        == count_per_class(samples, "test")
        == {"Faces": 3, "Faces_easy": 2, "chair": 10}
    )
    assert samples.ignored_files == {}
    assert [path.name for path in samples.root.parent.iterdir()] == ["101_ObjectCategories"]


def test_the_background_of_caltech101_can_be_a_class(serve_archive: ServeArchive, tmp_path: Path) -> None:
    recipe = serve_archive("caltech101", official.make_caltech101_zip(CALTECH), "archive", "dataset.exclude=[]")
    assert "BACKGROUND_Google" in load(recipe, tmp_path).classes


def test_caltech101_can_be_split_by_images_per_class(serve_archive: ServeArchive, tmp_path: Path) -> None:
    recipe = serve_archive("caltech101", official.make_caltech101_zip(CALTECH), "archive", "dataset.per_class=4")
    samples = load(recipe, tmp_path)
    assert count_per_class(samples, "train") == dict.fromkeys(CALTECH, 4)
    assert count_per_class(samples, "val") == {"Faces": 2, "Faces_easy": 1, "chair": 9}
    assert count_per_class(samples, "test") == {"Faces": 6, "Faces_easy": 3, "chair": 27}


@pytest.mark.parametrize("form", ["zip", "extracted zip", "tar.gz", "folder", "parent"])
def test_a_copy_of_caltech101_is_read_in_every_form(form: str, tmp_path: Path) -> None:
    images = official.make_class_images("101_ObjectCategories", CALTECH)
    inner = {"caltech-101/101_ObjectCategories.tar.gz": official.make_tar(images)}
    (tmp_path / "caltech-101.zip").write_bytes(official.make_caltech101_zip(CALTECH))
    root = {
        "zip": tmp_path / "caltech-101.zip",
        "extracted zip": write_files(tmp_path / "extracted", inner),
        "tar.gz": write_files(tmp_path / "inner", inner) / "caltech-101" / "101_ObjectCategories.tar.gz",
        "folder": write_files(tmp_path / "images", images) / "101_ObjectCategories",
        "parent": tmp_path / "images",
    }[form]
    samples = load(["dataset=caltech101", f"dataset.root={root}"], tmp_path / "cache")
    assert samples.count_per_split() == {"train": 30, "val": 15, "test": 15}
    assert samples.root.name == "101_ObjectCategories"


def test_cifar10_becomes_images_of_every_class(serve_archive: ServeArchive, tmp_path: Path) -> None:
    samples = load(serve_archive("cifar10", official.make_tar(official.make_cifar_files(each=2))), tmp_path)
    assert samples.classes == CIFAR_CLASSES
    assert count_per_class(samples, "train") == dict.fromkeys(CIFAR_CLASSES, 9)
    assert count_per_class(samples, "val") == dict.fromkeys(CIFAR_CLASSES, 1)
    assert count_per_class(samples, "test") == dict.fromkeys(CIFAR_CLASSES, 2)
    with Image.open(samples.root / samples.samples[0].path) as image:
        assert (image.size, image.mode) == ((32, 32), "RGB")


@pytest.mark.parametrize("form", ["folder", "parent", "tar.gz", "images"])
def test_a_copy_of_cifar10_is_read_in_every_form(form: str, serve_archive: ServeArchive, tmp_path: Path) -> None:
    write_files(tmp_path / "copy", official.make_cifar_files(each=2))
    (tmp_path / "cifar.tar.gz").write_bytes(official.make_tar(official.make_cifar_files(each=2)))
    roots = {"folder": "copy/cifar-10-batches-py", "parent": "copy", "tar.gz": "cifar.tar.gz"}
    overrides = ["dataset=cifar10", f"dataset.root={tmp_path / roots.get(form, 'copy')}"]
    samples = load(overrides, tmp_path / "cache")
    if form == "images":
        assert load(["dataset=cifar10", f"dataset.root={samples.root}"], tmp_path / "other") == samples
    assert samples.count_per_split() == {"train": 90, "val": 10, "test": 20}


def test_a_recipe_of_a_kaggle_data_set_is_valid_without_a_network() -> None:
    assert compose_recipe(["dataset=dog_breeds"]).dataset.name == "dog_breeds"


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["dataset=dog_breeds", "dataset.variant=tny"], ["dataset.variant=tny", "full, tiny", "dataset.variant=tiny"]),
        (["dataset=csv", "dataset.root=.", "dataset.variant=tiny"], ["no such variant", "dataset.variant=null"]),
        (["dataset=csv", "dataset.root=no/such"], ["dataset.root=no/such", "a folder, or an archive"]),
        (["dataset=hotdog", "dataset.archive.checksum=null"], ["dataset.archive.checksum=null", "sha256:HEX"]),
        (["dataset=dog_breeds", "dataset.fractions.val=0.95"], ["leave nothing to train on"]),
        (["dataset=caltech101", "dataset.per_class=0"], ["dataset.per_class=0", "greater than 0"]),
    ],
)
def test_invalid_settings_are_reported(overrides: list[str], messages: list[str]) -> None:
    with pytest.raises(UserError) as error_info:
        compose_recipe(overrides)
    assert [message for message in messages if message not in str(error_info.value)] == []
