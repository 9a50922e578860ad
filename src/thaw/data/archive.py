"""Archives -> folders. Nothing leaves the target folder, and nothing half-unpacked is taken for complete."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

from thaw.config.faults import Fault, UserFault
from thaw.data.cache import complete_folder

MOST_BYTES = 200 << 30  # unpacked; ImageNet is 150 GiB
MOST_RATIO = 200  # unpacked to packed; images hardly shrink, a bomb shrinks a thousandfold
UNREADABLE = (  # damaged, encrypted, packed by an unknown method, or names that are no text
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
)


def unpacked(archive: Path, target: Path, inner: str | None = None) -> Path:
    """`target`, holding what is in `archive` (zip, tar, tar.gz, tar.bz2, tar.xz). Where `archive` holds another one
    named `inner`, in whatever folder, `target` holds what is in that one, and nothing else.

    Raises:
        UserFault: for a file that is no archive, or one that would write outside `target`, link out of it, make device
            files, or grow past `MOST_RATIO`.
    """
    return complete_folder(target, lambda folder: _unpack_nested(archive, folder, inner))


def _unpack_nested(archive: Path, folder: Path, inner: str | None) -> None:
    _unpack(archive, folder)
    if inner and (nested := nested_archive(folder, inner)):
        outer = set(folder.iterdir())
        aside = Path(tempfile.mkdtemp(dir=folder))
        _unpack(nested, aside)
        _remove(outer)
        for member in aside.iterdir():
            member.replace(folder / member.name)
        aside.rmdir()


def nested_archive(folder: Path, name: str) -> Path | None:
    """The file called `name` in `folder` or below, the outermost of several; None where there is none."""
    found = [path for path in folder.rglob(name) if path.is_file()]
    return min(found, key=lambda path: len(path.parts), default=None)


def _remove(paths: Collection[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _unpack(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _untar(archive, folder)
        else:
            raise _refused(archive, "it is neither zip nor tar")
    except UNREADABLE as error:
        raise _refused(archive, str(error) or type(error).__name__) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _refused(archive, str(error)) from error  # bz2 and gzip say so of damaged data; a disk has a number


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        _check_growth(archive, sum(one.file_size for one in opened.infolist()))
        for member in opened.infolist():
            inside = (folder / member.filename).resolve().is_relative_to(folder.resolve())
            if not inside or member.filename.startswith(("/", "\\")):
                raise _refused(archive, f"{member.filename!r} would be written outside the folder")
            opened.extract(member, folder)  # extract() writes links as plain files, so none can lead out


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        _check_growth(archive, sum(one.size for one in opened))
        opened.extractall(folder, filter="data")  # refuses paths and links that lead out, devices (PEP 706)
        assert opened.fileobj is not None
        while opened.fileobj.read(1 << 20):  # to the end, where gzip compares its check sum
            pass


def _check_growth(archive: Path, size: int) -> None:
    if size > MOST_BYTES or size > MOST_RATIO * archive.stat().st_size + (1 << 20):
        raise _refused(archive, f"it unpacks to {size} bytes, {size / archive.stat().st_size:.0f} times its own size")


def _refused(archive: Path, reason: str) -> UserFault:
    return UserFault(
        "the archive was not unpacked.",
        [Fault(str(archive), reason, fix="fetch it again, or unpack it by hand and give the folder")],
    )
