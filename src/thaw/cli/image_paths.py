"""Words of a command line -> image files."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from thaw.config.errors import Problem, UserError, find_closest_name
from thaw.runs.run import is_run

MAX_PROBLEMS = 20
STDIN, GLOB_CHARACTERS = "-", re.compile(r"[*?\[]")


def resolve_image_paths(arguments: Sequence[str]) -> list[Path]:
    """The files that `words` name: files, folders with all images below them, patterns, and `-` for a list of files on
    standard input, one a line. A file that is named itself may have any suffix.

    Raises:
        UserFault: naming every word that leads to no file.
    """
    problems, paths = list[Problem](), list[Path]()
    for argument in arguments:
        lines = [line.rstrip("\n") for line in sys.stdin] if argument == STDIN else [argument]
        lines = [line for line in lines if line]
        if not lines:
            problems.append(
                Problem("-", "nothing on standard input", "one path a line", "find DIR -name '*.jpg' | thaw ...")
            )
        for line in lines:
            files, problem = _resolve_paths(line, can_be_pattern=argument != STDIN)
            paths.extend(files)
            problems.extend([problem] if problem else [])
    if problems:
        overflow = [Problem(f"... and {len(problems) - MAX_PROBLEMS} more")] if len(problems) > MAX_PROBLEMS else []
        raise UserError("nothing was predicted.", [*problems[:MAX_PROBLEMS], *overflow])
    return paths


def _resolve_paths(path_or_pattern: str, can_be_pattern: bool) -> tuple[list[Path], Problem | None]:
    path = Path(path_or_pattern).expanduser()
    if path.is_file():
        return [path], None
    if is_run(path):
        actual = "a run directory, whose pictures are plots"
        return [], Problem(
            path_or_pattern,
            actual,
            "images to predict",
            f"the run first, then images: thaw predict {path_or_pattern} PATH...",
        )
    if path.is_dir():
        files = sorted(_iter_image_paths(path))
        return files, None if files else _build_no_images_problem(path)
    if can_be_pattern and GLOB_CHARACTERS.search(path_or_pattern):
        root = Path(path.anchor)
        matches = sorted(root.glob(str(path.relative_to(root))))
        files = [
            file
            for candidate in matches
            for file in ([candidate] if _is_image(candidate) else sorted(_iter_image_paths(candidate)))
        ]
        return files, None if files else Problem(
            path_or_pattern, "no image matches", "a pattern such as 'photos/**/*.jpg'"
        )
    closest = (
        find_closest_name(path.name, [candidate.name for candidate in path.parent.glob("*")])
        if path.parent.is_dir()
        else None
    )
    actual = "no such file" if path.parent.is_dir() else f"no folder {path.parent}"
    return [], Problem(
        path_or_pattern,
        actual,
        "a file, a folder, a pattern, or - for a list",
        str(path.parent / closest) if closest else "",
    )


def _iter_image_paths(folder: Path) -> Iterator[Path]:
    from thaw.data.readers import is_image

    return (path for path in folder.rglob("*") if is_image(path, folder)) if folder.is_dir() else iter(())


def _is_image(path: Path) -> bool:
    from thaw.data.readers import is_image

    return is_image(path, path.parent)


def _build_no_images_problem(folder: Path) -> Problem:
    from thaw.data.readers import SUFFIXES

    has_checkpoint = any(folder.glob("*.ckpt"))
    actual = "a checkpoint, and no images" if has_checkpoint else "no images in it"
    fix = "the checkpoint first, then images" if has_checkpoint else ""
    return Problem(str(folder), actual, f"images {', '.join(SUFFIXES)}", fix)
