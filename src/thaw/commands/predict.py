"""`thaw predict RUN|CKPT PATH...`: what a trained network says of images, or of captchas."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from thaw.commands.paths import image_files
from thaw.commands.verbs import asks_for_help, interruptible
from thaw.commands.words import sorted_words
from thaw.config.faults import DONE, Fault, UserFault

if TYPE_CHECKING:
    from thaw.trained.captcha import Reading, Score
    from thaw.trained.prediction import Prediction
    from thaw.trained.restore import Restored

Item = TypeVar("Item")
Row = dict[str, Any]
Write = Callable[[Iterable[Row]], None]

SOME_BROKEN = 1
VALUED, FLAGS = ("--top", "--grid", "--characters"), ("--json", "--csv", "--captcha")
MOST_PICTURES = 64
HELP = """thaw predict RUN|CKPT PATH... [--top K] [--json | --csv] [--grid FILE.png]
thaw predict RUN|CKPT PATH... --captcha [--characters N] [--json | --csv]

  RUN|CKPT         a run directory, or a checkpoint of one; nothing else of the run is needed
  PATH             files, folders with all images below them, quoted patterns, or - for a list on standard input
  --top K          so many classes with their probabilities, best first; 3 where nothing is said
  --json           one array: {"path", "label", "probability", "top": [[class, probability], ...]} an image; a broken
                   one has {"path", "broken": why} in its place
  --csv            columns path, label, probability, label_2, probability_2, ...; no row for a broken image
  --grid FILE.png  the first 64 pictures as the network sees them, with class and probability
  --captcha        cuts each image into squares side by side, a character each, and reads the string; where a labels.csv
                   (file,text) lies beside the images, says how many strings and characters are right
  --characters N   cuts each image into N pieces of equal width instead

    thaw predict outputs/RUN photos --grid predictions.png
    thaw predict best.ckpt 'photos/**/*.jpg' --csv > predictions.csv
    find photos -name '*.jpg' | thaw predict best.ckpt - --json
    thaw data captchas out=captchas && thaw predict outputs/RUN captchas --captcha

Rows are written as they come. Images that cannot be decoded are named on standard error, and the rest goes on.
`thaw submit` writes Kaggle's file for dog breeds. Exit status: 0 all were read; 1 some could not be decoded;
2 something for you to change."""


def run(arguments: Sequence[str]) -> int:
    """Predicts and returns the exit status.

    Raises:
        UserFault: for a file that is no checkpoint, paths that lead nowhere, or wrong options.
    """
    if asks_for_help(arguments):
        print(HELP)
        return DONE
    options, words = sorted_words(arguments, VALUED, FLAGS)
    top, characters = (_whole(options, name) for name in ("--top", "--characters"))
    if faults := [*_faults(options, words)]:
        raise UserFault("nothing was started.", faults)
    checkpoint, *names = words
    paths = image_files(names)
    from thaw.trained.restore import load

    trained = load(checkpoint)
    write = _as_json if "--json" in options else _as_csv if "--csv" in options else _as_table
    if "--captcha" in options:
        aside = sys.stdout if write is _as_table else sys.stderr  # where no row goes
        return interruptible(lambda: _read(trained, paths, characters, write, aside))
    grid = Path(options["--grid"]).expanduser() if "--grid" in options else None
    return interruptible(lambda: _predict(trained, paths, top or 3, write, grid))


def _whole(options: dict[str, str], name: str) -> int | None:
    text = options.get(name, "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserFault("nothing was started.", [Fault(f"{name} {text}", text, "a whole number of at least 1")])
    return int(text) if name in options else None


def _faults(options: dict[str, str], words: Sequence[str]) -> Iterator[Fault]:
    if len(words) < 2:
        got = "no path to images" if words else "no checkpoint, and no path to images"
        yield Fault("thaw predict", got, "thaw predict RUN|CKPT PATH...")
    if {"--json", "--csv"} <= {*options}:
        yield Fault("--json --csv", "two formats", "one", "leave one out")
    reads = "--captcha" in options
    for name in ("--top", "--grid") if reads else ("--characters",):
        if name in options:
            got = "strings have no such thing" if reads else "it is for captchas"
            yield Fault(name, got, fix="leave it out" if reads else "--captcha --characters N")
    grid = Path(options.get("--grid", "a.png")).expanduser()
    if grid.suffix.lower() != ".png":
        yield Fault(f"--grid {grid}", grid.suffix or "no ending", ".png", f"--grid {grid.with_suffix('.png')}")
    elif not grid.absolute().parent.is_dir():
        yield Fault(f"--grid {grid}", f"no folder {grid.parent}", fix=f"mkdir {grid.parent}")


def _predict(trained: Restored, paths: list[Path], top: int, write: Write, grid: Path | None) -> int:
    from thaw.trained.prediction import predictions

    shown: list[Prediction] = []
    broken: list[str] = []

    def rows() -> Iterator[Row]:
        for one in _counted(predictions(trained, paths, top), len(paths)):
            if one.broken:
                broken.append(one.path)
                yield {"path": one.path, "broken": one.broken}
                continue
            shown.extend([one] if grid and len(shown) < MOST_PICTURES else [])
            yield {"path": one.path, "label": one.label, "probability": one.probability, "top": one.top}

    write(_naming_broken(rows()))
    if grid and shown:
        _draw(trained, shown, len(paths) - len(broken), grid)
    return _ended(len(broken), len(paths))


def _read(trained: Restored, paths: list[Path], characters: int | None, write: Write, aside: TextIO) -> int:
    from thaw.trained.captcha import labels_beside, readings, score

    labels = labels_beside(paths)
    found: list[Reading] = []

    def rows() -> Iterator[Row]:
        for one in _counted(readings(trained, paths, characters), len(paths)):
            found.append(one)
            read = {"broken": one.broken} if one.broken else {"text": one.text, "probability": one.probability}
            yield {"path": str(one.path), **read}

    write(_naming_broken(rows()))
    if scored := score(found, labels):
        print(f"\n{_told(scored)}", file=aside)
    return _ended(sum(bool(one.broken) for one in found), len(paths))


def _told(scored: Score) -> str:
    (low, high), (least, most) = scored.strings_ci95, scored.characters_ci95
    return (
        f"strings read entirely right: {scored.strings:.3f} of {scored.count}, 95 % interval {low:.3f} to {high:.3f}\n"
        f"characters right: {scored.characters:.3f}, {least:.3f} to {most:.3f}; to the power of {scored.length:g}, the "
        f"characters of a string: {scored.expected:.3f}"
    )


def _naming_broken(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        if "broken" in row:
            print(f"broken: {row['path']}: {row['broken']}", file=sys.stderr)
        yield row


def _as_json(rows: Iterable[Row]) -> None:
    """Each row is a whole line as soon as it is there."""
    begin = "[ "
    for row in rows:
        print(f"{begin}{json.dumps(row)}", flush=True)
        begin = ", "
    print("]")


def _as_csv(rows: Iterable[Row]) -> None:
    """The header comes with the first row: it says how many classes there are."""
    writer, begun = csv.writer(sys.stdout, lineterminator="\n"), False
    for row in rows:
        if "broken" in row:
            continue
        pairs = _pairs(row)
        if not begun:
            more = [f"{name}_{place}" for place in range(2, len(pairs) + 1) for name in ("label", "probability")]
            writer.writerow(["path", "label" if "top" in row else "text", "probability", *more])
            begun = True
        writer.writerow([row["path"], *(cell for name, share in pairs for cell in (name, f"{share:.6f}"))])


def _as_table(rows: Iterable[Row]) -> None:
    """Columns as wide as what has come: rows are not held back until all widths are known."""
    widths: dict[int, int] = {}
    for row in rows:
        if "broken" in row:
            continue
        cells = [row["path"], *(f"{name} {share:.3f}" for name, share in _pairs(row))]
        widths = {place: max(widths.get(place, 0), len(cell)) for place, cell in enumerate(cells)}
        print("  ".join(f"{cell:<{widths[place]}}" for place, cell in enumerate(cells)).rstrip())


def _pairs(row: Row) -> Sequence[tuple[str, float]]:
    return row["top"] if "top" in row else [(row["text"], row["probability"])]


def _ended(broken: int, count: int) -> int:
    if broken:
        print(f"{broken} of {count} images cannot be decoded", file=sys.stderr)
    return SOME_BROKEN if broken else DONE


def _counted(items: Iterable[Item], count: int) -> Iterator[Item]:
    """With a bar, on a screen that the rows do not go to."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal or sys.stdout.isatty()
    yield from track(items, "predicting", count, console=console, transient=True, disable=hidden)


def _draw(trained: Restored, shown: Sequence[Prediction], count: int, file: Path) -> None:
    from thaw.analysis.sample_grid import save_samples
    from thaw.trained.prediction import squares

    titles = [f"{one.label} {one.probability:.2f}" for one in shown]
    save_samples(squares([one.path for one in shown], trained.preprocessing), titles, [False] * len(shown), file)
    rest = f"; of {count} images the first" if count > len(shown) else ""
    print(f"{len(shown)} pictures in {file}{rest}", file=sys.stderr)
