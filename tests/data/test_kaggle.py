"""Dog breeds are downloaded by Kaggle's client, here a stand-in without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.data import official
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.data.factory import load_samples
from thaw.data.samples import Samples

COMPETITION = "dog-breed-identification"


class FakeClient:
    """Behave like `kaggle.api` of the package kaggle 2.2: exit if there are no credentials."""

    def __init__(self, credentials: bool = True, refusal: Exception | None = None) -> None:
        self.credentials, self.refusal, self.num_downloads = credentials, refusal, 0

    def authenticate(self) -> None:
        if not self.credentials:
            print("Authentication required to call the Kaggle API.")
            raise SystemExit(1)

    def competition_download_files(self, competition: str, path: str, quiet: bool) -> None:
        self.num_downloads += 1
        assert competition == COMPETITION
        if self.refusal:
            raise self.refusal
        (Path(path) / f"{competition}.zip").write_bytes(official.make_zip(official.make_dog_breeds_files()))


def load_dog_breeds(monkeypatch: pytest.MonkeyPatch, cache: Path, client: FakeClient | None) -> Samples:
    monkeypatch.setitem(sys.modules, "kaggle", SimpleNamespace(api=client) if client else None)
    return load_samples(compose_recipe(["dataset=dog_breeds", f"data.cache_dir={cache}"]))


def load_and_get_error(monkeypatch: pytest.MonkeyPatch, cache: Path, client: FakeClient | None) -> str:
    with pytest.raises(UserError) as error_info:
        load_dog_breeds(monkeypatch, cache, client)
    assert len(error_info.value.problems) == 1
    return str(error_info.value)


def test_the_archive_is_downloaded_and_extracted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = FakeClient()
    first, second = (load_dog_breeds(monkeypatch, tmp_path, client) for _ in range(2))
    assert first == second
    assert first.count_per_split() == {"train": 32, "val": 4, "test": 4}
    assert (first.root / "test").is_dir()
    assert client.num_downloads == 1
    assert list((tmp_path / "downloads").glob("*.zip"))


@pytest.mark.parametrize("client", [None, FakeClient(credentials=False)], ids=["no package", "no credentials"])
def test_without_package_or_credentials_all_steps_are_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, client: FakeClient | None, capsys: pytest.CaptureFixture[str]
) -> None:
    message = load_and_get_error(monkeypatch, tmp_path, client)
    for text in (
        "no Kaggle credentials" if client else "the package kaggle is not installed",
        'pip install "thaw[kaggle]"',
        "KAGGLE_USERNAME and KAGGLE_KEY",
        "~/.kaggle/kaggle.json",
        "KAGGLE_API_TOKEN",
        f"accept the competition's rules at https://www.kaggle.com/competitions/{COMPETITION}/rules",
        "dataset.root=",
        "dataset.variant=tiny",
    ):
        assert text in message
    assert capsys.readouterr().out == ""


def test_a_rejection_by_kaggle_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = FakeClient(refusal=OSError("403 FakeClient Error: Forbidden"))
    assert "403 FakeClient Error: Forbidden" in load_and_get_error(monkeypatch, tmp_path, client)


def test_a_lost_connection_is_not_reported_as_a_disk_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    message = load_and_get_error(
        monkeypatch, tmp_path, FakeClient(refusal=ConnectionResetError(104, "Connection reset by peer"))
    )
    assert "Connection reset by peer" in message
    assert "dataset.variant=tiny" in message


def test_a_full_disk_is_not_reported_as_an_error_of_kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    message = load_and_get_error(monkeypatch, tmp_path, FakeClient(refusal=OSError(28, "No space left on device")))
    assert "the cache cannot be written" in message
