"""`thaw predict CHECKPOINT PATH...`: predict images, or read captchas."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from thaw.cli.arguments import run_interruptible
from thaw.cli.grammar import Parameters, Verb
from thaw.cli.image_paths import resolve_image_paths
from thaw.cli.options import FilePath, Option, flag, path_argument
from thaw.config.errors import EXIT_FAILURE, EXIT_SUCCESS, Problem, format_names
from thaw.config.printable import escape_line
from thaw.system.tables import measure_width, shorten_middle

if TYPE_CHECKING:
    from thaw.inference.captcha import CaptchaReading, CaptchaScore
    from thaw.inference.load import Classifier
    from thaw.inference.predict import Prediction

Item = TypeVar("Item")
Row = dict[str, Any]
RowWriter = Callable[[Iterable[Row]], None]
DEFAULT_TOP, MAX_GRID_IMAGES, MAX_SHOWN_NAMES = 3, 64, 5


def _find_problems(parameters: Parameters) -> Iterator[Problem]:
    if parameters["json"] and parameters["csv"]:
        yield Problem("--json --csv", "two formats", "one", "leave one out")
    if not parameters["captcha"] and parameters["characters"]:
        yield Problem("--characters", "it is for captchas", fix="--captcha --characters N")
    for name in ("top", "grid"):
        if parameters["captcha"] and parameters[name]:
            yield Problem(f"--{name}", "it is not for captchas", fix="leave it out")
    if grid := parameters["grid"]:
        if grid.suffix.lower() != ".png":
            yield Problem(f"--grid {grid}", grid.suffix or "no suffix", ".png", f"--grid {grid.with_suffix('.png')}")
        elif not grid.absolute().parent.is_dir():
            yield Problem(f"--grid {grid}", f"no folder {grid.parent}", fix=f"mkdir {grid.parent}")


@Verb(
    "predict",
    summary="predict images, or read captchas, with a trained network",
    examples=(
        "thaw predict outputs/RUN photos --grid predictions.png",
        "thaw predict best.ckpt 'photos/**/*.jpg' --csv > predictions.csv",
    ),
    description="RUN|CKPT is a run directory, or a checkpoint of one; nothing else of the run is needed. PATH is a "
    "file, a folder with all images below it, a quoted pattern, or - for a list of files on standard input.\n\n"
    "Rows are written as they come. Images that cannot be decoded are named on standard error, and the others are "
    "predicted. thaw submit writes Kaggle's file for dog breeds.",
    paths=(path_argument("checkpoint", "RUN|CKPT", FilePath()), path_argument("paths", "PATH...", click.Path())),
    options=(
        Option("--top", type=click.IntRange(min=1), metavar="N",
               help=f"number of classes with their probabilities, best first (default: {DEFAULT_TOP})"),
        flag("--json", 'one array with {"path", "label", "probability", "top": [[class, probability], ...]} for each '
             'image, or {"path", "broken": reason}'),
        flag("--csv", "columns path, label, probability, label_2, probability_2, ...; no row for a broken image"),
        Option("--grid", type=FilePath(), metavar="FILE.png",
               help="the first 64 images as the network sees them, with class and probability"),
        flag("--captcha", "crop each image into squares side by side, a character each, and read the text; with a "
             "labels.csv (file,text) beside the images, count the right texts and characters"),
        Option("--characters", type=click.IntRange(min=1), metavar="N",
               help="crop each captcha into N parts of equal width instead"),
    ),
    check=_find_problems,
    exit_statuses="0 all images were read; 1 some could not be decoded; 2 there is something for you to change.",
    no_args_is_help=True,
)  # fmt: skip
def predict(checkpoint: Path, paths: Sequence[str], json: bool, csv: bool, **settings: Any) -> int:
    """Predict the images of `paths` and return the exit status.

    Raises:
        UserError: for a file that is no checkpoint, or paths without images.
    """
    image_paths, left_out = resolve_image_paths(paths)  # before torch is imported
    if left_out and not settings["captcha"]:  # captchas have a table beside them
        names = format_names(map(escape_line, left_out), MAX_SHOWN_NAMES)
        print(f"left out, as they are no images: {len(left_out)} ({names})", file=sys.stderr)
    from thaw.inference.load import load

    classifier = load(checkpoint)
    write_rows = _write_json if json else _write_csv if csv else _write_table
    if settings["captcha"]:
        summary_stream = sys.stdout if write_rows is _write_table else sys.stderr  # the one without rows
        num_characters = settings["characters"]
        return run_interruptible(
            lambda: _read_captchas(classifier, image_paths, num_characters, write_rows, summary_stream)
        )
    top_k = settings["top"] or DEFAULT_TOP
    return run_interruptible(lambda: _predict(classifier, image_paths, top_k, write_rows, settings["grid"]))


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
            best = {"label": prediction.label, "probability": prediction.probability}
            yield {"path": prediction.path, **best, "top": prediction.top}

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
            if reading.error:
                yield {"path": str(reading.path), "broken": reading.error}
            else:
                yield {"path": str(reading.path), "text": reading.text, "probability": reading.probability}

    write_rows(_report_broken_rows(iter_rows()))
    if captcha_score := score_readings(captcha_readings, labels):
        print(f"\n{_format_score(captcha_score)}", file=summary_stream)
    return _report_broken_count(sum(bool(reading.error) for reading in captcha_readings), len(paths))


def _format_score(score: CaptchaScore) -> str:
    (low, high), (characters_low, characters_high) = score.string_accuracy_ci95, score.character_accuracy_ci95
    strings = f"{score.string_accuracy:.3f} of {score.count}, 95 % interval {low:.3f} to {high:.3f}"
    characters = f"{score.character_accuracy:.3f}, {characters_low:.3f} to {characters_high:.3f}"
    return (
        f"strings read entirely right: {strings}\ncharacters right: {characters}; to the power of "
        f"{score.mean_length:g}, the characters of a string: {score.expected_string_accuracy:.3f}"
    )


def _report_broken_rows(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        if "broken" in row:
            print(escape_line(f"broken: {row['path']}: {row['broken']}"), file=sys.stderr)
        yield row


def _write_json(rows: Iterable[Row]) -> None:
    """Print an array; each row is a whole line as soon as it is known."""
    prefix = "[ "
    for row in rows:
        print(f"{prefix}{json.dumps(row)}", flush=True)
        prefix = ", "
    print("]")


def _write_csv(rows: Iterable[Row]) -> None:
    """Print comma-separated values. The header comes with the first row, which has the number of classes."""
    from thaw.system.csv_files import write_rows

    def print_row(cells: Sequence[str]) -> None:
        write_rows(sys.stdout, [cells])

    has_header = False
    for row in rows:
        if "broken" in row:
            continue
        pairs = _get_label_probabilities(row)
        if not has_header:
            ranks = range(2, len(pairs) + 1)
            extra_columns = [f"{name}_{rank}" for rank in ranks for name in ("label", "probability")]
            print_row(["path", "label" if "top" in row else "text", "probability", *extra_columns])
            has_header = True
        print_row([row["path"], *(cell for name, probability in pairs for cell in (name, f"{probability:.6f}"))])


def _write_table(rows: Iterable[Row]) -> None:
    """Print aligned columns, as wide as the rows so far: rows do not wait until all widths are known. On a terminal
    the middle of long paths and names is left out."""
    from thaw.system.terminal import build_console

    screen_width = build_console().width if sys.stdout.isatty() else 0
    widths: dict[int, int] = {}
    for row in rows:
        if "broken" in row:
            continue
        pairs = _get_label_probabilities(row)
        cells = [escape_line(row["path"]), *(f"{escape_line(name)} {probability:.3f}" for name, probability in pairs)]
        if screen_width:
            cells = fit_cells(cells, screen_width)
        widths = {column: max(widths.get(column, 0), measure_width(cell)) for column, cell in enumerate(cells)}
        padded_cells = [cell + " " * (widths[column] - measure_width(cell)) for column, cell in enumerate(cells)]
        print("  ".join(padded_cells).rstrip())


def fit_cells(cells: Sequence[str], width: int) -> list[str]:
    """Shorten a path and `NAME PROBABILITY` cells to `width` cells of a terminal; all probabilities stay."""
    column_width = width // (len(cells) + 1) - 2  # the path has the room of two
    pairs = [cell.rsplit(" ", 1) for cell in cells[1:]]
    shortened = [f"{shorten_middle(name, max(4, column_width - 6))} {number}" for name, number in pairs]
    used_width = sum(max(column_width, measure_width(cell)) + 2 for cell in shortened)
    return [shorten_middle(cells[0], max(8, width - used_width)), *shortened]


def _get_label_probabilities(row: Row) -> Sequence[tuple[str, float]]:
    return row["top"] if "top" in row else [(row["text"], row["probability"])]


def _report_broken_count(num_broken: int, count: int) -> int:
    if num_broken:
        print(f"{num_broken} of {count} images cannot be decoded", file=sys.stderr)
    return EXIT_FAILURE if num_broken else EXIT_SUCCESS


def _track_progress(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Yield `items` and show on standard error how many have been used."""
    from thaw.system.reporter import ConsoleReporter

    with ConsoleReporter().progress("predicting", count) as advance:
        for item in items:
            yield item
            advance(1)


def _save_grid(classifier: Classifier, predictions: Sequence[Prediction], count: int, file: Path) -> None:
    from thaw.inference.predict import load_pixels
    from thaw.visualization.plots.image_grid import LOW_CONFIDENCE, Caption, save_image_grid

    captions = [
        Caption(
            f"{prediction.label} {prediction.probability:.2f}",
            Path(prediction.path).name,
            is_uncertain=prediction.probability < LOW_CONFIDENCE,
        )
        for prediction in predictions
    ]
    pixels = load_pixels([prediction.path for prediction in predictions], classifier.preprocessing)
    save_image_grid(pixels, captions, file)
    total_note = f"; of {count} images the first" if count > len(predictions) else ""
    print(f"{len(predictions)} images in {file}{total_note}", file=sys.stderr)
