"""Find the images that the arguments of `thaw predict` name: files, folders, patterns, or a list on standard input."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from thaw.config.errors import Problem, UserError, find_closest_name

MAX_PROBLEMS = 20
STDIN, GLOB_CHARACTERS = "-", re.compile(r"[*?\[]")
LINE_END = re.compile("[\r\n\0]+")  # `find -print0` separates by zero bytes
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def resolve_image_paths(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the files that `arguments` name, and the paths of files in their folders that are no images.

    Arguments are files, folders with all images below them, patterns, and `-` for a list of files on standard input,
    one per line. A file that is named itself may have any suffix.

    Raises:
        UserError: with every argument that leads to no file.
    """
    problems, paths, left_out = list[Problem](), list[Path](), list[str]()
    for argument in arguments:
        lines = read_path_list() if argument == STDIN else [argument]
        if not lines:
            fix = "find DIR -name '*.jpg' | thaw predict RUN -"
            problems.append(Problem("-", "nothing on standard input", "one path per line", fix))
        for line in lines:
            files, other_files, problem = _resolve_path(line, can_be_pattern=argument != STDIN)
            paths.extend(files)
            left_out.extend(other_files)
            problems.extend([problem] if problem else [])
    if problems:
        overflow = [Problem(f"... and {len(problems) - MAX_PROBLEMS} more")] if len(problems) > MAX_PROBLEMS else []
        raise UserError("nothing was predicted.", [*problems[:MAX_PROBLEMS], *overflow])
    return paths, left_out


def read_path_list() -> list[str]:
    """Read paths from standard input, one per line, also as Windows writes them: CR LF, a byte order mark, UTF-16."""
    stream = sys.stdin
    if not hasattr(stream, "buffer"):
        text = stream.read()
    else:
        content = stream.buffer.read()
        text = content.decode("utf-16", "replace") if content.startswith(UTF16_MARKS) else os.fsdecode(content)
    return [line for line in LINE_END.split(text.removeprefix("\ufeff")) if line.strip()]


def _resolve_path(path_or_pattern: str, can_be_pattern: bool) -> tuple[Iterable[Path], list[str], Problem | None]:
    from thaw.runs.run import is_run

    path = Path(path_or_pattern).expanduser()
    if path.is_file():
        return [path], [], None
    if is_run(path):
        got = "a run directory, whose images are plots"
        fix = f"the run first, then images: thaw predict {path_or_pattern} PATH..."
        return [], [], Problem(path_or_pattern, got, "images to predict", fix)
    if path.is_dir():
        files, other_files = _list_images(path)
        return files, other_files, None if files else _build_no_images_problem(path)
    if can_be_pattern and GLOB_CHARACTERS.search(path_or_pattern):
        files = list(_match_pattern(path))
        problem = Problem(path_or_pattern, "no image matches", "a pattern such as 'photos/**/*.jpg'")
        return files, [], None if files else problem
    return [], [], _build_missing_file_problem(path_or_pattern, path)


def _match_pattern(pattern: Path) -> Iterator[Path]:
    from thaw.data.folder_scan import is_image

    root = Path(pattern.anchor)
    for match in sorted(root.glob(str(pattern.relative_to(root)))):
        if match.is_dir():
            yield from _list_images(match)[0]
        elif is_image(match, match.parent):
            yield match


def _list_images(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images below `folder`, sorted, and the paths of its other files that are not hidden."""
    from thaw.data.folder_scan import HIDDEN, SYSTEM_FILE, scan_folder

    scan = scan_folder(folder)
    visible_files = [path for path, reason in scan.ignored.items() if reason not in (HIDDEN, SYSTEM_FILE)]
    return sorted(folder / path for path in scan.top.iter_images()), [str(folder / path) for path in visible_files]


def _build_missing_file_problem(argument: str, path: Path) -> Problem:
    parent = path.parent
    closest = find_closest_name(path.name, [sibling.name for sibling in parent.glob("*")]) if parent.is_dir() else None
    got = "no such file" if parent.is_dir() else f"no folder {parent}"
    fix = str(parent / closest) if closest else ""
    return Problem(argument, got, "a file, a folder, a pattern, or - for a list", fix)


def _build_no_images_problem(folder: Path) -> Problem:
    from thaw.data.image import IMAGE_SUFFIXES

    has_checkpoint = any(folder.glob("*.ckpt"))
    actual = "a checkpoint, and no images" if has_checkpoint else "no images in it"
    fix = "the checkpoint first, then images" if has_checkpoint else ""
    return Problem(str(folder), actual, f"images {', '.join(IMAGE_SUFFIXES)}", fix)
