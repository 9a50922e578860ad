"""Dog breeds by Kaggle's client: a stand-in that does what the real one does, short of the network."""

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


class Client:
    """`kaggle.api` of the package kaggle 2.2: ends the program where it finds no credentials."""

    def __init__(self, credentials: bool = True, refusal: Exception | None = None) -> None:
        self.credentials, self.refusal, self.asked = credentials, refusal, 0

    def authenticate(self) -> None:
        if not self.credentials:
            print("Authentication required to call the Kaggle API.")
            raise SystemExit(1)

    def competition_download_files(self, competition: str, path: str, quiet: bool) -> None:
        self.asked += 1
        assert competition == COMPETITION
        if self.refusal:
            raise self.refusal
        (Path(path) / f"{competition}.zip").write_bytes(official.zipped(official.dog_breeds()))


def dogs(monkeypatch: pytest.MonkeyPatch, cache: Path, client: Client | None) -> Samples:
    monkeypatch.setitem(sys.modules, "kaggle", SimpleNamespace(api=client) if client else None)
    return load_samples(compose_recipe(["dataset=dog_breeds"]).dataset, 0, cache, None)


def refused(monkeypatch: pytest.MonkeyPatch, cache: Path, client: Client | None) -> str:
    with pytest.raises(UserError) as caught:
        dogs(monkeypatch, cache, client)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_the_client_s_archive_is_unpacked_and_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = Client()
    first, second = (dogs(monkeypatch, tmp_path, client) for _ in range(2))
    assert first == second
    assert first.count_per_split() == {"train": 32, "val": 4, "test": 4}
    assert (first.root / "test").is_dir()
    assert client.asked == 1
    assert list((tmp_path / "downloads").glob("*.zip"))


@pytest.mark.parametrize("client", [None, Client(credentials=False)], ids=["no package", "no credentials"])
def test_without_package_or_credentials_everything_to_be_done_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, client: Client | None, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(monkeypatch, tmp_path, client)
    for words in (
        "no credentials" if client else "the package kaggle is not installed",
        'pip install "thaw[kaggle]"',
        "KAGGLE_USERNAME and KAGGLE_KEY",
        "~/.kaggle/kaggle.json",
        "KAGGLE_API_TOKEN",
        f"accept the competition's rules at https://www.kaggle.com/competitions/{COMPETITION}/rules",
        "dataset.root=",
        "dataset.variant=tiny",
    ):
        assert words in told
    assert capsys.readouterr().out == ""


def test_a_refusal_of_kaggle_s_is_told_with_its_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = Client(refusal=OSError("403 Client Error: Forbidden"))
    assert "403 Client Error: Forbidden" in refused(monkeypatch, tmp_path, client)


def test_a_connection_that_breaks_off_is_not_blamed_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = refused(monkeypatch, tmp_path, Client(refusal=ConnectionResetError(104, "Connection reset by peer")))
    assert "Connection reset by peer" in told
    assert "dataset.variant=tiny" in told


def test_a_full_disk_is_no_fault_of_kaggle_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = refused(monkeypatch, tmp_path, Client(refusal=OSError(28, "No space left on device")))
    assert "the cache cannot be written" in told
