"""`thaw data VERB OVERRIDES`: fetch a data set, verify it, look at it. Overrides are those of train.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import compose_single_recipe, generate_output_path, is_help_request, parse_number, parse_verb
from thaw.config.errors import Problem, UserError
from thaw.config.schema import CaptchaDatasetConfig, Recipe

if TYPE_CHECKING:
    from thaw.data.problems import DatasetProblem

Settings = Mapping[str, str]

EXIT_CLEAN, EXIT_PROBLEMS_FOUND = 0, 1
HELP = """thaw data VERB [dataset=NAME] [key=value ...]

  fetch     get and unpack the data set, say where it lies and what it holds
  verify    check the archive's checksum, decode every image, name all problems
  report    write a page to look at: out=DIR/report.html, and its pictures as PNG files
  captchas  draw captchas of several characters, others than are trained on, with a labels.csv: out=DIR count=200
            length=4 draw=0; draw says which ones. thaw predict RUN DIR --captcha reads them

    thaw data fetch dataset=hymenoptera
    thaw data verify dataset=folder dataset.root=DIR data.near_duplicates=true
    thaw data report dataset=hymenoptera augment=crop_flip out=DIR
    thaw data captchas out=DIR count=200

Settings are those of python train.py. Exit status: 0 done, and no problem found; 1 verify found problems;
2 something for you to change."""


def run(arguments: Sequence[str]) -> int:
    """Runs the verb that comes first in `arguments` and returns the exit status.

    Raises:
        UserFault: where there is no such verb, the settings are wrong, or the data cannot be had.
    """
    if is_help_request(arguments):
        print(HELP)
        return EXIT_CLEAN
    verb, verb_arguments = parse_verb("thaw data", arguments, VERBS)
    handler, defaults = VERBS[verb]
    settings = {
        **defaults,
        **dict(
            argument.split("=", 1)
            for argument in verb_arguments
            if "=" in argument and argument.split("=", 1)[0] in defaults
        ),
    }
    overrides = [
        argument for argument in verb_arguments if argument.split("=", 1)[0] not in defaults or "=" not in argument
    ]
    return handler(compose_single_recipe("thaw data", overrides, "data set", "dataset=NAME and key=value"), settings)


def _download_dataset(recipe: Recipe, _: Settings) -> int:
    from thaw.data.factory import load_samples
    from thaw.system.reporter import ConsoleReporter
    from thaw.visualization.reports.console import print_dataset_summary

    samples = load_samples(recipe)
    print_dataset_summary(ConsoleReporter(), recipe.dataset.name, samples, {})
    print(f"it lies in {samples.root}")
    return EXIT_CLEAN


def _verify_dataset(recipe: Recipe, _: Settings) -> int:
    """Decodes the files themselves, not what an earlier run has kept of them."""
    from thaw.data.factory import load_samples
    from thaw.data.inspection import verify_dataset
    from thaw.system.cache_folder import resolve_cache_dir
    from thaw.system.reporter import ConsoleReporter
    from thaw.visualization.reports.console import print_dataset_summary, print_problems

    cache_dir = resolve_cache_dir(recipe.data.cache_dir)
    archive_problems = list(_find_corrupt_archives(recipe, cache_dir))
    samples = load_samples(recipe)
    problems = [*archive_problems, *verify_dataset(samples, recipe.data.near_duplicates)]
    print_dataset_summary(ConsoleReporter(), recipe.dataset.name, samples, {})
    print_problems(ConsoleReporter(), problems)
    print(f"{len(problems)} kinds of problems" if problems else "every image can be decoded; no problems found")
    return EXIT_PROBLEMS_FOUND if problems else EXIT_CLEAN


def _find_corrupt_archives(recipe: Recipe, cache_dir: Path) -> Iterator[DatasetProblem]:
    """Of those that lie here: fetched ones, and one that dataset.root names."""
    from thaw.config.consistency import get_archives
    from thaw.data.download import has_checksum
    from thaw.data.problems import DatasetProblem

    if recipe.dataset.kind == "captcha":
        return
    checksums = {
        Path(archive.url).name: archive.checksum
        for archive in get_archives(recipe.dataset).values()
        if archive.checksum
    }
    paths = [cache_dir / "downloads" / name for name in checksums]
    paths += [Path(recipe.dataset.root).expanduser()] if recipe.dataset.root else []
    corrupt_paths = [path for path in paths if path.is_file() and path.name in checksums]
    corrupt_paths = [path for path in corrupt_paths if not has_checksum(path, checksums[path.name])]
    if corrupt_paths:
        yield DatasetProblem(
            "archive", "archives with another checksum than the official one", tuple(map(str, corrupt_paths))
        )


def _write_report(recipe: Recipe, settings: Settings) -> int:
    """The images are cut for a network of dataset.image_size pixels, ImageNet's usual 224 where the recipe leaves that
    to the source weights: a report needs no weights."""
    from thaw.data.augmentation import build_augmentation
    from thaw.data.batches import ImageDataset
    from thaw.data.factory import load_samples
    from thaw.data.inspection import inspect_dataset
    from thaw.models.pretrained import IMAGENET_PREPROCESSING
    from thaw.system.cache_folder import resolve_cache_dir
    from thaw.system.reporter import ConsoleReporter
    from thaw.visualization.reports.console import print_dataset_summary, print_problems
    from thaw.visualization.reports.dataset import write_report

    name, cache_dir = recipe.dataset.name, resolve_cache_dir(recipe.data.cache_dir)
    preprocessing = IMAGENET_PREPROCESSING.with_size(recipe.dataset.image_size, recipe.dataset.crop)
    samples = load_samples(recipe)
    max_bytes = recipe.data.store_gib * 2**30
    inspection = inspect_dataset(samples, preprocessing, cache_dir, True, recipe.data.near_duplicates, max_bytes)
    labels, augmentation = inspection.samples.get_labels(), build_augmentation(recipe.augment)
    images = ImageDataset(inspection.store, labels, preprocessing.size, augmentation, recipe.seed)
    print_dataset_summary(ConsoleReporter(), name, inspection.samples, inspection.skipped)
    print_problems(ConsoleReporter(), inspection.problems)
    out = Path(settings["out"]).expanduser() if settings["out"] else generate_output_path(recipe, "report")
    print(f"the report is {write_report(name, inspection, images, out)}")
    return EXIT_CLEAN


def _write_captchas(recipe: Recipe, settings: Settings) -> int:
    """labels.csv comes last: a folder without it was not drawn to the end."""
    from thaw.data.captcha import generate_captchas
    from thaw.system.files import write_text

    if problems := [*_find_captcha_problems(recipe, settings)]:
        raise UserError("nothing was drawn.", problems)
    assert isinstance(recipe.dataset, CaptchaDatasetConfig)
    count, length, seed = (int(settings[key]) for key in ("count", "length", "draw"))
    folder, rows = Path(settings["out"]).expanduser(), ["file,text"]
    folder.mkdir(parents=True, exist_ok=True)
    labelled_images = generate_captchas(recipe.dataset.characters, count, length, recipe.dataset.side, seed)
    for index, (text, image) in enumerate(labelled_images):
        image.save(folder / f"{index:04}.png")
        rows.append(f"{index:04}.png,{text}")
    write_text(folder / "labels.csv", "\n".join(rows) + "\n")
    print(f"{count} captchas of {length} characters are in {folder}, what they say in {folder / 'labels.csv'}")
    return EXIT_CLEAN


def _find_captcha_problems(recipe: Recipe, settings: Settings) -> Iterator[Problem]:
    for key, minimum in (("count", 1), ("length", 1), ("draw", 0)):
        if not parse_number(settings[key], int) >= minimum:
            yield Problem(
                f"{key}={settings[key]}", settings[key], f"a whole number of at least {minimum}", f"{key}={minimum}"
            )
    if not isinstance(recipe.dataset, CaptchaDatasetConfig):
        yield Problem(f"dataset={recipe.dataset.name}", "no data set of characters", "dataset=captcha")
    if not settings["out"]:
        yield Problem("out", "no folder to draw into", "out=DIR", "out=captchas")
    elif any(Path(settings["out"]).expanduser().glob("*")):
        yield Problem(f"out={settings['out']}", "a folder that holds something", "a new or empty one")


VERBS: dict[str, tuple[Callable[[Recipe, Settings], int], Settings]] = {
    "fetch": (_download_dataset, {}),
    "verify": (_verify_dataset, {}),
    "report": (_write_report, {"out": ""}),
    "captchas": (_write_captchas, {"out": "", "count": "200", "length": "4", "draw": "0"}),
}
