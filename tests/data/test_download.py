"""Downloads survive servers that disconnect, send the wrong file, stop responding or do not exist."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import socket
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.data.server import Delay, Disconnect, Raw, Server
from thaw.config.errors import UserError
from thaw.data import download as download_module
from thaw.data import transfer as transfer_module
from thaw.data.download import DownloadError, download, has_checksum

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()

pytestmark = pytest.mark.usefixtures("_no_waiting")


@pytest.fixture
def url(server: Server) -> str:
    return server.serve("/files/images.zip", CONTENT)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "images.zip"


def list_ranges(server: Server) -> list[str | None]:
    return [range_header for _, range_header in server.requests]


def list_files(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if not path.name.endswith(".lock"))


def find_closed_address() -> str:
    """Return an address where no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_complete_download_leaves_only_the_file(url: str, target: Path) -> None:
    assert download(url, SHA256, target) == target
    assert target.read_bytes() == CONTENT
    assert list_files(target) == ["images.zip"]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_a_prefix_of_the_checksum_is_enough(url: str, target: Path, algorithm: str) -> None:
    digits = hashlib.new(algorithm, CONTENT).hexdigest()[:8]
    assert download(url, f"{algorithm}:{digits}", target).read_bytes() == CONTENT


def test_digits_from_the_middle_of_a_checksum_do_not_match(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert has_checksum(tmp_path / "file", SHA256[:15])
    assert not has_checksum(tmp_path / "file", "sha256:" + SHA256[9:17])


def test_a_file_with_another_checksum_is_removed_and_the_error_names_url_and_checksum(
    server: Server, url: str, target: Path
) -> None:
    server.files["/files/images.zip"] = b"not the file"
    with pytest.raises(DownloadError, match="a checksum other than") as error_info:
        download(url, SHA256, target)
    assert url in str(error_info.value)
    assert SHA256 in str(error_info.value)
    assert list_files(target) == []


def test_a_wrong_file_is_downloaded_again_from_the_start(server: Server, url: str, target: Path) -> None:
    server.failures = [b"an error page of a proxy"]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert list_ranges(server) == [None, None]


def test_an_interrupted_download_resumes_where_it_stopped(server: Server, url: str, target: Path) -> None:
    server.failures = [Disconnect(100_000), Disconnect(50_000)]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert list_ranges(server) == [None, "bytes=100000-", "bytes=150000-"]


def test_a_download_that_an_earlier_run_started_is_resumed(
    server: Server, url: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.failures = [Disconnect(100_000)]
    monkeypatch.setattr(download_module, "MAX_ATTEMPTS", 1)
    with pytest.raises(DownloadError, match="connection closed after 100000 of 300000 bytes"):
        download(url, SHA256, target)
    assert not target.exists()
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert list_ranges(server)[1:] == ["bytes=100000-"]


def test_a_server_without_range_requests_sends_the_whole_file_again(server: Server, url: str, target: Path) -> None:
    server.supports_range = False
    server.failures = [Disconnect(100_000)]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_partial_file_that_is_complete_becomes_the_file(server: Server, url: str, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("images.zip.part").write_bytes(CONTENT)
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert list_files(target) == ["images.zip"]


@pytest.mark.parametrize("part", [b"other", b"x" * 400_000], ids=["shorter", "longer"])
def test_a_partial_file_of_another_file_is_discarded(url: str, target: Path, part: bytes) -> None:
    target.parent.mkdir()
    target.with_name("images.zip.part").write_bytes(part)
    assert download(url, SHA256, target).read_bytes() == CONTENT


def test_a_missing_file_is_requested_once_and_named(server: Server, target: Path) -> None:
    with pytest.raises(DownloadError, match=f"{server.address}/none.zip: 404"):
        download(f"{server.address}/none.zip", SHA256, target)
    assert len(server.requests) == 1
    assert list_files(target) == []


def test_server_errors_are_retried(server: Server, url: str, target: Path) -> None:
    server.failures = [500, 503]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_retries_are_limited(server: Server, url: str, target: Path) -> None:
    server.failures = [500] * 20
    with pytest.raises(DownloadError, match="500"):
        download(url, SHA256, target)
    assert len(server.requests) == download_module.MAX_ATTEMPTS


def test_a_timeout_is_retried(server: Server, url: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_module, "TIMEOUT_S", 0.3)
    server.failures = [Delay(1.0)]
    assert download(url, SHA256, target).read_bytes() == CONTENT


def test_a_refused_connection_is_not_retried(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError("waited before a useless retry")

    monkeypatch.setattr(download_module, "time", SimpleNamespace(sleep=sleep))
    address = find_closed_address()
    with pytest.raises(DownloadError, match=f"{address}/images.zip: .*refused"):
        download(f"{address}/images.zip", SHA256, target)


def test_a_mirror_is_tried_first(server: Server, url: str, target: Path) -> None:
    server.serve("/mirror/images.zip", CONTENT)
    assert download(url, SHA256, target, mirror=f"{server.address}/mirror/").read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/mirror/images.zip"]


def test_a_folder_can_be_the_mirror(server: Server, url: str, target: Path, tmp_path: Path) -> None:
    (tmp_path / "my mirror").mkdir()
    (tmp_path / "my mirror" / "images.zip").write_bytes(CONTENT)
    assert download(url, SHA256, target, mirror=(tmp_path / "my mirror").as_uri()).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("mirror", ["empty folder", "no folder", "404", "no server", "wrong file", "disconnects"])
def test_the_original_url_is_used_if_the_mirror_fails(
    server: Server, url: str, target: Path, tmp_path: Path, mirror: str
) -> None:
    mirrors = {
        "empty folder": tmp_path.as_uri(),
        "no folder": (tmp_path / "none").as_uri(),
        "404": f"{server.address}/mirror",
        "no server": find_closed_address(),
        "wrong file": f"{server.address}/wrong",
        "disconnects": f"{server.address}/files",
    }
    server.serve("/wrong/images.zip", b"wrong")
    server.failures = [Disconnect(9)] * download_module.MAX_ATTEMPTS if mirror == "disconnects" else []
    assert download(url, SHA256, target, mirror=mirrors[mirror]).read_bytes() == CONTENT
    assert server.requests[-1][0] == "/files/images.zip"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc/self/mem, a file that cannot be read")
def test_a_read_error_of_a_mirror_is_not_reported_as_a_cache_error(server: Server, tmp_path: Path) -> None:
    url = server.serve("/mem", CONTENT)
    assert download(url, SHA256, tmp_path / "mem", mirror="file:///proc/self").read_bytes() == CONTENT


def test_the_error_contains_the_answers_of_mirror_and_url(server: Server, target: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as error_info:
        download(f"{server.address}/none.zip", SHA256, target, mirror=tmp_path.as_uri())
    assert f"{tmp_path.as_uri()}/none.zip: " in str(error_info.value)
    assert f"{server.address}/none.zip: 404" in str(error_info.value)


def download_in_process(url: str, target: Path, barrier: Barrier) -> None:
    barrier.wait()
    assert download(url, SHA256, target).read_bytes() == CONTENT


def test_concurrent_processes_download_once(server: Server, url: str, target: Path) -> None:
    server.failures = [Delay(0.5)]
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(4)
    processes = [spawn.Process(target=download_in_process, args=(url, target, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(server.requests) == 1


def test_an_existing_correct_file_is_not_downloaded(server: Server, url: str, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert download(url, SHA256, target) == target
    assert server.requests == []


def test_an_existing_wrong_file_is_replaced(url: str, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1])
    assert download(url, SHA256, target).read_bytes() == CONTENT


def test_an_existing_wrong_file_is_not_removed_if_the_download_fails(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"somebody's own file")
    with pytest.raises(DownloadError):
        download(f"{server.address}/none.zip", SHA256, target)
    assert target.read_bytes() == b"somebody's own file"


def test_a_folder_that_is_not_writable_is_a_user_error(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.cache_dir=DIR"):
        download(url, SHA256, tmp_path / "file" / "images.zip")


OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 300000\r\n"


@pytest.mark.parametrize(
    "head",
    [
        OK + b"Content-Length: many\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"\r\n",
        OK + LENGTH * 2 + b"\r\n",
        OK + LENGTH + b"X: " + b"\x1b[2J\xff" * 50 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK + b"\r\n",
    ],
)
def test_a_complete_file_is_taken_whatever_its_headers(server: Server, url: str, target: Path, head: bytes) -> None:
    server.failures = [Raw(head + CONTENT)]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert len(server.requests) == 1


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: "


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (OK + b"Content-Length: 999999999999999999\r\n\r\n" + CONTENT, "of the disk"),
        (OK + b"Content-Length: 400000\r\n\r\n" + CONTENT, "closed after 300000 of 400000 bytes"),
        (OK + b"Content-Length: 5\r\n\r\n" + CONTENT, "checksum"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", "connection lost"),
        (OK + b"Content-Encoding: gzip\r\n\r\nabc", "checksum"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 9-\r\n\r\nabc", "another part"),
        (b"HTTP/1.1 416 Nothing\r\n\r\n", "416"),
        (b"HTTP/1.1 404 " + b"\x1b[2J" * 90 + b"\r\n\r\n", "404"),
        (b"garbage\r\n\r\n", "garbage"),
        (b"\x15\x03\x01\x00\x02\x02\x46", ": ."),
        (b"", ": ."),
        (REDIRECT + b"http://[\r\n\r\n", "not an address"),
        (REDIRECT + b"file:///etc/passwd\r\n\r\n", "a file of this machine"),
        (REDIRECT + b"ftp://127.0.0.1/x\r\n\r\n", "begins with none of"),
        (REDIRECT + b"images.zip\r\n\r\n", "in a circle"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "without an address"),
    ],
)
def test_a_fault_of_the_server_is_named_and_leaves_no_file(
    server: Server, url: str, target: Path, answer: bytes, message: str
) -> None:
    server.failures = [Raw(answer)] * download_module.MAX_ATTEMPTS
    with pytest.raises(DownloadError, match=message) as error_info:
        download(url, SHA256, target)
    assert str(error_info.value).startswith(url)
    assert len(str(error_info.value)) < 1000
    assert not target.exists()


def test_a_redirect_is_followed(server: Server, url: str, target: Path) -> None:
    server.serve("/files/moved here.zip", CONTENT)
    server.files["/files/moved%20here.zip"] = CONTENT
    server.failures = [Raw(REDIRECT + b"moved here.zip\r\n\r\n", tail=b"endless")]
    assert download(url, SHA256, target).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "url",
    ["http://[", "http://", "http://a b/x", "http://a\nb/x", "http://a:b/x", "http://..a/x", "x.zip", "ftp://a/x", "",
     "http://\x1b/x", "http:///x", "data:,x", "file:///nothing", "file:///dev"],
)  # fmt: skip
def test_what_is_not_an_address_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"not an address|no such file"):
        download(url, SHA256, tmp_path / "downloads" / transfer_module.get_file_name(url))
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


@pytest.mark.parametrize("url", ["http://a/..", "http://a/", "http://a/\x00", "http://a/" + "b" * 300, "a/.", ""])
def test_the_name_of_a_file_is_a_plain_word(url: str) -> None:
    name = transfer_module.get_file_name(url)
    assert "/" not in name
    assert name not in ("", ".", "..")
    assert name.isprintable()


@pytest.mark.parametrize("head", [OK + b"\r\n", OK + LENGTH + b"\r\n", OK, b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    server: Server, url: str, target: Path, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "PROGRESS_WINDOW_S", 0.3)
    server.failures = [Raw(head, tail=head[:1] or b"x", pause_s=0.05)]
    with pytest.raises(DownloadError, match=r"less than 1024 bytes/s in 0\.3 s"):
        download(url, SHA256, target)
    assert len(server.requests) == 1
    assert not target.exists()


def test_an_endless_file_ends_at_a_limit_and_leaves_nothing(
    server: Server, url: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "MAX_UNDECLARED_BYTES", 3 << 20)
    server.failures = [Raw(OK + b"\r\n", tail=bytes(1 << 16))]
    with pytest.raises(DownloadError, match="no end of the file after"):
        download(url, SHA256, target)
    assert list_files(target) == []


def test_a_file_without_declared_length_leaves_room_on_the_disk(
    server: Server, url: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "MIN_FREE_BYTES", 1 << 60)
    server.failures = [Raw(OK + b"\r\n" + CONTENT)]
    with pytest.raises(DownloadError, match="no end of the file after"):
        download(url, SHA256, target)


def test_a_server_that_resumes_elsewhere_sends_all_again(server: Server, url: str, target: Path) -> None:
    wrong_part = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-299999/300000\r\n\r\n" + CONTENT
    server.failures = [Disconnect(100_000), Raw(wrong_part)]
    assert download(url, SHA256, target).read_bytes() == CONTENT
    assert list_ranges(server) == [None, "bytes=100000-", None]
