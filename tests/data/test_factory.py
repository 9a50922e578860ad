"""Recipes of data sets -> samples, wherever the images have to come from."""

from __future__ import annotations

import hashlib
import shutil
import socket
from pathlib import Path

import pytest

from tests.data.pictures import class_folders
from tests.data.server import Server
from thaw.config.errors import UserError
from thaw.config.schema import Archive, CaptchaDatasetConfig, FolderDatasetConfig, SplitFolders, SplitFractions
from thaw.data.factory import load_samples
from thaw.data.samples import Samples

OFFICIAL = {"train": 12, "val": 8, "test": 10}  # what the recipe makes of 10 train and 5 val images a class


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    """`insects_data/train` and `/val`, as the official hymenoptera archive has them."""
    for number, (split, count) in enumerate({"train": 10, "val": 5}.items()):
        class_folders(tmp_path / "made" / "insects_data" / split, {"ants": count, "bees": count}, 100 * number)
    return tmp_path / "made"


@pytest.fixture
def archive(insects: Path, tmp_path: Path) -> Path:
    return Path(shutil.make_archive(str(tmp_path / "insects"), "zip", insects))


def recipe(archive: Path, address: str, root: Path | None = None) -> FolderDatasetConfig:
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


def own_folder(root: Path) -> FolderDatasetConfig:
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


def captcha(**changes: object) -> CaptchaDatasetConfig:
    values = {"characters": "ABC", "train": 3, "val": 2, "test": 1, "side": 32, "draw_seed": 0}
    return CaptchaDatasetConfig(kind="captcha", name="captcha", image_size=32, crop=1.0, **{**values, **changes})


def nobody() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def assert_official(samples: Samples) -> None:
    assert samples.classes == ("ants", "bees")
    assert samples.count_per_split() == OFFICIAL
    assert {sample.path.split("/")[0] for sample in samples.samples if sample.split == "test"} == {"val"}
    assert all((samples.root / sample.path).is_file() for sample in samples.samples)


def test_captcha_samples_are_drawn_with_the_counts_of_the_recipe(tmp_path: Path) -> None:
    samples = load_samples(captcha(), 0, tmp_path, None)
    assert samples.classes == ("A", "B", "C")
    assert samples.count_per_split() == {"train": 9, "val": 6, "test": 3}
    assert samples.ignored_files == ()


def test_captcha_samples_are_the_same_for_every_seed_of_a_run(tmp_path: Path) -> None:
    first, second = (load_samples(captcha(), seed, tmp_path, None) for seed in (0, 1))
    assert first == second
    assert load_samples(captcha(draw_seed=1), 0, tmp_path, None).fingerprint != first.fingerprint


def test_captcha_without_validation_images_has_none(tmp_path: Path) -> None:
    assert load_samples(captcha(val=0), 0, tmp_path, None).count_per_split()["val"] == 0


def test_a_folder_of_one_s_own_is_read_where_it_is(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "own", {"cat": 10, "dog": 10})
    samples = load_samples(own_folder(root), 0, tmp_path / "cache", None)
    assert samples.count_per_split() == {"train": 12, "val": 4, "test": 4}
    assert samples.root == root
    assert not (tmp_path / "cache").exists()


def test_the_seed_cuts_the_splits_of_a_folder(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "own", {"cat": 10, "dog": 10})
    cut = [load_samples(own_folder(root), seed, tmp_path / "cache", None).samples for seed in (0, 0, 1)]
    assert cut[0] == cut[1]
    assert cut[0] != cut[2]


def test_an_archive_is_fetched_unpacked_and_split(server: Server, archive: Path, tmp_path: Path) -> None:
    server.serving(f"/tutorial/{archive.name}", archive.read_bytes())
    assert_official(load_samples(recipe(archive, server.address), 0, tmp_path / "cache", None))


def test_an_archive_is_fetched_once(server: Server, archive: Path, tmp_path: Path) -> None:
    server.serving(f"/tutorial/{archive.name}", archive.read_bytes())
    first, second = (load_samples(recipe(archive, server.address), 0, tmp_path / "cache", None) for _ in range(2))
    assert first == second
    assert len(server.asked) == 1


def test_what_was_unpacked_is_enough_where_the_download_is_gone(server: Server, archive: Path, tmp_path: Path) -> None:
    server.serving(f"/tutorial/{archive.name}", archive.read_bytes())
    load_samples(recipe(archive, server.address), 0, tmp_path / "cache", None)
    shutil.rmtree(tmp_path / "cache" / "downloads")
    server.files.clear()
    assert_official(load_samples(recipe(archive, server.address), 0, tmp_path / "cache", None))


def test_an_archive_comes_from_a_mirror(archive: Path, tmp_path: Path) -> None:
    samples = load_samples(recipe(archive, nobody()), 0, tmp_path / "cache", mirror=archive.parent.as_uri())
    assert_official(samples)


@pytest.mark.parametrize("inner", ["made/insects_data", "made"], ids=["the folder", "its parent"])
def test_an_unpacked_copy_is_read_and_nothing_fetched(
    server: Server, archive: Path, insects: Path, tmp_path: Path, inner: str
) -> None:
    samples = load_samples(recipe(archive, server.address, tmp_path / inner), 0, tmp_path / "cache", None)
    assert_official(samples)
    assert samples.root == insects / "insects_data"
    assert server.asked == []


def test_a_copy_of_the_archive_itself_is_unpacked_and_nothing_fetched(
    server: Server, archive: Path, tmp_path: Path
) -> None:
    samples = load_samples(recipe(archive, server.address, archive), 0, tmp_path / "cache", None)
    assert_official(samples)
    assert tmp_path / "cache" in samples.root.parents
    assert server.asked == []


def test_an_archive_of_one_s_own_is_unpacked_anew_when_it_changes(tmp_path: Path) -> None:
    sizes = set()
    for names in (("cat", "dog"), ("cow", "hen")):
        root = class_folders(tmp_path / names[0], dict.fromkeys(names, 10))
        file = Path(shutil.make_archive(str(tmp_path / "own"), "tar", root))
        sizes.add(file.stat().st_size)
        assert load_samples(own_folder(file), 0, tmp_path / "cache", None).classes == names
    assert len(sizes) == 1  # only its time tells the second from the first


def test_copy_and_download_have_the_same_fingerprint(
    server: Server, archive: Path, insects: Path, tmp_path: Path
) -> None:
    server.serving(f"/tutorial/{archive.name}", archive.read_bytes())
    fetched = load_samples(recipe(archive, server.address), 3, tmp_path / "cache", None)
    copied = load_samples(recipe(archive, server.address, insects), 3, tmp_path / "cache", None)
    assert fetched.fingerprint == copied.fingerprint
    assert fetched.samples == copied.samples


def test_without_a_network_the_message_names_address_checksum_and_where_to_put_the_file(
    archive: Path, tmp_path: Path
) -> None:
    dataset = recipe(archive, nobody())
    assert dataset.archive is not None
    with pytest.raises(UserError, match="the data set insects could not be fetched") as caught:
        load_samples(dataset, 0, tmp_path / "cache", None)
    message = str(caught.value)
    assert dataset.archive.url in message
    assert dataset.archive.checksum in message
    assert str(tmp_path / "cache" / "downloads" / archive.name) in message
    assert "refused" in message
    assert "data.mirror=URL" in message
    assert "dataset.root=DIR" in message


def test_a_file_put_where_the_message_says_is_taken(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    shutil.copy(archive, tmp_path / "cache" / "downloads" / archive.name)
    assert_official(load_samples(recipe(archive, nobody()), 0, tmp_path / "cache", None))


def test_a_missing_archive_is_a_fault_that_says_so(server: Server, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="404"):
        load_samples(recipe(archive, server.address), 0, tmp_path / "cache", None)
    assert not (tmp_path / "cache" / "datasets").exists()
