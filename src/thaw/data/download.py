"""Download files from the network, a mirror, a folder or Kaggle: verified, resumable, and once for all processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from thaw.config.errors import Problem, UserError
from thaw.data.transfer import TransferError, get_file_name, transfer
from thaw.system.cache_folder import cache_write_error
from thaw.system.files import replace_durably
from thaw.system.portable import expand_home
from thaw.system.reporter import SILENT, Reporter

MAX_ATTEMPTS = 4
KAGGLE_URL_PREFIX = "kaggle://competitions/"
DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
CREDENTIALS_HELP = (
    "credentials: `kaggle auth login`; or a token in KAGGLE_API_TOKEN or ~/.kaggle/access_token; or KAGGLE_USERNAME "
    "and KAGGLE_KEY; or ~/.kaggle/kaggle.json"
)


class DownloadError(Exception):
    """No URL provided the complete file; the message contains the answer of each."""


def download(url: str, checksum: str, target: Path, mirror: str | None = None, reporter: Reporter = SILENT) -> Path:
    """Download `url` to the file `target`, verify its `checksum` and return `target`.

    `checksum` is "ALGORITHM:HEX"; a prefix of the digits is enough. A mirror is tried first, for the file of the same
    name. An interrupted download resumes where it stopped; a file with a wrong checksum is downloaded again.

    Raises:
        DownloadError: if no URL provides the file.
        UserError: if the disk is full or the folder is not writable.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not (target.is_file() and has_checksum(target, checksum)):
                _download_from_any(list_urls(url, mirror), checksum, target, reporter)
    except OSError as error:
        raise cache_write_error(target, error) from error
    return target


def list_urls(url: str, mirror: str | None) -> list[str]:
    """Return the URLs of the file in the order in which they are tried."""
    urls = [f"{mirror.rstrip('/')}/{get_file_name(url)}", url] if mirror else [url]
    return list(map(expand_home, urls))


def has_checksum(file: Path, checksum: str) -> bool:
    """Return whether the digest of `file` begins with the digits of `checksum`."""
    algorithm, digits = checksum.split(":", 1)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest().startswith(digits)


def _download_from_any(urls: list[str], checksum: str, target: Path, reporter: Reporter) -> None:
    failures = list[str]()
    for url in urls:
        for attempt in range(MAX_ATTEMPTS):
            try:
                return _download_from(url, checksum, target, reporter)
            except TransferError as error:
                failures.append(f"{url}: {error}")
                is_wrong_again = not error.keeps_part and failures.count(failures[-1]) > 1
                if is_wrong_again or not error.can_retry:
                    break
            time.sleep(0.2 * 2**attempt)
    raise DownloadError("; ".join(dict.fromkeys(failures)))


def _download_from(url: str, checksum: str, target: Path, reporter: Reporter) -> None:
    """Download the rest of the file and move it to `target`. A part that cannot be the beginning of it is removed.

    Raises:
        TransferError: if it is not complete.
    """
    partial_file = target.with_name(target.name + ".part")
    try:
        transfer(url, partial_file, reporter)
        if not has_checksum(partial_file, checksum):
            raise TransferError(f"a file with a checksum other than {checksum}", can_retry=True, keeps_part=False)
    except TransferError as error:
        if not error.keeps_part:
            partial_file.unlink(missing_ok=True)
        raise
    replace_durably(partial_file, target)


def manual_download_error(
    description: str, url: str, checksum: str, instruction: str, reason: str, alternative: str
) -> UserError:
    """Build the error for a file that cannot be downloaded, with the ways to provide it by hand."""
    problem = Problem(
        f"{description} from {url}",
        reason,
        f"a file with checksum {checksum}",
        f"{instruction}; or data.mirror=URL; or {alternative}",
    )
    return UserError(f"{description} could not be downloaded.", [problem])


def download_competition(url: str, folder: Path, alternatives: Sequence[str], reporter: Reporter = SILENT) -> Path:
    """Download the zip of the competition `url`, kaggle://competitions/NAME, to `folder` and return its path.

    The client resumes an interrupted download. `alternatives` are other ways to get the data, for the error message.

    Raises:
        UserError: if the client is not installed, has no credentials or is rejected; it lists all steps to take.
        OSError: if the disk is full or `folder` is not writable.
    """
    competition = url.removeprefix(KAGGLE_URL_PREFIX)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{competition}.zip"  # as the client names it
    with FileLock(folder / f".{competition}.lock"):
        try:
            client = _load_client()
            client.competition_download_files(competition, path=str(folder), quiet=not reporter.shows_progress)
        except _ClientError as error:
            raise _competition_error(competition, str(error), alternatives) from error
        except Exception as error:  # those of requests and of the client have no common base class
            if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
                raise
            raise _competition_error(competition, f"{type(error).__name__}: {error}", alternatives) from error
    if not file.is_file():
        raise _competition_error(competition, f"the client did not write {file.name}", alternatives)
    return file


class _ClientError(Exception):
    """The client is not installed or has no credentials."""


def _load_client() -> Any:
    client_output = io.StringIO()
    try:
        with contextlib.redirect_stdout(client_output):  # our message contains its advice
            client = importlib.import_module("kaggle").api
            client.authenticate()
    except ImportError as error:
        is_missing = error.name == "kaggle"
        raise _ClientError(
            "the package kaggle is not installed" if is_missing else f"the package kaggle: {error}"
        ) from error
    except SystemExit as error:  # how the client reports missing credentials
        raise _ClientError("no Kaggle credentials") from error
    return client


def _competition_error(competition: str, reason: str, alternatives: Sequence[str]) -> UserError:
    page = f"https://www.kaggle.com/competitions/{competition}"
    steps = ['pip install "thaw[kaggle]"', CREDENTIALS_HELP, f"accept the competition's rules at {page}/rules"]
    fix = "; ".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    problem = Problem(f"the competition {competition} at {page}", reason, fix=", or ".join([fix, *alternatives]))
    return UserError(f"the data of {competition} could not be downloaded from Kaggle.", [problem])
