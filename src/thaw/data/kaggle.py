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

from thaw.config.faults import Fault, UserFault

SCHEME = "kaggle://competitions/"
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
CREDENTIALS = (
    "credentials: `kaggle auth login`; or a token in KAGGLE_API_TOKEN or ~/.kaggle/access_token; or KAGGLE_USERNAME "
    "and KAGGLE_KEY; or ~/.kaggle/kaggle.json"
)


def competition_archive(url: str, folder: Path, instead: Sequence[str]) -> Path:
    """The zip of the competition at `url`, kaggle://competitions/NAME, in `folder`. What broke off is continued by the
    client. `instead` are other ways to the data, for the message.

    Raises:
        UserFault: where the client is not installed, finds no credentials or is refused, with everything to be done.
        OSError: where the disk is full or `folder` cannot be written.
    """
    competition = url.removeprefix(SCHEME)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{competition}.zip"  # as the client names it
    with FileLock(folder / f".{competition}.lock"):
        try:
            client = _client()
            client.competition_download_files(competition, path=str(folder), quiet=not sys.stderr.isatty())
        except _Refused as error:
            raise _needs(competition, str(error), instead) from error
        except Exception as error:  # requests' own errors and the client's, which have no class in common
            if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                raise
            raise _needs(competition, f"{type(error).__name__}: {error}", instead) from error
    if not file.is_file():
        raise _needs(competition, f"the client left no {file.name}", instead)
    return file


class _Refused(Exception):
    """There is no client, or it has no credentials."""


def _client() -> Any:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # its own advice stands in our message
            client = importlib.import_module("kaggle").api
            client.authenticate()
    except ImportError as error:
        absent = error.name == "kaggle"
        raise _Refused("the package kaggle is not installed" if absent else f"the package kaggle: {error}") from error
    except SystemExit as error:  # the way in which the client says it
        raise _Refused("no credentials of Kaggle") from error
    return client


def _needs(competition: str, reason: str, instead: Sequence[str]) -> UserFault:
    page = f"https://www.kaggle.com/competitions/{competition}"
    steps = ['pip install "thaw[kaggle]"', CREDENTIALS, f"accept the competition's rules at {page}/rules"]
    fix = "; ".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    fault = Fault(f"the competition {competition} at {page}", reason, fix=", or ".join([fix, *instead]))
    return UserFault(f"the data of {competition} could not be fetched from Kaggle.", [fault])
