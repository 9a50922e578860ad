"""Words of a command line -> image files."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from thaw.config.faults import Fault, UserFault, nearest
from thaw.training.run import RECORD

MOST_FAULTS = 20
STDIN, PATTERN = "-", re.compile(r"[*?\[]")


def image_files(words: Sequence[str]) -> list[Path]:
    """The files that `words` name: files, folders with all images below them, patterns, and `-` for a list of files on
    standard input, one a line. A file that is named itself may have any suffix.

    Raises:
        UserFault: naming every word that leads to no file.
    """
    faults, found = list[Fault](), list[Path]()
    for word in words:
        lines = [line.rstrip("\n") for line in sys.stdin] if word == STDIN else [word]
        lines = [line for line in lines if line]
        if not lines:
            faults.append(
                Fault("-", "nothing on standard input", "one path a line", "find DIR -name '*.jpg' | thaw ...")
            )
        for line in lines:
            files, fault = _files(line, patterns=word != STDIN)
            found.extend(files)
            faults.extend([fault] if fault else [])
    if faults:
        more = [Fault(f"... and {len(faults) - MOST_FAULTS} more")] if len(faults) > MOST_FAULTS else []
        raise UserFault("nothing was predicted.", [*faults[:MOST_FAULTS], *more])
    return found


def _files(word: str, patterns: bool) -> tuple[list[Path], Fault | None]:
    path = Path(word).expanduser()
    if path.is_file():
        return [path], None
    if (path / RECORD).is_file():
        got = "a run directory, whose pictures are plots"
        return [], Fault(word, got, "images to predict", f"the run first, then images: thaw predict {word} PATH...")
    if path.is_dir():
        files = sorted(_images_below(path))
        return files, None if files else _no_images(path)
    if patterns and PATTERN.search(word):
        start = Path(path.anchor)
        matches = sorted(start.glob(str(path.relative_to(start))))
        files = [file for one in matches for file in ([one] if _is_image(one) else sorted(_images_below(one)))]
        return files, None if files else Fault(word, "no image matches", "a pattern such as 'photos/**/*.jpg'")
    near = nearest(path.name, [one.name for one in path.parent.glob("*")]) if path.parent.is_dir() else None
    got = "no such file" if path.parent.is_dir() else f"no folder {path.parent}"
    return [], Fault(word, got, "a file, a folder, a pattern, or - for a list", str(path.parent / near) if near else "")


def _images_below(folder: Path) -> Iterator[Path]:
    from thaw.data.rows import is_image

    return (one for one in folder.rglob("*") if is_image(one, folder)) if folder.is_dir() else iter(())


def _is_image(path: Path) -> bool:
    from thaw.data.rows import is_image

    return is_image(path, path.parent)


def _no_images(folder: Path) -> Fault:
    from thaw.data.rows import SUFFIXES

    has_checkpoint = any(folder.glob("*.ckpt"))
    got = "a checkpoint, and no images" if has_checkpoint else "no images in it"
    fix = "the checkpoint first, then images" if has_checkpoint else ""
    return Fault(str(folder), got, f"images {', '.join(SUFFIXES)}", fix)
