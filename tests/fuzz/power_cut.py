"""Record what a program does to the files below a folder, and build what a power cut at any moment may leave of it.

The rules are those of POSIX, which file systems keep at least: the content of a file is safe once the file is synced,
and a name that was created, renamed or removed once its folder is. All else may be lost, in part or as a whole.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOSSES = ("everything", "nothing", "the last", "any")  # of what is not safe
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
AUDITED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")
Event = tuple[Any, ...]


@dataclass(eq=False)
class Node:
    """A file or folder, whatever its name. `synced` is the content that is safe, `latest` the last that is known."""

    is_folder: bool
    children: dict[str, Node] = field(default_factory=dict)
    synced: bytes | None = None
    latest: bytes = b""
    is_dirty: bool = False


class Recording:
    """The events below `root`, in their order, each as (kind, path, ...)."""

    def __init__(self, root: Path) -> None:
        self.root, self.events = root, list[Event]()
        self.initial_files = {path: None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))}
        self._lock = threading.Lock()

    def add(self, kind: str, path: Path, *values: Any) -> None:
        """Add an event, if it is below the root."""
        if path.is_relative_to(self.root):
            with self._lock:
                self.events.append((kind, path, *values))

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Add an audit event of Python, which comes just before what it announces."""
        if event == "open":
            name, _, flags = arguments
            if isinstance(name, str | os.PathLike) and flags & WRITE_FLAGS:
                self.add("open", Path(name).absolute(), bool(flags & os.O_CREAT))
        elif event in ("os.rename", "os.link"):
            source, target = _locate(arguments[0], arguments[2]), _locate(arguments[1], arguments[3])
            self.add(event, source, target, source.read_bytes() if source.is_file() else None)
        else:
            self.add(event, _locate(arguments[0], arguments[-1]))


_recording: Recording | None = None
_has_hook = False


def _locate(name: Any, folder_descriptor: int) -> Path:
    folder = Path(f"/proc/self/fd/{folder_descriptor}").resolve() if folder_descriptor != -1 else Path.cwd()
    return folder / os.fsdecode(name)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _recording is not None and event in AUDITED:
        _recording.note(event, arguments)


@contextmanager
def record(root: Path) -> Iterator[Recording]:
    """Record what this process does below `root` in a context."""
    global _recording, _has_hook
    if not _has_hook:
        sys.addaudithook(_audit)
        _has_hook = True
    recording, sync = Recording(root), os.fsync

    def fsync(file: Any) -> None:
        sync(file)
        descriptor = file if isinstance(file, int) else file.fileno()
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        recording.add("sync", path, path.read_bytes() if path.is_file() else None)

    _recording, os.fsync = recording, fsync
    try:
        yield recording
    finally:
        _recording, os.fsync = None, sync


def build_state(recording: Recording, num_events: int, loss: str, rng: random.Random, folder: Path) -> Path:
    """Build in `folder` what a power cut after `num_events` events leaves, and return it."""
    disk = _Disk(recording)
    for event in recording.events[:num_events]:
        disk.apply(event)
    disk.learn(recording.events[num_events:])
    pending = [index for index, operation in enumerate(disk.operations) if not operation.is_safe]
    survivors = {
        "everything": set[int](),
        "nothing": set(pending),
        "the last": set(pending[: rng.randrange(len(pending) + 1)]),
        "any": {index for index in pending if rng.random() < 0.5},
    }[loss]
    root = disk.build_tree(survivors)
    folder.mkdir()
    _write_tree(root, folder, lambda node: _lose_content(node, loss, rng))
    return folder


def _lose_content(node: Node, loss: str, rng: random.Random) -> bytes:
    if not node.is_dirty:
        return node.synced or b""
    if loss == "nothing":
        return node.latest
    length = len(node.latest)
    possible = [node.synced or b"", b"", bytes(length), node.latest[: length // 2], node.latest[:-1] + b"\0"]
    return possible[0] if loss == "everything" else rng.choice(possible)


def _write_tree(node: Node, folder: Path, get_content: Callable[[Node], bytes]) -> None:
    for name, child in node.children.items():
        if child.is_folder:
            (folder / name).mkdir()
            _write_tree(child, folder / name, get_content)
        else:
            (folder / name).write_bytes(get_content(child))


@dataclass
class Operation:
    """A change of names: `removed` and `added` are pairs of a folder and a name."""

    removed: tuple[Node, str] | None
    added: tuple[Node, str] | None
    node: Node
    is_safe: bool = False


class _Disk:
    """The files as the program sees them, and the changes of names that led there."""

    def __init__(self, recording: Recording) -> None:
        self._root_path, self._root = recording.root, Node(True)
        self.operations = list[Operation]()
        for path, content in recording.initial_files.items():
            parent, name = self._find_place(path)
            node = Node(content is None, synced=content, latest=content or b"")
            self._change(None, (parent, name), node)
        for operation in self.operations:
            operation.is_safe = True

    def apply(self, event: Event) -> None:
        """Apply an event."""
        kind, path, *values = event
        parent, name = self._find_place(path)
        node = self._root if path == self._root_path else parent.children.get(name)
        if kind == "sync":
            self._sync(node, values[0])
        elif kind == "open":
            if node is None and values[0]:
                node = Node(False)
                self._change(None, (parent, name), node)
            if node is not None:
                node.is_dirty = True
        elif kind == "os.mkdir" and node is None:
            self._change(None, (parent, name), Node(True))
        elif kind in ("os.remove", "os.rmdir") and node is not None:
            self._change((parent, name), None, node)
        elif kind in ("os.rename", "os.link") and node is not None:
            node.latest = values[1] if values[1] is not None else node.latest
            self._change((parent, name) if kind == "os.rename" else None, self._find_place(values[0]), node)

    def learn(self, later_events: list[Event]) -> None:
        """Take the next known content of files that are being written, so that a part of it may be left."""
        known = set[Node]()
        for kind, path, *values in later_events:
            parent, name = self._find_place(path)
            node = parent.children.get(name)
            content = values[-1] if kind in ("sync", "os.rename") else None
            if node is not None and isinstance(content, bytes) and node not in known:
                node.latest = content
                known.add(node)

    def build_tree(self, survivors: set[int]) -> Node:
        """Return the root with the names after the operations that are safe or in `survivors`."""
        children: dict[Node, dict[str, Node]] = {}
        for index, operation in enumerate(self.operations):
            if not (operation.is_safe or index in survivors):
                continue
            if operation.removed and children.get(operation.removed[0], {}).get(operation.removed[1]) is operation.node:
                del children[operation.removed[0]][operation.removed[1]]
            if operation.added:
                children.setdefault(operation.added[0], {})[operation.added[1]] = operation.node
        return _copy_tree(self._root, children)

    def _sync(self, node: Node | None, content: bytes | None) -> None:
        if node is None:
            return
        if node.is_folder:
            for operation in self.operations:
                places = (operation.removed, operation.added)
                operation.is_safe |= any(place is not None and place[0] is node for place in places)
        else:
            node.synced, node.latest, node.is_dirty = content, content or b"", False

    def _change(self, removed: tuple[Node, str] | None, added: tuple[Node, str] | None, node: Node) -> None:
        if removed:
            removed[0].children.pop(removed[1], None)
        if added:
            added[0].children[added[1]] = node
        self.operations.append(Operation(removed, added, node))

    def _find_place(self, path: Path) -> tuple[Node, str]:
        """Return the folder and the name of `path`; a folder that is not on this disk is made up."""
        node = self._root
        parts = path.relative_to(self._root_path).parts if path.is_relative_to(self._root_path) else ()
        for part in parts[:-1]:
            node = node.children.get(part) or Node(True)
        return node, parts[-1] if parts else ""


def _copy_tree(node: Node, children: dict[Node, dict[str, Node]]) -> Node:
    copies = {name: _copy_tree(child, children) for name, child in children.get(node, {}).items()}
    return Node(node.is_folder, copies, node.synced, node.latest, node.is_dirty)
