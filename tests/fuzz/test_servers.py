"""Servers that do anything: a download ends with the honest file or with an error, soon, and leaves nothing else."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.data.server import Delay, Disconnect, Raw, Server, run_server
from thaw.data import download as download_module
from thaw.data import transfer as transfer_module
from thaw.data.download import DownloadError, download

NUM_SERVERS, MAX_SECONDS = 100, 20.0
CONTENT = random.Random(1).randbytes(60_000)
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
PATH = "/files/images.zip"
STATUS_LINES = [
    *[b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 206 Partial Content", b"HTTP/1.1 302 Found"],
    *[b"HTTP/1.1 308 Moved", b"HTTP/1.1 416 No", b"HTTP/1.1 500 \x1b[2J", b"HTTP/1.1 403", b"HTTP/1.1 204 No"],
    *[b"HTTP/1.1 999 ?", b"HTTP/9 200 OK", b"HTTP/1.1 OK", b"ICY 200 OK", b"\x00\x16\x03", b"HTTP/1.1 100 Go"],
    *[b"HTTP/1.1 -1 OK", b"HTTP/1.1 2" + b"0" * 70_000],
]
LENGTHS = [
    *[b"60000", b"many", b"-1", b"0", b"59999", b"60001", b"1e9"],
    *[b"99999999999999999999999", b"\xff", b"60000, 60000"],
]
LOCATIONS = [
    *[b"http://[", b"", b"file:///etc/passwd", b"ftp://127.0.0.1/", b"javascript:x", b"//", PATH.encode(), b"?a=\r1"],
    *[b"http://\x1b/", b"http://..", b"http://127.0.0.1:0/", b"http://127.0.0.1:99999/", b"x" * 70_000, b"/other"],
    *[b"http://user:word@127.0.0.1/", b"\\\\host\\x", b"data:,x"],
]
RANGES = [
    *[b"bytes 0-59999/60000", b"bytes 100-59999/60000", b"bytes 30000-59999/60000"],
    *[b"bytes */60000", b"lines 1-2", b""],
]
Answer = int | bytes | Disconnect | Delay | Raw


def generate_answer(rng: random.Random) -> Answer:
    """Return an answer that is wrong in one or several ways, or right by chance."""
    kind = rng.randrange(8)
    if kind == 0:
        return Disconnect(rng.randrange(len(CONTENT)))
    if kind == 1:
        return rng.choice([400, 404, 429, 500, 503, 418])
    if kind == 2:
        return rng.randbytes(rng.randrange(2000))
    status = rng.choice(STATUS_LINES) if rng.random() < 0.6 else STATUS_LINES[0]
    headers = [
        *([b"Content-Length: " + rng.choice(LENGTHS)] * rng.choice([0, 1, 1, 2])),
        *([b"Location: " + rng.choice(LOCATIONS)] if b"30" in status else []),
        *([b"Content-Range: " + rng.choice(RANGES)] if b"206" in status or rng.random() < 0.1 else []),
        *([b"Transfer-Encoding: " + rng.choice([b"chunked", b"gzip", b"?"])] if rng.random() < 0.3 else []),
        *([b"Content-Encoding: br", b": no name", b"Set-Cookie: \x1b", b"no colon"] if rng.random() < 0.2 else []),
        *([b"X: y"] * 200 if rng.random() < 0.05 else []),
    ]
    head = rng.choice([b"\r\n", b"\r\n", b"\n"]).join([status, *headers, b"", b""])
    return Raw(head + generate_body(rng), *rng.choice([(b"", 0.0)] * 4 + [(b"endless" * 3000, 0.0), (b"x", 0.05)]))


def generate_body(rng: random.Random) -> bytes:
    cut = rng.randrange(len(CONTENT))
    flipped = CONTENT[:cut] + bytes([CONTENT[cut] ^ 1]) + CONTENT[cut + 1 :]
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (rng.choice([len(CONTENT), 5, 2**70]), CONTENT)
    return rng.choice([CONTENT, CONTENT, CONTENT[:cut], CONTENT * 2, b"", flipped, chunks, b"-5\r\nabc", b"zz\r\n"])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with run_server() as server:
        yield server


@pytest.fixture(autouse=True)
def use_short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(transfer_module, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(transfer_module, "PROGRESS_WINDOW_S", 0.5)
    monkeypatch.setattr(transfer_module, "MAX_UNDECLARED_BYTES", 4 << 20)
    monkeypatch.setattr(download_module, "time", SimpleNamespace(sleep=lambda _: None))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(NUM_SERVERS))
def test_any_server_leads_to_the_honest_file_or_an_error(server: Server, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    server.files = {PATH: CONTENT} if rng.random() < 0.5 else {}
    server.failures = [generate_answer(rng) for _ in range(rng.randrange(1, 6))]
    target = tmp_path / "cache" / "images.zip"
    if rng.random() < 0.3:
        target.parent.mkdir()
        target.with_name("images.zip.part").write_bytes(CONTENT[:30_000] if rng.random() < 0.5 else rng.randbytes(99))
    outside = tmp_path / "outside"
    outside.write_bytes(b"unchanged")
    start = time.monotonic()
    message = try_to_download(server.address + PATH, target)
    assert time.monotonic() - start < MAX_SECONDS
    assert message.startswith(server.address) or not message
    assert len(message) < 3000
    assert target.read_bytes() == CONTENT if not message else not target.exists()
    assert outside.read_bytes() == b"unchanged"
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "outside"}
    names = {path.name for path in target.parent.iterdir()}
    assert names <= {"images.zip", "images.zip.part", ".images.zip.lock"}
    if "images.zip.part" in names:
        assert target.with_name("images.zip.part").stat().st_size <= 5 << 20


def try_to_download(url: str, target: Path) -> str:
    """Return the message of the error, or nothing."""
    try:
        download(url, CHECKSUM, target)
    except DownloadError as error:
        return str(error)
    return ""
