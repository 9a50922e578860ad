"""Run a web server on this machine whose responses fail as a test requires."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Disconnect:
    """Close the connection after `num_bytes` of the body."""

    num_bytes: int


@dataclass(frozen=True)
class Delay:
    """Send nothing for `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Raw:
    """Send `content` as it is, then `tail` until the client disconnects, with a pause between its pieces."""

    content: bytes
    tail: bytes = b""
    pause_s: float = 0.0


@dataclass
class Server:
    """Serve `files` by path.

    Each request takes the next of `failures`, if any: a status, the bytes of another file, `Disconnect`, `Delay` or
    `Raw`.
    `requests` records the path and the Range header of each request.
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    supports_range: bool = True
    failures: list[int | bytes | Disconnect | Delay | Raw] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def serve(self, path: str, content: bytes) -> str:
        """Serve `content` at `path` from now on and return its URL."""
        self.files[path] = content
        return self.address + path


@contextmanager
def run_server() -> Iterator[Server]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_port}")
        http.state = server  # type: ignore[attr-defined]
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        http.shutdown()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError, ValueError):  # the client may have disconnected
            self._answer(self.server.state)  # type: ignore[attr-defined]

    def _answer(self, server: Server) -> None:
        server.requests.append((self.path, self.headers["Range"]))
        failure = server.failures.pop(0) if server.failures else None
        if isinstance(failure, Raw):
            self._send_raw(failure)
            return
        if isinstance(failure, Delay):
            time.sleep(failure.seconds)
        content = failure if isinstance(failure, bytes) else server.files.get(self.path)
        if isinstance(failure, int) or content is None:
            self.send_error(failure if isinstance(failure, int) else 404)
            return
        body = self._send_headers(content, server.supports_range)
        self.wfile.write(body[: failure.num_bytes] if isinstance(failure, Disconnect) else body)

    def _send_raw(self, answer: Raw) -> None:
        self.wfile.write(answer.content)
        while answer.tail:
            self.wfile.write(answer.tail)
            time.sleep(answer.pause_s)

    def _send_headers(self, content: bytes, supports_range: bool) -> bytes:
        """Send the headers and return the body."""
        range_header = self.headers["Range"] if supports_range else None
        start = int(range_header.removeprefix("bytes=").removesuffix("-")) if range_header else 0
        if start >= len(content) > 0:
            self.send_error(416)
            return b""
        self.send_response(206 if range_header else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if range_header:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        return content[start:]

    def log_message(self, *arguments: object) -> None:
        pass
