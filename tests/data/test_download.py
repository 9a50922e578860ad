"""Files from servers that break off, send the wrong file, fall silent or are not there."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import socket
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.data.server import BreaksOff, Server, Silent
from thaw.config.errors import UserError
from thaw.data import download as fetch
from thaw.data.download import DownloadError, download, has_checksum

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()

pytestmark = pytest.mark.usefixtures("_no_waiting")


@pytest.fixture
def url(server: Server) -> str:
    return server.serving("/files/images.zip", CONTENT)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "images.zip"


def ranges(server: Server) -> list[str | None]:
    return [asked for _, asked in server.asked]


def leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if not path.name.endswith(".lock"))


def closed_address() -> str:
    """Where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_file_with_the_right_checksum_arrives_whole_and_leaves_nothing_beside_it(url: str, target: Path) -> None:
    assert download(url, SHA256, target) == target
    assert target.read_bytes() == CONTENT
    assert leftovers(target) == ["images.zip"]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_the_first_digits_of_a_checksum_will_do(url: str, target: Path, algorithm: str) -> None:
    digits = hashlib.new(algorithm, CONTENT).hexdigest()[:8]
    assert download(url, f"{algorithm}:{digits}", target).read_bytes() == CONTENT


def test_digits_from_the_middle_of_a_checksum_do_not_match(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert has_checksum(tmp_path / "file", SHA256[:15])
    assert not has_checksum(tmp_path / "file", "sha256:" + SHA256[9:17])


def test_a_file_with_another_checksum_is_not_kept_and_the_message_names_address_and_checksum(
    server: Server, url: str, target: Path
) -> None:
    server.files["/files/images.zip"] = b"not the file"
    with pytest.raises(DownloadError, match="another checksum") as caught:
        download(url, SHA256, target)
    assert url in str(caught.value)
    assert SHA256 in str(caught.value)
    assert leftovers(target) == []


def test_a_wrong_file_is_fetched_anew_from_its_start(server: Server, url: str, target: Path) -> None:
    server.mishaps = [b"an error page of a proxy"]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert ranges(server) == [None, None]


def test_a_download_that_breaks_off_is_continued_where_it_stopped(server: Server, url: str, target: Path) -> None:
    server.mishaps = [BreaksOff(100_000), BreaksOff(50_000)]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-"]


def test_a_download_that_broke_off_in_an_earlier_run_is_continued(
    server: Server, url: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.mishaps = [BreaksOff(100_000)]
    monkeypatch.setattr(fetch, "MAX_ATTEMPTS", 1)
    with pytest.raises(DownloadError, match="broke off after 100000 of 300000 bytes"):
        download(url, SHA256, target)
    assert not target.exists()
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert ranges(server)[1:] == ["bytes=100000-"]


def test_a_server_that_cannot_continue_sends_it_all_again(server: Server, url: str, target: Path) -> None:
    server.honours_range = False
    server.mishaps = [BreaksOff(100_000)]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_part_that_is_whole_already_becomes_the_file(server: Server, url: str, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("images.zip.part").write_bytes(CONTENT)
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert leftovers(target) == ["images.zip"]


@pytest.mark.parametrize("part", [b"other", b"x" * 400_000], ids=["shorter", "longer"])
def test_a_part_of_another_file_is_thrown_away(url: str, target: Path, part: bytes) -> None:
    target.parent.mkdir()
    target.with_name("images.zip.part").write_bytes(part)
    assert download(url, SHA256, target).read_bytes() == CONTENT


def test_a_missing_file_is_asked_for_once_and_named(server: Server, target: Path) -> None:
    with pytest.raises(DownloadError, match=f"{server.address}/none.zip: 404"):
        download(f"{server.address}/none.zip", SHA256, target)
    assert len(server.asked) == 1
    assert leftovers(target) == []


def test_a_server_in_trouble_is_asked_again(server: Server, url: str, target: Path) -> None:
    server.mishaps = [500, 503]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_server_that_stays_in_trouble_is_given_up(server: Server, url: str, target: Path) -> None:
    server.mishaps = [500] * 20
    with pytest.raises(DownloadError, match="500"):
        download(url, SHA256, target)
    assert len(server.asked) == fetch.MAX_ATTEMPTS


def test_a_server_that_falls_silent_is_asked_again(
    server: Server, url: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.3)
    server.mishaps = [Silent(1.0)]
    assert download(url, SHA256, target).read_bytes() == CONTENT


def test_where_nobody_listens_is_given_up_at_once_and_named(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError("waited for nobody")

    monkeypatch.setattr(fetch, "time", SimpleNamespace(sleep=sleep))
    address = closed_address()
    with pytest.raises(DownloadError, match=f"{address}/images.zip: .*refused"):
        download(f"{address}/images.zip", SHA256, target)


def test_a_mirror_is_asked_first_for_the_file_of_the_same_name(server: Server, url: str, target: Path) -> None:
    server.serving("/mirror/images.zip", CONTENT)
    assert download(url, SHA256, target, mirror=f"{server.address}/mirror/").read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/mirror/images.zip"]


def test_a_folder_can_be_the_mirror(server: Server, url: str, target: Path, tmp_path: Path) -> None:
    (tmp_path / "my mirror").mkdir()
    (tmp_path / "my mirror" / "images.zip").write_bytes(CONTENT)
    assert download(url, SHA256, target, mirror=(tmp_path / "my mirror").as_uri()).read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("mirror", ["empty folder", "no folder", "404", "nobody", "wrong file", "breaks off"])
def test_where_the_mirror_does_not_give_the_file_its_own_address_does(
    server: Server, url: str, target: Path, tmp_path: Path, mirror: str
) -> None:
    places = {
        "empty folder": tmp_path.as_uri(),
        "no folder": (tmp_path / "none").as_uri(),
        "404": f"{server.address}/mirror",
        "nobody": closed_address(),
        "wrong file": f"{server.address}/wrong",
        "breaks off": f"{server.address}/files",
    }
    server.serving("/wrong/images.zip", b"wrong")
    server.mishaps = [BreaksOff(9)] * fetch.MAX_ATTEMPTS if mirror == "breaks off" else []
    assert download(url, SHA256, target, mirror=places[mirror]).read_bytes() == CONTENT
    assert server.asked[-1][0] == "/files/images.zip"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc/self/mem, a file that cannot be read")
def test_a_mirror_on_a_disk_that_fails_is_passed_over_and_not_taken_for_a_full_cache(
    server: Server, tmp_path: Path
) -> None:
    url = server.serving("/mem", CONTENT)
    assert download(url, SHA256, tmp_path / "mem", mirror="file:///proc/self").read_bytes() == CONTENT


def test_the_message_says_what_mirror_and_address_answered(server: Server, target: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        download(f"{server.address}/none.zip", SHA256, target, mirror=tmp_path.as_uri())
    assert f"{tmp_path.as_uri()}/none.zip: " in str(caught.value)
    assert f"{server.address}/none.zip: 404" in str(caught.value)


def fetch_in_a_process(url: str, target: Path, together: Barrier) -> None:
    together.wait()
    assert download(url, SHA256, target).read_bytes() == CONTENT


def test_four_processes_that_ask_at_once_cause_one_download(server: Server, url: str, target: Path) -> None:
    server.mishaps = [Silent(0.5)]
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(4)
    processes = [spawn.Process(target=fetch_in_a_process, args=(url, target, together)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(server.asked) == 1


def test_a_file_that_is_there_and_right_is_not_fetched(server: Server, url: str, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert download(url, SHA256, target) == target
    assert server.asked == []


def test_a_file_that_is_there_and_wrong_is_replaced(url: str, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1])
    assert download(url, SHA256, target).read_bytes() == CONTENT


def test_a_wrong_file_stays_where_no_right_one_can_be_had(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"somebody's own file")
    with pytest.raises(DownloadError):
        download(f"{server.address}/none.zip", SHA256, target)
    assert target.read_bytes() == b"somebody's own file"


def test_a_folder_that_cannot_be_written_is_a_fault_of_the_user(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.cache=DIR"):
        download(url, SHA256, tmp_path / "file" / "images.zip")
