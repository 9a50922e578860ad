"""Data of a Kaggle competition, fetched by Kaggle's own client with the credentials of the user."""

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
    """The zip of the competition at `url`, kaggle://competitions/NAME, in `folder`. What broke off is continued by the
    client. `instead` are other ways to the data, for the message.

    Raises:
        UserFault: where the client is not installed, finds no credentials or is refused, with everything to be done.
        OSError: where the disk is full or `folder` cannot be written.
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
        except Exception as error:  # requests' own errors and the client's, which have no class in common
            if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
                raise
            raise _competition_error(competition, f"{type(error).__name__}: {error}", alternatives) from error
    if not file.is_file():
        raise _competition_error(competition, f"the client left no {file.name}", alternatives)
    return file


class _ClientError(Exception):
    """There is no client, or it has no credentials."""


def _load_client() -> Any:
    client_output = io.StringIO()
    try:
        with contextlib.redirect_stdout(client_output):  # its own advice stands in our message
            client = importlib.import_module("kaggle").api
            client.authenticate()
    except ImportError as error:
        is_missing = error.name == "kaggle"
        raise _ClientError(
            "the package kaggle is not installed" if is_missing else f"the package kaggle: {error}"
        ) from error
    except SystemExit as error:  # the way in which the client says it
        raise _ClientError("no credentials of Kaggle") from error
    return client


def _competition_error(competition: str, reason: str, alternatives: Sequence[str]) -> UserError:
    page = f"https://www.kaggle.com/competitions/{competition}"
    steps = ['pip install "thaw[kaggle]"', CREDENTIALS_HELP, f"accept the competition's rules at {page}/rules"]
    fix = "; ".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    problem = Problem(f"the competition {competition} at {page}", reason, fix=", or ".join([fix, *alternatives]))
    return UserError(f"the data of {competition} could not be fetched from Kaggle.", [problem])
