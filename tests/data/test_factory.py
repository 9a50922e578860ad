"""Samples are loaded from drawn, downloaded, extracted or local images."""

from __future__ import annotations

import functools
import hashlib
import shutil
import socket
from pathlib import Path

import pytest

from tests.data.pictures import write_class_folders
from tests.data.server import Server
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.config.schema import (
    Archive,
    CaptchaDatasetConfig,
    FolderDatasetConfig,
    Recipe,
    SplitFolders,
    SplitFractions,
)
from thaw.data.factory import load_samples
from thaw.data.samples import Samples

OFFICIAL_COUNTS = {"train": 12, "val": 8, "test": 10}  # splits of 10 train and 5 val images per class


@functools.cache
def compose_default_recipe() -> Recipe:
    return compose_recipe([])


def load(
    dataset: CaptchaDatasetConfig | FolderDatasetConfig, cache_dir: Path, seed: int = 0, mirror: str | None = None
) -> Samples:
    recipe = compose_default_recipe()
    data = recipe.data.model_copy(update={"cache_dir": str(cache_dir), "mirror": mirror})
    return load_samples(recipe.model_copy(update={"dataset": dataset, "seed": seed, "data": data}))


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    """Write `insects_data/train` and `/val`, as in the official hymenoptera archive."""
    for number, (split, count) in enumerate({"train": 10, "val": 5}.items()):
        write_class_folders(tmp_path / "images" / "insects_data" / split, {"ants": count, "bees": count}, 100 * number)
    return tmp_path / "images"


@pytest.fixture
def archive(insects: Path, tmp_path: Path) -> Path:
    return Path(shutil.make_archive(str(tmp_path / "insects"), "zip", insects))


def make_insects_config(archive: Path, address: str, root: Path | None = None) -> FolderDatasetConfig:
    checksum = "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest()
    return FolderDatasetConfig(
        kind="folder",
        name="insects",
        root=str(root) if root else None,
        archive=Archive(url=f"{address}/tutorial/{archive.name}", checksum=checksum, folder="insects_data"),
        splits=SplitFolders(train="train", val=None, test="val"),
        fractions=SplitFractions(val=0.4, test=0.0),
        image_size=None,
        crop=None,
    )


def make_folder_config(root: Path) -> FolderDatasetConfig:
    return FolderDatasetConfig(
        kind="folder",
        name="own",
        root=str(root),
        archive=None,
        splits=SplitFolders(train="train", val="val", test="test"),
        fractions=SplitFractions(val=0.2, test=0.2),
        image_size=None,
        crop=None,
    )


def make_captcha_config(**changes: object) -> CaptchaDatasetConfig:
    values = {"characters": "ABC", "train": 3, "val": 2, "test": 1, "side": 32, "draw_seed": 0}
    return CaptchaDatasetConfig(kind="captcha", name="captcha", image_size=32, crop=1.0, **{**values, **changes})


def find_closed_address() -> str:
    """Return an address where no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def assert_official(samples: Samples) -> None:
    assert samples.classes == ("ants", "bees")
    assert samples.count_per_split() == OFFICIAL_COUNTS
    assert {sample.path.split("/")[0] for sample in samples.samples if sample.split == "test"} == {"val"}
    assert all((samples.root / sample.path).is_file() for sample in samples.samples)


def test_captcha_samples_have_the_counts_of_the_recipe(tmp_path: Path) -> None:
    samples = load(make_captcha_config(), tmp_path)
    assert samples.classes == ("A", "B", "C")
    assert samples.count_per_split() == {"train": 9, "val": 6, "test": 3}
    assert samples.ignored_files == {}


def test_captcha_samples_do_not_depend_on_the_seed_of_the_run(tmp_path: Path) -> None:
    first, second = (load(make_captcha_config(), tmp_path, seed) for seed in (0, 1))
    assert first == second
    assert load(make_captcha_config(draw_seed=1), tmp_path).fingerprint != first.fingerprint


def test_captcha_without_validation_images_has_none(tmp_path: Path) -> None:
    assert load(make_captcha_config(val=0), tmp_path).count_per_split()["val"] == 0


def test_a_local_folder_is_read_in_place(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "own", {"cat": 10, "dog": 10})
    samples = load(make_folder_config(root), tmp_path / "cache")
    assert samples.count_per_split() == {"train": 12, "val": 4, "test": 4}
    assert samples.root == root
    assert not {path.name for path in (tmp_path / "cache").glob("*")} - {"indexes"}  # hashes of its files


def test_all_seeds_share_the_splits_of_a_folder(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "own", {"cat": 10, "dog": 10})
    fingerprints = [load(make_folder_config(root), tmp_path / "cache", seed).fingerprint for seed in (0, 1)]
    assert fingerprints[0] == fingerprints[1]


def test_each_seed_has_test_images_of_its_own_if_it_is_the_split_seed(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "own", {"cat": 10, "dog": 10})
    words = ["dataset=folder", f"dataset.root={root}", "dataset.split_seed=${seed}"]
    all_samples = [load_samples(compose_recipe([*words, f"seed={seed}"])) for seed in (0, 1)]
    tested = [{sample.path for sample in samples.samples if sample.split == "test"} for samples in all_samples]
    assert [len(paths) for paths in tested] == [4, 4]
    assert tested[0] != tested[1]


def test_an_archive_is_downloaded_extracted_and_split(server: Server, archive: Path, tmp_path: Path) -> None:
    server.serve(f"/tutorial/{archive.name}", archive.read_bytes())
    assert_official(load(make_insects_config(archive, server.address), tmp_path / "cache"))


def test_an_archive_is_downloaded_once(server: Server, archive: Path, tmp_path: Path) -> None:
    server.serve(f"/tutorial/{archive.name}", archive.read_bytes())
    first, second = (load(make_insects_config(archive, server.address), tmp_path / "cache") for _ in range(2))
    assert first == second
    assert len(server.requests) == 1


def test_the_extracted_folder_is_enough_without_the_download(server: Server, archive: Path, tmp_path: Path) -> None:
    server.serve(f"/tutorial/{archive.name}", archive.read_bytes())
    load(make_insects_config(archive, server.address), tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache" / "downloads")
    server.files.clear()
    assert_official(load(make_insects_config(archive, server.address), tmp_path / "cache"))


def test_an_archive_is_downloaded_from_a_mirror(archive: Path, tmp_path: Path) -> None:
    samples = load(
        make_insects_config(archive, find_closed_address()), tmp_path / "cache", mirror=archive.parent.as_uri()
    )
    assert_official(samples)


@pytest.mark.parametrize("inner", ["images/insects_data", "images"], ids=["the folder", "its parent"])
def test_an_extracted_copy_is_read_without_a_download(
    server: Server, archive: Path, insects: Path, tmp_path: Path, inner: str
) -> None:
    samples = load(make_insects_config(archive, server.address, tmp_path / inner), tmp_path / "cache")
    assert_official(samples)
    assert samples.root == insects / "insects_data"
    assert server.requests == []


def test_a_copy_of_the_archive_is_extracted_without_a_download(server: Server, archive: Path, tmp_path: Path) -> None:
    samples = load(make_insects_config(archive, server.address, archive), tmp_path / "cache")
    assert_official(samples)
    assert tmp_path / "cache" in samples.root.parents
    assert server.requests == []


def test_a_local_archive_is_extracted_again_after_a_change(tmp_path: Path) -> None:
    sizes = set()
    for names in (("cat", "dog"), ("cow", "hen")):
        root = write_class_folders(tmp_path / names[0], dict.fromkeys(names, 10))
        file = Path(shutil.make_archive(str(tmp_path / "own"), "tar", root))
        sizes.add(file.stat().st_size)
        assert load(make_folder_config(file), tmp_path / "cache").classes == names
    assert len(sizes) == 1  # only the modification time differs


def test_copy_and_download_have_the_same_fingerprint(
    server: Server, archive: Path, insects: Path, tmp_path: Path
) -> None:
    server.serve(f"/tutorial/{archive.name}", archive.read_bytes())
    downloaded = load(make_insects_config(archive, server.address), tmp_path / "cache", 3)
    copied = load(make_insects_config(archive, server.address, insects), tmp_path / "cache", 3)
    assert downloaded.fingerprint == copied.fingerprint
    assert downloaded.samples == copied.samples


def test_without_a_network_the_error_names_url_checksum_and_target_file(archive: Path, tmp_path: Path) -> None:
    dataset = make_insects_config(archive, find_closed_address())
    assert dataset.archive is not None
    with pytest.raises(UserError, match="the data set insects could not be downloaded") as error_info:
        load(dataset, tmp_path / "cache")
    message = str(error_info.value)
    assert dataset.archive.url in message
    assert dataset.archive.checksum in message
    assert str(tmp_path / "cache" / "downloads" / archive.name) in message
    assert "refused" in message
    assert "data.mirror=URL" in message
    assert "dataset.root=DIR" in message


def test_a_file_put_at_the_target_is_used(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    shutil.copy(archive, tmp_path / "cache" / "downloads" / archive.name)
    assert_official(load(make_insects_config(archive, find_closed_address()), tmp_path / "cache"))


def test_a_missing_archive_is_reported_with_the_status(server: Server, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="404"):
        load(make_insects_config(archive, server.address), tmp_path / "cache")
    assert not (tmp_path / "cache" / "datasets").exists()
