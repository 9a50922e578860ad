"""Download the data of a Kaggle competition, with Kaggle's client and the user's credentials."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from thaw.config.errors import Problem, UserError

KAGGLE_URL_PREFIX = "kaggle://competitions/"
DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
CREDENTIALS_HELP = (
    "credentials: `kaggle auth login`; or a token in KAGGLE_API_TOKEN or ~/.kaggle/access_token; or KAGGLE_USERNAME "
    "and KAGGLE_KEY; or ~/.kaggle/kaggle.json"
)


def download_competition(url: str, folder: Path, alternatives: Sequence[str]) -> Path:
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
            client.competition_download_files(competition, path=str(folder), quiet=not sys.stderr.isatty())
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
