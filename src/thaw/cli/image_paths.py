"""Resolves the paths of a command line to image files."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from thaw.config.errors import Problem, UserError, find_closest_name

MAX_PROBLEMS = 20
STDIN, GLOB_CHARACTERS = "-", re.compile(r"[*?\[]")


def resolve_image_paths(arguments: Sequence[str]) -> list[Path]:
    """Return the files that `arguments` name: files, folders with all images below them, patterns, and `-` for a list
    of files on standard input, one per line. A file that is named itself may have any suffix.

    Raises:
        UserError: with every argument that leads to no file.
    """
    problems, paths = list[Problem](), list[Path]()
    for argument in arguments:
        lines = [line.rstrip("\n") for line in sys.stdin] if argument == STDIN else [argument]
        lines = [line for line in lines if line]
        if not lines:
            fix = "find DIR -name '*.jpg' | thaw predict RUN -"
            problems.append(Problem("-", "nothing on standard input", "one path per line", fix))
        for line in lines:
            files, problem = _resolve_path(line, can_be_pattern=argument != STDIN)
            paths.extend(files)
            problems.extend([problem] if problem else [])
    if problems:
        overflow = [Problem(f"... and {len(problems) - MAX_PROBLEMS} more")] if len(problems) > MAX_PROBLEMS else []
        raise UserError("nothing was predicted.", [*problems[:MAX_PROBLEMS], *overflow])
    return paths


def _resolve_path(path_or_pattern: str, can_be_pattern: bool) -> tuple[list[Path], Problem | None]:
    from thaw.runs.run import is_run

    path = Path(path_or_pattern).expanduser()
    if path.is_file():
        return [path], None
    if is_run(path):
        got = "a run directory, whose images are plots"
        fix = f"the run first, then images: thaw predict {path_or_pattern} PATH..."
        return [], Problem(path_or_pattern, got, "images to predict", fix)
    if path.is_dir():
        files = sorted(_iter_image_paths(path))
        return files, None if files else _build_no_images_problem(path)
    if can_be_pattern and GLOB_CHARACTERS.search(path_or_pattern):
        files = _match_pattern(path)
        problem = Problem(path_or_pattern, "no image matches", "a pattern such as 'photos/**/*.jpg'")
        return files, None if files else problem
    return [], _build_missing_file_problem(path_or_pattern, path)


def _match_pattern(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    files = list[Path]()
    for match in sorted(root.glob(str(pattern.relative_to(root)))):
        files += [match] if _is_image(match) else sorted(_iter_image_paths(match))
    return files


def _build_missing_file_problem(argument: str, path: Path) -> Problem:
    parent = path.parent
    closest = find_closest_name(path.name, [sibling.name for sibling in parent.glob("*")]) if parent.is_dir() else None
    got = "no such file" if parent.is_dir() else f"no folder {parent}"
    fix = str(parent / closest) if closest else ""
    return Problem(argument, got, "a file, a folder, a pattern, or - for a list", fix)


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
