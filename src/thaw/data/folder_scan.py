"""Scan a folder: the images of each sub-folder, and the reason for every other file and folder below it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from thaw.config.errors import Problem, UserError
from thaw.data.image import IMAGE_SUFFIXES
from thaw.data.readers import normalize_name

HIDDEN = "hidden"
SYSTEM_FILE = "thumbnail or other file of a system"
NO_IMAGE_SUFFIX = "no suffix of an image"
BROKEN_LINK = "broken link"
REPEATED_LINK = "link to a folder that is read already, or that contains the data set"
NO_FILE = "neither file nor folder"
EMPTY_FOLDER = "empty folder"
# Folders and files of file managers, network drives and trash cans, in lower case. They hold copies and thumbnails.
SYSTEM_NAMES = frozenset(
    [
        "__macosx",
        "__pycache__",
        "@eadir",
        "@__thumb",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    ]
)

KNOWN_SUFFIXES = frozenset(IMAGE_SUFFIXES)


@dataclass(eq=False)
class Folder:
    """A folder of a data set. Paths are relative to the scanned root, with forward slashes; the root's own is empty.

    Attributes:
        path: path of the folder.
        images: paths of the images directly in it, sorted.
        folders: its sub-folders, sorted by name, without hidden ones and those of systems.
    """

    path: str
    images: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def iter_folders(self) -> Iterator[Folder]:
        """Yield this folder and all folders below it."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += folder.folders

    def iter_images(self) -> Iterator[str]:
        """Yield the paths of all images in this folder and below it."""
        for folder in self.iter_folders():
            yield from folder.images


@dataclass(frozen=True)
class FolderScan:
    """The content of a folder.

    Attributes:
        top: the scanned folder.
        ignored: path -> reason, of every file that is no image and every folder that is empty; folders end with "/".
        linked_folders: paths of links to folders that were followed.
        excluded_words: the entries of `exclude` that excluded something.
    """

    top: Folder
    ignored: dict[str, str]
    linked_folders: tuple[str, ...]
    excluded_words: frozenset[str]


def find_name_reason(name: str) -> str | None:
    """Return why a file or folder of this name is left out whatever it contains; None: it is not."""
    if name.lower() in SYSTEM_NAMES:
        return SYSTEM_FILE
    return HIDDEN if name.startswith(".") else None


def has_image_suffix(name: str) -> bool:
    """Return whether `name` ends with the suffix of a format that can be decoded."""
    _, dot, suffix = name.rpartition(".")
    return bool(dot) and f".{suffix.lower()}" in KNOWN_SUFFIXES


def is_image(path: Path, folder: Path) -> bool:
    """Return whether `path` is a file with the suffix of an image, and nothing below `folder` on the way to it is
    hidden or belongs to a system: such folders contain copies of images that may be in another split."""
    has_reason = any(find_name_reason(part) for part in path.relative_to(folder).parts)
    return has_image_suffix(path.name) and not has_reason and path.is_file()


def scan_folder(root: Path, exclude: Collection[str] = ()) -> FolderScan:
    """Scan `root`. Links to folders are followed unless the folder is read already or contains the root.

    `exclude` names files and folders to leave out, by their name or by their path below the root.

    Raises:
        UserError: if a folder cannot be read.
    """
    scanner = _Scanner(root, exclude)
    try:
        return scanner.scan()
    except OSError as error:
        problem = Problem(str(error.filename or root), error.strerror or str(error), "a folder that can be read")
        raise UserError("a folder of the data set cannot be read.", [problem]) from error


class _Scanner:
    """Reads real folders first and links to folders after them, so that a link never takes a folder's place."""

    def __init__(self, root: Path, exclude: Collection[str]) -> None:
        self.root = root
        self.excluded_words = {normalize_name(word).strip("/"): word for word in exclude}
        self.matched_words = set[str]()
        self.ignored = dict[str, str]()
        self.linked_folders = list[str]()
        self.links = list[tuple[Folder, Folder]]()  # the folder that contains a link, and the linked one
        self.read_folders = {_identify(parent) for parent in root.resolve().parents}

    def scan(self) -> FolderScan:
        top = Folder("")
        self._read_tree(top)
        while self.links:
            parent, folder = self.links.pop(0)
            if _identify(self._locate(folder)) in self.read_folders:
                self.ignored[f"{folder.path}/"] = REPEATED_LINK
                continue
            self.linked_folders.append(folder.path)
            parent.folders.append(folder)
            parent.folders.sort(key=lambda sibling: sibling.name)
            self._read_tree(folder)
        return FolderScan(top, self.ignored, tuple(self.linked_folders), frozenset(self.matched_words))

    def _locate(self, folder: Folder) -> Path:
        return self.root / folder.path

    def _read_tree(self, top: Folder) -> None:
        new_links = len(self.links)
        waiting: list[tuple[Folder, str | None]] = [(top, None)]
        while waiting:  # no recursion: folders may be nested more deeply than Python's stack
            folder, reason = waiting.pop()
            if reason is None:
                identity = _identify(self._locate(folder))
                if identity in self.read_folders:  # below a link to a folder that contains one that was linked before
                    self.ignored[f"{folder.path}/"] = REPEATED_LINK
                    continue
                self.read_folders.add(identity)
            waiting += self._read_entries(folder, reason)
        self.links[new_links:] = sorted(self.links[new_links:], key=lambda link: link[1].path)

    def _read_entries(self, folder: Folder, inherited_reason: str | None) -> list[tuple[Folder, str | None]]:
        """Read one folder and return its sub-folders with the reason to leave out everything in them, or None."""
        sub_folders = list[tuple[Folder, str | None]]()
        with os.scandir(self._locate(folder)) as entries:
            sorted_entries = sorted(entries, key=attrgetter("name"))
        if not sorted_entries:
            self.ignored[f"{folder.path}/"] = inherited_reason or EMPTY_FOLDER
        for entry in sorted_entries:
            path = f"{folder.path}/{entry.name}" if folder.path else entry.name
            if self._is_excluded(entry.name, path):
                continue
            reason = inherited_reason or find_name_reason(entry.name)
            if reason is None and has_image_suffix(entry.name) and entry.is_file(follow_symlinks=False):
                folder.images.append(path)
            elif entry.is_dir(follow_symlinks=False):
                sub_folders.append((Folder(path), reason))
            elif reason is None and entry.is_symlink() and Path(entry.path).is_dir():
                self.links.append((folder, Folder(path)))
            elif file_reason := reason or _find_file_reason(entry):
                self.ignored[path] = file_reason
            else:
                folder.images.append(path)
        folder.folders += [sub_folder for sub_folder, reason in sub_folders if reason is None]
        return sub_folders

    def _is_excluded(self, name: str, path: str) -> bool:
        if not self.excluded_words:
            return False
        words = {normalize_name(name), normalize_name(path)} & set(self.excluded_words)
        self.matched_words.update(self.excluded_words[word] for word in words)
        return bool(words)


def _find_file_reason(entry: os.DirEntry[str]) -> str | None:
    """Return why a file is no image; None: it is one."""
    if entry.is_symlink() and not Path(entry.path).exists():  # or a link to itself: entry.is_file() would raise
        return BROKEN_LINK
    if not entry.is_file():
        return NO_FILE
    return None if has_image_suffix(entry.name) else NO_IMAGE_SUFFIX


def _identify(path: Path) -> tuple[int, int]:
    """Return what two paths of the same folder have in common."""
    status = path.stat()
    return status.st_dev, status.st_ino
