"""Extract archives to folders. No file leaves the target folder, and the target is complete or absent.

The members are written by this module alone: folders and plain files first, each below the target by its name, then
links whose ends are checked. So no member is written through a link, which Python's own extraction has allowed.
"""

from __future__ import annotations

import errno
import lzma
import os
import posixpath
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Self

from thaw.config.errors import Problem, UserError
from thaw.data.dataset_folder import build_dataset_folder

MAX_UNPACKED_BYTES = 200 << 30  # ImageNet takes 150 GiB
MAX_COMPRESSION_RATIO = 200  # unpacked to packed bytes; images hardly shrink, a bomb shrinks a thousandfold
TAR_BLOCK_BYTES = 512  # a header, and what an empty member counts
COPY_BYTES = 1 << 20
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
ENCRYPTED_FLAG, UTF_8_FLAG, DOS_SYSTEM = 0x1, 0x800, 0
ARCHIVE_ERRORS = (  # damaged or encrypted files, unknown compression methods, names that cannot be decoded
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    MemoryError,
    OverflowError,
    IndexError,
)
NAME_ERRNOS = (  # names that cannot be, and members that contradict each other: a/b below the file a
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EILSEQ,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ELOOP,
)


def extract_archive(archive: Path, target: Path, inner: str | None = None) -> Path:
    """Extract `archive` (zip, tar, tar.gz, tar.bz2, tar.xz) to the folder `target` and return it.

    If the archive contains another archive named `inner`, in any folder, `target` gets only the content of that one.

    Raises:
        UserError: if the file is not a complete archive, would write outside `target`, links out of it or to nothing,
            contains device files, or unpacks to more than MAX_UNPACKED_BYTES or MAX_COMPRESSION_RATIO times its size.
    """
    return build_dataset_folder(target, lambda folder: _extract_nested(archive, folder, inner))


def _extract_nested(archive: Path, folder: Path, inner: str | None) -> None:
    budget = _Budget(archive)
    _extract(archive, folder, budget)
    if inner and (nested_file := find_nested_archive(folder, inner)):
        outer_paths = set(folder.iterdir())
        temporary_folder = Path(tempfile.mkdtemp(dir=folder))
        _extract(nested_file, temporary_folder, budget)
        _remove(outer_paths)
        for member in temporary_folder.iterdir():
            member.replace(folder / member.name)
        temporary_folder.rmdir()


def find_nested_archive(folder: Path, name: str) -> Path | None:
    """Return the file called `name` in `folder` or below: the outermost of several, or None."""
    candidates = [path for path in folder.rglob(name) if path.is_file()]
    return min(candidates, key=lambda path: len(path.parts), default=None)


def _remove(paths: Collection[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


class _Budget:
    """Counts the bytes that `archive` unpacks to, with those of an archive inside, and ends a bomb."""

    def __init__(self, archive: Path) -> None:
        self._archive_size = archive.stat().st_size
        self._limit = min(MAX_UNPACKED_BYTES, MAX_COMPRESSION_RATIO * self._archive_size + (1 << 20))
        self._num_bytes = 0

    def spend(self, num_bytes: int) -> None:
        """Count `num_bytes` more.

        Raises:
            ValueError: if that is too much for the size of the archive.
        """
        self._num_bytes += num_bytes
        if num_bytes < 0 or self._num_bytes > self._limit:
            ratio = self._num_bytes / self._archive_size
            raise ValueError(f"it unpacks to {self._num_bytes} bytes or more, {ratio:.0f} times its own size")


def _extract(archive: Path, folder: Path, budget: _Budget) -> None:
    try:
        if _is_zip(archive):
            _extract_zip(archive, folder, budget)
        elif tarfile.is_tarfile(archive):
            _extract_tar(archive, folder, budget)
        else:
            raise ValueError("it is neither zip nor tar")
        if not any(path.is_file() for path in folder.rglob("*")):
            raise ValueError("it holds no file")
    except ARCHIVE_ERRORS as error:
        raise _build_error(archive, str(error) or type(error).__name__) from error
    except OSError as error:
        if error.errno is not None and error.errno not in NAME_ERRNOS:
            raise
        name = f": a member {Path(error.filename).name!r}" if error.filename else ""
        # bz2 and gzip report damaged data without errno
        raise _build_error(archive, f"{error.strerror or error}{name}") from error


def _is_zip(archive: Path) -> bool:
    """Return whether the archive is a zip; a tar whose last member is a zip ends like one."""
    with archive.open("rb") as stream:
        begins_like_zip = stream.read(4) in ZIP_SIGNATURES
    return zipfile.is_zipfile(archive) and (begins_like_zip or not tarfile.is_tarfile(archive))


def _extract_zip(archive: Path, folder: Path, budget: _Budget) -> None:
    """Extract a zip. A link becomes a plain file with the path that it leads to."""
    with zipfile.ZipFile(archive) as zip_archive:
        members = zip_archive.infolist()
        budget.spend(sum(member.file_size for member in members))
        for member in members:
            name = _decode_zip_name(member)
            if name.startswith(("/", "\\")):
                raise ValueError(f"{name!r} would be written outside the folder")
            path = _resolve_name(folder, name)
            if member.flag_bits & ENCRYPTED_FLAG:
                raise ValueError(f"it is encrypted: {name!r}")
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            with zip_archive.open(member) as content:
                _write_file(path, content, member.file_size)


def _decode_zip_name(member: zipfile.ZipInfo) -> str:
    """Return the name of a member. Many programs write UTF-8 without saying so, or the separators of Windows."""
    name = member.filename
    if not member.flag_bits & UTF_8_FLAG:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = member.filename
    return name.replace("\\", "/") if member.create_system == DOS_SYSTEM else name


def _extract_tar(archive: Path, folder: Path, budget: _Budget) -> None:
    class Header(tarfile.TarInfo):
        """Notes whether the last header is the end of the archive: tarfile takes damage for the end."""

        is_end = False

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            Header.is_end = len(buf) == TAR_BLOCK_BYTES and not any(buf)
            return super().frombuf(buf, encoding, errors)

    links = list[tarfile.TarInfo]()
    with tarfile.open(archive, tarinfo=Header) as tar_archive:
        for member in _iter_forward(tar_archive):
            budget.spend(max(member.size, TAR_BLOCK_BYTES))
            if member.islnk() or member.issym():
                links.append(member)
            elif member.isdir():
                _resolve_name(folder, member.name.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif member.isreg() and (content := tar_archive.extractfile(member)):
                _write_file(_resolve_name(folder, member.name.lstrip("/")), content, member.size)
            else:
                raise ValueError(f"{member.name!r} is a device or a pipe")
        if not Header.is_end:
            raise EOFError("it is damaged or not complete: its end is missing")
        assert tar_archive.fileobj is not None
        while padding := tar_archive.fileobj.read(COPY_BYTES):  # gzip verifies its checksum at the end of the file
            budget.spend(len(padding))
    _create_links(folder, links, budget)


def _iter_forward(tar_archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members; forged sizes can lead tarfile back to a header that it has read, for ever."""
    last_offset = -1
    for member in tar_archive:
        if member.offset <= last_offset or member.size < 0:
            raise ValueError(f"{member.name!r} has a forged size")
        last_offset = member.offset
        yield member


def _resolve_name(folder: Path, name: str) -> Path:
    """Return the path of a member below `folder`.

    Raises:
        ValueError: if it would be outside.
    """
    path = posixpath.normpath(name)
    if path.startswith(("/", "../")) or path == ".." or "\0" in path:
        raise ValueError(f"{name!r} would be written outside the folder")
    return folder / path


def _write_file(path: Path, content: IO[bytes], size: int) -> None:
    """Write a member; of several with one name the last one stays, as with unzip and tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        shutil.copyfileobj(content, stream, COPY_BYTES)
        if stream.tell() != size:
            raise EOFError(f"{path.name!r} is not complete")


def _create_links(folder: Path, links: Collection[tarfile.TarInfo], budget: _Budget) -> None:
    """Create the links of a tar after all of its files.

    Raises:
        ValueError: if one leads out of `folder` or to nothing.
    """
    symbolic_links = list[tuple[Path, str]]()
    for link in links:
        name = link.name.lstrip("/")
        path = _resolve_name(folder, name)
        target = link.linkname if link.islnk() else posixpath.join(posixpath.dirname(name), link.linkname)
        target_path = _resolve_name(folder, target)
        path.parent.mkdir(parents=True, exist_ok=True)
        if link.islnk():
            _create_hard_link(path, target_path, link.linkname, budget)
        else:
            symbolic_links.append((path, link.linkname))
    for path, target in symbolic_links:
        path.symlink_to(target)
    for path, target in symbolic_links:
        if not path.exists() or not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path.name!r} is a link to {target!r}, which is not in it")


def _create_hard_link(path: Path, target: Path, name: str, budget: _Budget) -> None:
    if not os.path.lexists(target) or not stat.S_ISREG(target.lstat().st_mode):
        raise ValueError(f"{path.name!r} is a link to {name!r}, which is not in it")
    try:
        os.link(target, path)
    except PermissionError:  # a file system without hard links
        budget.spend(target.stat().st_size)
        shutil.copyfile(target, path)


def _build_error(archive: Path, reason: str) -> UserError:
    return UserError(
        "the archive cannot be extracted.",
        [Problem(str(archive), reason, fix="download it again, or extract it yourself and set dataset.root=FOLDER")],
    )
