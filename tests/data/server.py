"""A web server on this machine whose answers go wrong as a test says."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class BreaksOff:
    """The connection ends after so many bytes of the body."""

    after: int


@dataclass(frozen=True)
class Silent:
    """Nothing is sent for so long."""

    seconds: float


@dataclass
class Server:
    """Serves `files` by path. Each request takes the next of `mishaps`, while there are some: a status, another file's
    bytes, `BreaksOff` or `Silent`. `asked` holds path and Range header of the requests."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    honours_range: bool = True
    mishaps: list[int | bytes | BreaksOff | Silent] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def serving(self, path: str, content: bytes) -> str:
        """The address of `content`, which is served from now on."""
        self.files[path] = content
        return self.address + path


@contextmanager
def running_server() -> Iterator[Server]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_port}")
        http.state = server  # type: ignore[attr-defined]
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        http.shutdown()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client may be gone
            self._answer(self.server.state)  # type: ignore[attr-defined]

    def _answer(self, server: Server) -> None:
        server.asked.append((self.path, self.headers["Range"]))
        mishap = server.mishaps.pop(0) if server.mishaps else None
        if isinstance(mishap, Silent):
            time.sleep(mishap.seconds)
        content = mishap if isinstance(mishap, bytes) else server.files.get(self.path)
        if isinstance(mishap, int) or content is None:
            self.send_error(mishap if isinstance(mishap, int) else 404)
            return
        body = self._headed(content, server.honours_range)
        self.wfile.write(body[: mishap.after] if isinstance(mishap, BreaksOff) else body)

    def _headed(self, content: bytes, honours_range: bool) -> bytes:
        """Sends the headers and returns the body that belongs to them."""
        wanted = self.headers["Range"] if honours_range else None
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(content) > 0:
            self.send_error(416)
            return b""
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        return content[start:]

    def log_message(self, *arguments: object) -> None:
        pass
