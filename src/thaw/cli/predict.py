"""`thaw predict RUN|CKPT PATH...`: what a trained network says of images, or of captchas."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from thaw.cli.arguments import is_help_request, parse_arguments, run_interruptible
from thaw.cli.image_paths import resolve_image_paths
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError

if TYPE_CHECKING:
    from thaw.inference.captcha import CaptchaReading, CaptchaScore
    from thaw.inference.load import Classifier
    from thaw.inference.predict import Prediction

Item = TypeVar("Item")
Row = dict[str, Any]
RowWriter = Callable[[Iterable[Row]], None]

EXIT_BROKEN_IMAGES = 1
VALUE_OPTIONS, FLAGS = ("--top", "--grid", "--characters"), ("--json", "--csv", "--captcha")
MAX_GRID_IMAGES = 64
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
    if is_help_request(arguments):
        print(HELP)
        return EXIT_SUCCESS
    options, positionals = parse_arguments(arguments, VALUE_OPTIONS, FLAGS)
    top_k, num_characters = (_parse_positive_int(options, name) for name in ("--top", "--characters"))
    if problems := [*_find_problems(options, positionals)]:
        raise UserError("nothing was started.", problems)
    checkpoint_path, *path_arguments = positionals
    paths = resolve_image_paths(path_arguments)
    from thaw.inference.load import load

    classifier = load(checkpoint_path)
    write_rows = _write_json if "--json" in options else _write_csv if "--csv" in options else _write_table
    if "--captcha" in options:
        summary_stream = sys.stdout if write_rows is _write_table else sys.stderr  # where no row goes
        return run_interruptible(lambda: _read_captchas(classifier, paths, num_characters, write_rows, summary_stream))
    grid_path = Path(options["--grid"]).expanduser() if "--grid" in options else None
    return run_interruptible(lambda: _predict(classifier, paths, top_k or 3, write_rows, grid_path))


def _parse_positive_int(options: dict[str, str], name: str) -> int | None:
    text = options.get(name, "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError("nothing was started.", [Problem(f"{name} {text}", text, "a whole number of at least 1")])
    return int(text) if name in options else None


def _find_problems(options: dict[str, str], positionals: Sequence[str]) -> Iterator[Problem]:
    if len(positionals) < 2:
        actual = "no path to images" if positionals else "no checkpoint, and no path to images"
        yield Problem("thaw predict", actual, "thaw predict RUN|CKPT PATH...")
    if {"--json", "--csv"} <= {*options}:
        yield Problem("--json --csv", "two formats", "one", "leave one out")
    is_captcha = "--captcha" in options
    for name in ("--top", "--grid") if is_captcha else ("--characters",):
        if name in options:
            actual = "strings have no such thing" if is_captcha else "it is for captchas"
            yield Problem(name, actual, fix="leave it out" if is_captcha else "--captcha --characters N")
    grid_path = Path(options.get("--grid", "a.png")).expanduser()
    if grid_path.suffix.lower() != ".png":
        yield Problem(
            f"--grid {grid_path}", grid_path.suffix or "no ending", ".png", f"--grid {grid_path.with_suffix('.png')}"
        )
    elif not grid_path.absolute().parent.is_dir():
        yield Problem(f"--grid {grid_path}", f"no folder {grid_path.parent}", fix=f"mkdir {grid_path.parent}")


def _predict(
    classifier: Classifier, paths: list[Path], top_k: int, write_rows: RowWriter, grid_path: Path | None
) -> int:
    from thaw.inference.predict import predict_images

    grid_predictions: list[Prediction] = []
    broken_paths: list[str] = []

    def iter_rows() -> Iterator[Row]:
        for prediction in _track_progress(predict_images(classifier, paths, top_k), len(paths)):
            if prediction.error:
                broken_paths.append(prediction.path)
                yield {"path": prediction.path, "broken": prediction.error}
                continue
            grid_predictions.extend([prediction] if grid_path and len(grid_predictions) < MAX_GRID_IMAGES else [])
            yield {
                "path": prediction.path,
                "label": prediction.label,
                "probability": prediction.probability,
                "top": prediction.top,
            }

    write_rows(_report_broken_rows(iter_rows()))
    if grid_path and grid_predictions:
        _save_grid(classifier, grid_predictions, len(paths) - len(broken_paths), grid_path)
    return _report_broken_count(len(broken_paths), len(paths))


def _read_captchas(
    classifier: Classifier, paths: list[Path], num_characters: int | None, write_rows: RowWriter, summary_stream: TextIO
) -> int:
    from thaw.inference.captcha import read_captchas, read_labels, score_readings

    labels = read_labels(paths)
    captcha_readings: list[CaptchaReading] = []

    def iter_rows() -> Iterator[Row]:
        for reading in _track_progress(read_captchas(classifier, paths, num_characters), len(paths)):
            captcha_readings.append(reading)
            result = (
                {"broken": reading.error}
                if reading.error
                else {"text": reading.text, "probability": reading.probability}
            )
            yield {"path": str(reading.path), **result}

    write_rows(_report_broken_rows(iter_rows()))
    if captcha_score := score_readings(captcha_readings, labels):
        print(f"\n{_format_score(captcha_score)}", file=summary_stream)
    return _report_broken_count(sum(bool(reading.error) for reading in captcha_readings), len(paths))


def _format_score(captcha_score: CaptchaScore) -> str:
    (low, high), (characters_low, characters_high) = (
        captcha_score.string_accuracy_ci95,
        captcha_score.character_accuracy_ci95,
    )
    return (
        f"strings read entirely right: {captcha_score.string_accuracy:.3f} of {captcha_score.count}, 95 % interval {low:.3f} to {high:.3f}\n"
        f"characters right: {captcha_score.character_accuracy:.3f}, {characters_low:.3f} to {characters_high:.3f}; to the power of {captcha_score.mean_length:g}, the "
        f"characters of a string: {captcha_score.expected_string_accuracy:.3f}"
    )


def _report_broken_rows(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        if "broken" in row:
            print(f"broken: {row['path']}: {row['broken']}", file=sys.stderr)
        yield row


def _write_json(rows: Iterable[Row]) -> None:
    """Each row is a whole line as soon as it is there."""
    prefix = "[ "
    for row in rows:
        print(f"{prefix}{json.dumps(row)}", flush=True)
        prefix = ", "
    print("]")


def _write_csv(rows: Iterable[Row]) -> None:
    """The header comes with the first row: it says how many classes there are."""
    writer, has_header = csv.writer(sys.stdout, lineterminator="\n"), False
    for row in rows:
        if "broken" in row:
            continue
        pairs = _get_label_probabilities(row)
        if not has_header:
            extra_columns = [
                f"{name}_{position}" for position in range(2, len(pairs) + 1) for name in ("label", "probability")
            ]
            writer.writerow(["path", "label" if "top" in row else "text", "probability", *extra_columns])
            has_header = True
        writer.writerow([row["path"], *(cell for name, probability in pairs for cell in (name, f"{probability:.6f}"))])


def _write_table(rows: Iterable[Row]) -> None:
    """Columns as wide as what has come: rows are not held back until all widths are known."""
    widths: dict[int, int] = {}
    for row in rows:
        if "broken" in row:
            continue
        cells = [row["path"], *(f"{name} {probability:.3f}" for name, probability in _get_label_probabilities(row))]
        widths = {column: max(widths.get(column, 0), len(cell)) for column, cell in enumerate(cells)}
        print("  ".join(f"{cell:<{widths[column]}}" for column, cell in enumerate(cells)).rstrip())


def _get_label_probabilities(row: Row) -> Sequence[tuple[str, float]]:
    return row["top"] if "top" in row else [(row["text"], row["probability"])]


def _report_broken_count(num_broken: int, count: int) -> int:
    if num_broken:
        print(f"{num_broken} of {count} images cannot be decoded", file=sys.stderr)
    return EXIT_BROKEN_IMAGES if num_broken else EXIT_SUCCESS


def _track_progress(items: Iterable[Item], count: int) -> Iterator[Item]:
    """With a bar, on a screen that the rows do not go to."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    is_hidden = not console.is_terminal or sys.stdout.isatty()
    yield from track(items, "predicting", count, console=console, transient=True, disable=is_hidden)


def _save_grid(classifier: Classifier, predictions: Sequence[Prediction], count: int, file: Path) -> None:
    from thaw.inference.predict import load_pixels
    from thaw.visualization.plots.image_grid import save_image_grid

    titles = [f"{prediction.label} {prediction.probability:.2f}" for prediction in predictions]
    save_image_grid(
        load_pixels([prediction.path for prediction in predictions], classifier.preprocessing),
        titles,
        [False] * len(predictions),
        file,
    )
    total_note = f"; of {count} images the first" if count > len(predictions) else ""
    print(f"{len(predictions)} pictures in {file}{total_note}", file=sys.stderr)
