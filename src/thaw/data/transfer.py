"""Transfer one file from a server or a folder: resumable, and bounded in size and time whatever the server does."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import string
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from thaw.system.reporter import SILENT, Reporter

TIMEOUT_S = 20.0  # without a single byte
MIN_BYTES_PER_S, PROGRESS_WINDOW_S = 1024, 30.0  # a server that sends less than this in any such window is given up
BLOCK_BYTES = 1 << 20
MAX_UNDECLARED_BYTES = 50 << 30  # of a file whose size the server does not tell
MIN_FREE_BYTES = 1 << 30  # such a file leaves this much of the disk free
MAX_REDIRECTS = 10
MAX_REASON_LENGTH = 200  # characters of a server's text in a message
RETRIED_STATUSES = (408, 429)  # and all from 500
REMOTE_SCHEMES, SCHEMES = ("http", "https"), ("http", "https", "file")
MAX_LENGTH_DIGITS = 18


class TransferError(Exception):
    """The file was not transferred. The message is what happened, without the address.

    Attributes:
        can_retry: whether the same request may succeed a little later.
        keeps_part: whether what arrived may be the beginning of the file.
    """

    def __init__(self, reason: object, *, can_retry: bool = False, keeps_part: bool = True) -> None:
        super().__init__(str(reason)[:MAX_REASON_LENGTH] or type(reason).__name__)
        self.can_retry, self.keeps_part = can_retry, keeps_part


def transfer(url: str, file: Path, reporter: Reporter = SILENT) -> None:
    """Append to `file` the bytes of `url` that it lacks. A server that cannot continue sends all of it again.

    Raises:
        TransferError: for every fault of the address, the network or the server; `file` may hold a part.
        OSError: if `file` cannot be written.
    """
    num_existing = file.stat().st_size if file.exists() else 0
    with _ProgressWatchdog() as watchdog:
        response = _open(url, num_existing, watchdog)
        if response is None:  # the server has no bytes after ours: the file is complete, or it is another one
            return
        with closing(response):
            start = _parse_start(response, num_existing)
            length = _parse_length(response.headers)
            _check_free_space(file.parent, length)
            with (
                file.open("ab" if start else "wb") as stream,
                reporter.progress(f"downloading {get_file_name(url)}", start + (length or 0), unit="B") as advance,
            ):
                advance(start)
                for block in _iter_blocks(response, length, file.parent, watchdog):
                    stream.write(block)
                    advance(len(block))
                stream.flush()
                os.fsync(stream.fileno())
    num_received = file.stat().st_size - start
    if length is not None and num_received < length:
        raise TransferError(f"connection closed after {start + num_received} of {start + length} bytes", can_retry=True)


def parse_address(url: str) -> SplitResult:
    """Return the parts of an address.

    Raises:
        TransferError: if it is not one of a file on a server or of this machine.
    """
    try:
        parts = urlsplit(url)
        has_host, _ = bool(parts.hostname), parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:  # UnicodeError among them
        raise TransferError(f"not an address: {error}") from error
    if parts.scheme not in SCHEMES:
        raise TransferError(f"not an address: it begins with none of {', '.join(f'{name}://' for name in SCHEMES)}")
    if parts.scheme in REMOTE_SCHEMES and not has_host:
        raise TransferError("not an address: it has no host")
    if parts.scheme in REMOTE_SCHEMES and any(character <= " " or character == "\x7f" for character in url):
        raise TransferError("not an address: spaces and control characters are written as %20 and so on")
    return parts


def get_file_name(url: str) -> str:
    """Return the name of the file at `url`: a plain name, whatever the address is."""
    name = url.split("?", 1)[0].split("#", 1)[0].rstrip("/").rpartition("/")[2]
    is_plain = name.isprintable() and name not in ("", ".", "..") and len(os.fsencode(name)) <= 200
    return name if is_plain else "download"


def _open(url: str, num_existing: int, watchdog: _ProgressWatchdog) -> Any:
    """Return the response with the bytes from `num_existing` on, or all, after redirects; None: there are no more."""
    headers = {"Range": f"bytes={num_existing}-"} if num_existing else {}
    visited = set[str]()
    while url not in visited and len(visited) <= MAX_REDIRECTS:
        visited.add(url)
        if parse_address(url).scheme == "file":
            if len(visited) > 1:
                raise TransferError(f"it redirects to a file of this machine: {url}")
            return _open_local(url)
        try:
            return _request(url, headers, watchdog)
        except _Redirect as redirect:
            url = str(redirect)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and num_existing:
                return None
            is_passing = error.code >= 500 or error.code in RETRIED_STATUSES
            raise TransferError(f"{error.code} {error.reason}", can_retry=is_passing) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _translate(error, watchdog) from error
    raise TransferError("it redirects in a circle" if url in visited else f"more than {MAX_REDIRECTS} redirects")


def _open_local(url: str) -> Any:
    path = Path(urllib.request.url2pathname(urlsplit(url).path))
    try:
        if not path.is_file():  # a pipe would wait for a writer
            raise TransferError("no such file")
        return urllib.request.build_opener().open(url)
    except (OSError, ValueError) as error:
        raise TransferError(getattr(error, "reason", error)) from error


def _request(url: str, headers: dict[str, str], watchdog: _ProgressWatchdog) -> Any:
    """Return the response to a request, with status 200 or 206; urllib follows no redirect by itself."""
    opener = urllib.request.build_opener(_HTTPHandler(watchdog), _HTTPSHandler(watchdog), _RedirectHandler())
    response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    if response.status not in (200, 206):
        response.close()
        raise TransferError(f"{response.status} {response.reason}: no file")
    return response


def _translate(error: Exception, watchdog: _ProgressWatchdog) -> TransferError:
    """Return the error for one of the network. A host that is unknown or refuses connections is not tried again."""
    if watchdog.has_expired:
        return TransferError(watchdog.reason)
    reason = getattr(error, "reason", error)
    is_passing = isinstance(reason, TimeoutError | ConnectionResetError | http.client.HTTPException)
    return TransferError(str(reason) or type(error).__name__, can_retry=is_passing)


def _parse_start(response: Any, num_existing: int) -> int:
    """Return the position in the file of the first byte that the server sends.

    Raises:
        TransferError: if it sends another part than was asked for.
    """
    if getattr(response, "status", None) != 206:
        return 0
    content_range = str(response.headers.get("Content-Range", ""))
    if not num_existing or not content_range.startswith(f"bytes {num_existing}-"):
        raise TransferError(f"another part than was asked for: {content_range!r}", can_retry=True, keeps_part=False)
    return num_existing


def _parse_length(headers: Message) -> int | None:
    """Return the declared length of the body; None: the server does not tell, or writes nonsense."""
    values = {value.strip() for value in headers.get_all("Content-Length", [])}
    is_length = len(values) == 1 and all(value.isascii() and value.isdecimal() for value in values)
    if not is_length or headers.get("Transfer-Encoding") or len(min(values)) > MAX_LENGTH_DIGITS:
        return None
    return int(values.pop())


def _check_free_space(folder: Path, length: int | None) -> None:
    num_free = shutil.disk_usage(folder).free
    if length is not None and length > num_free:
        raise TransferError(f"the file has {length:,} bytes, and {num_free:,} bytes of the disk of {folder} are free")


def _iter_blocks(response: Any, length: int | None, folder: Path, watchdog: _ProgressWatchdog) -> Iterator[bytes]:
    """Yield the body, at most `length` bytes; errors of `folder`, where the blocks go, are not those of the network."""
    num_received, limit = 0, MAX_UNDECLARED_BYTES if length is None else length
    while True:
        try:
            block = response.read1(min(BLOCK_BYTES, limit - num_received) if length is not None else BLOCK_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            is_slow = watchdog.has_expired
            reason = watchdog.reason if is_slow else f"connection lost: {error}"
            raise TransferError(reason, can_retry=not is_slow) from error
        if not block:
            if watchdog.has_expired:
                raise TransferError(watchdog.reason)
            return
        num_received += len(block)
        watchdog.count(len(block))
        if num_received > limit or (length is None and shutil.disk_usage(folder).free < MIN_FREE_BYTES):
            raise TransferError(f"no end of the file after {num_received:,} bytes", keeps_part=False)
        yield block


class _Redirect(Exception):
    """The server redirects to the address in the message."""


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    """Raises instead of reading the body of the redirect, which may be endless, and of opening any kind of address."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Message) -> None:
        location = headers.get("Location") or headers.get("URI")
        fp.close()
        if not location:
            raise TransferError(f"{code} {msg}: a redirect without an address")
        try:
            address = urljoin(req.full_url, quote(str(location), safe=string.punctuation, encoding="iso-8859-1"))
        except ValueError as error:
            raise TransferError(f"it redirects to what is not an address: {location}") from error
        raise _Redirect(address)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _HTTPHandler(urllib.request.HTTPHandler):
    def __init__(self, watchdog: _ProgressWatchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._build_connection, req)

    def _build_connection(self, host: str, **settings: Any) -> http.client.HTTPConnection:
        return self._watchdog.observe(http.client.HTTPConnection(host, **settings))


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self, watchdog: _ProgressWatchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._build_connection, req)

    def _build_connection(self, host: str, **settings: Any) -> http.client.HTTPConnection:
        return self._watchdog.observe(http.client.HTTPSConnection(host, **settings))


class _ProgressWatchdog:
    """Cuts the connection if too little of the body arrives in any window of PROGRESS_WINDOW_S.

    A timeout of the socket is not enough: it begins anew with every byte, of headers and of TLS as well.
    """

    def __init__(self) -> None:
        self.has_expired = False
        self.reason = f"less than {MIN_BYTES_PER_S} bytes/s in {PROGRESS_WINDOW_S:g} s"
        self._num_received = 0
        self._sockets: list[socket.socket] = []
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _ProgressWatchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()
        for connection in self._sockets:
            connection.close()

    def count(self, num_bytes: int) -> None:
        """Count bytes of the body."""
        self._num_received += num_bytes

    def observe(self, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
        """Return `connection`, whose socket will be watched from its first byte."""
        connect = connection._create_connection  # type: ignore[attr-defined]

        def create_connection(*arguments: Any) -> socket.socket:
            created: socket.socket = connect(*arguments)
            self._sockets.append(created.dup())  # TLS takes the original over
            return created

        connection._create_connection = create_connection  # type: ignore[attr-defined]
        return connection

    def _watch(self) -> None:
        num_before = 0
        while not self._is_done.wait(PROGRESS_WINDOW_S):
            if self._num_received - num_before < MIN_BYTES_PER_S * PROGRESS_WINDOW_S:
                self.has_expired = True
                self._cut()
            num_before = self._num_received

    def _cut(self) -> None:
        for connection in self._sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has ended meanwhile
                continue
