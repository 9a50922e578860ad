"""Share fixtures with the tests of `thaw.data`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.data.server import Server, run_server
from thaw.data import download


@pytest.fixture
def server() -> Iterator[Server]:
    with run_server() as server:
        yield server


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry downloads without waiting."""
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to 127.0.0.1 without a proxy."""
    monkeypatch.setenv("no_proxy", "*")
