"""Extract archives to folders. No file leaves the target folder, and the target is complete or absent."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

from thaw.config.errors import Problem, UserError
from thaw.system.cache_folder import build_folder_once

MAX_UNPACKED_BYTES = 200 << 30  # ImageNet takes 150 GiB
MAX_COMPRESSION_RATIO = 200  # unpacked to packed bytes; images hardly shrink, a bomb shrinks a thousandfold
ARCHIVE_ERRORS = (  # damaged or encrypted files, unknown compression methods, names that cannot be decoded
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
)


def extract_archive(archive: Path, target: Path, inner: str | None = None) -> Path:
    """Extract `archive` (zip, tar, tar.gz, tar.bz2, tar.xz) to the folder `target` and return it.

    If the archive contains another archive named `inner`, in any folder, `target` gets only the content of that one.

    Raises:
        UserError: if the file is not an archive, would write outside `target`, links out of it, creates device files,
            or unpacks to more than MAX_UNPACKED_BYTES or MAX_COMPRESSION_RATIO times its size.
    """
    return build_folder_once(target, lambda folder: _extract_nested(archive, folder, inner))


def _extract_nested(archive: Path, folder: Path, inner: str | None) -> None:
    _extract(archive, folder)
    if inner and (nested_file := find_nested_archive(folder, inner)):
        outer_paths = set(folder.iterdir())
        temporary_folder = Path(tempfile.mkdtemp(dir=folder))
        _extract(nested_file, temporary_folder)
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


def _extract(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _extract_tar(archive, folder)
        else:
            raise _archive_error(archive, "it is neither zip nor tar")
    except ARCHIVE_ERRORS as error:
        raise _archive_error(archive, str(error) or type(error).__name__) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _archive_error(archive, str(error)) from error  # bz2 and gzip report damaged data without errno


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as zip_archive:
        _check_unpacked_size(archive, sum(info.file_size for info in zip_archive.infolist()))
        for member in zip_archive.infolist():
            is_inside = (folder / member.filename).resolve().is_relative_to(folder.resolve())
            if not is_inside or member.filename.startswith(("/", "\\")):
                raise _archive_error(archive, f"{member.filename!r} would be written outside the folder")
            zip_archive.extract(member, folder)  # extract() writes links as plain files: none can lead out


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar_archive:
        _check_unpacked_size(archive, sum(member.size for member in tar_archive))
        tar_archive.extractall(folder, filter="data")  # rejects devices, and paths and links that lead out (PEP 706)
        assert tar_archive.fileobj is not None
        while tar_archive.fileobj.read(1 << 20):  # gzip verifies its checksum at the end of the file
            pass


def _check_unpacked_size(archive: Path, unpacked_size: int) -> None:
    if unpacked_size > MAX_UNPACKED_BYTES or unpacked_size > MAX_COMPRESSION_RATIO * archive.stat().st_size + (1 << 20):
        raise _archive_error(
            archive,
            f"it unpacks to {unpacked_size} bytes, {unpacked_size / archive.stat().st_size:.0f} times its own size",
        )


def _archive_error(archive: Path, reason: str) -> UserError:
    return UserError(
        "the archive cannot be extracted.",
        [Problem(str(archive), reason, fix="download it again, or extract it yourself and set dataset.root=FOLDER")],
    )
