"""Files from the network, a mirror or a folder: verified, resumed, fetched once by all processes."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from thaw.config.faults import Fault, UserFault
from thaw.data.cache import cannot_write

TRIES = 4
TIMEOUT_S = 20.0
BLOCK = 1 << 20
UNSETTLED = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, EOFError)


class NotFetched(Exception):
    """No address gave the file whole; the message says what each of them answered."""


def fetched(url: str, checksum: str, target: Path, mirror: str | None = None) -> Path:
    """`target`, holding the file at `url` whose `checksum` ("sha256:HEX"; a prefix of the digits will do) is right.

    A mirror is asked first, for the file of the same name. What broke off is continued where it stopped; a wrong file
    is fetched anew from its start.

    Raises:
        NotFetched: where no address gives it.
        UserFault: where the disk is full or the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not (target.is_file() and matches(target, checksum)):
                _fetch(addresses(url, mirror), checksum, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def addresses(url: str, mirror: str | None) -> list[str]:
    """Where the file is looked for, in order."""
    name = Path(urlsplit(url).path).name
    return [f"{mirror.rstrip('/')}/{name}", url] if mirror else [url]


def matches(file: Path, checksum: str) -> bool:
    """Whether the digest of `file` begins with the digits of `checksum`."""
    algorithm, digits = checksum.split(":", 1)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest().startswith(digits)


def _fetch(urls: list[str], checksum: str, target: Path) -> None:
    partial = target.with_name(target.name + ".part")
    answers = []
    for url in urls:
        for attempt in range(TRIES):
            try:
                _download(url, partial)
            except urllib.error.HTTPError as error:
                answers.append(f"{url}: {error.code} {error.reason}")
                if error.code < 500:
                    break
            except UNSETTLED as error:
                answers.append(f"{url}: {getattr(error, 'reason', error)}")
                if _is_unreachable(error):
                    break
            else:
                if matches(partial, checksum):
                    partial.replace(target)
                    return
                answers.append(f"{url}: a file with another checksum than {checksum}")
                partial.unlink()
            time.sleep(0.2 * 2**attempt)
    raise NotFetched("; ".join(dict.fromkeys(answers)))


def _is_unreachable(error: Exception) -> bool:
    """No name, no route, nobody listening: asking again in a second changes nothing."""
    reason = getattr(error, "reason", error)
    return isinstance(reason, OSError) and not isinstance(reason, TimeoutError | ConnectionResetError)


def _download(url: str, partial: Path) -> None:
    """Appends to `partial` what is missing of it; raises EOFError where the connection ends before the file does."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing lies beyond what we have: it is whole, or not what is served now
            raise
        return
    with response:
        continued = getattr(response, "status", None) == 206
        length = int(response.headers.get("Content-Length") or 0)
        start = have if continued else 0
        with partial.open("ab" if continued else "wb") as stream, _progress(url, start, start + length) as advance:
            for block in _blocks(response):
                stream.write(block)
                advance(len(block))
            stream.flush()
            os.fsync(stream.fileno())
    if length and partial.stat().st_size < start + length:
        raise EOFError(f"broke off after {partial.stat().st_size} of {start + length} bytes")


def _blocks(response: BinaryIO) -> Iterator[bytes]:
    try:
        while block := response.read(BLOCK):
            yield block
    except OSError as error:  # the network's or a mirror's: only writing says anything about the cache
        raise ConnectionResetError(f"broke off: {error}") from error


@contextmanager
def _progress(url: str, start: int, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(Path(urlsplit(url).path).name, completed=start, total=total or None)
        yield lambda size: bar.advance(task, size)


def needs_by_hand(what: str, url: str, checksum: str, place: str, reason: str, instead: str) -> UserFault:
    """The one message of a file that could not be fetched."""
    fault = Fault(
        f"{what} from {url}", reason, f"a file with checksum {checksum}", f"{place}; or data.mirror=URL; or {instead}"
    )
    return UserFault(f"{what} could not be fetched.", [fault])
