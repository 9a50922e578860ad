"""`thaw data VERB key=value`: download a data set, verify it, look at it; draw captchas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thaw.cli.arguments import compose_recipe, generate_output_path
from thaw.cli.grammar import ANY_RECIPE_KEY, Parameters, Verb, VerbGroup
from thaw.cli.options import Option, config_dir_option, out_option
from thaw.config.errors import EXIT_FAILURE, EXIT_SUCCESS, Problem, UserError

if TYPE_CHECKING:
    from thaw.config.schema import Recipe


@Verb(
    "fetch",
    summary="download and unpack a data set; print where it is and what it holds",
    examples=("thaw data fetch dataset=hymenoptera", "thaw data fetch dataset=cifar10 data.cache_dir=DIR"),
    options=(config_dir_option(),),
    recipe_keys=ANY_RECIPE_KEY,
)
def fetch(overrides: Sequence[str], config_dir: Path | None) -> int:
    """Download the recipe's data set and return the exit status.

    Raises:
        UserError: if the recipe is wrong, or the data cannot be downloaded.
    """
    from thaw.data.factory import load_samples
    from thaw.system.reporter import ConsoleReporter
    from thaw.visualization.reports.console import print_dataset_summary

    recipe = compose_recipe(overrides, config_dir)
    samples = load_samples(recipe, ConsoleReporter())
    print_dataset_summary(ConsoleReporter(), recipe.dataset.name, samples, {})
    print(f"it is in {samples.root}")
    return EXIT_SUCCESS


@Verb(
    "verify",
    summary="check the archive's checksum, hash and decode every image, and name all problems",
    examples=(
        "thaw data verify dataset=hymenoptera",
        "thaw data verify dataset=folder dataset.root=DIR data.near_duplicates=true",
    ),
    description="Hashes and decodes the files themselves: what thaw's cache remembers of them is compared, not used.",
    options=(config_dir_option(),),
    recipe_keys=ANY_RECIPE_KEY,
    exit_statuses="0 no problem; 1 problems in the data; 2 there is something for you to change.",
)
def verify(overrides: Sequence[str], config_dir: Path | None) -> int:
    """Verify the recipe's data set and return the exit status.

    Raises:
        UserError: if the recipe is wrong, or the data cannot be downloaded.
    """
    from thaw.data.factory import load_samples
    from thaw.data.file_index import FileIndex
    from thaw.data.inspection import find_corrupt_archives, verify_dataset
    from thaw.data.problems import build_changed_problems
    from thaw.system.cache_folder import resolve_cache_dir
    from thaw.system.reporter import ConsoleReporter
    from thaw.visualization.reports.console import print_dataset_summary, print_problems

    recipe = compose_recipe(overrides, config_dir)
    cache_dir = resolve_cache_dir(recipe.data.cache_dir)
    archive_problems = find_corrupt_archives(recipe.dataset, cache_dir)
    file_index = FileIndex(cache_dir, ConsoleReporter(), is_trusted=False)
    samples = load_samples(recipe, ConsoleReporter(), file_index=file_index)
    problems = [*archive_problems, *build_changed_problems(file_index.changed)]
    problems += verify_dataset(samples, recipe.data.near_duplicates, ConsoleReporter())
    print_dataset_summary(ConsoleReporter(), recipe.dataset.name, samples, {})
    print_problems(ConsoleReporter(), problems)
    print(f"{len(problems)} kinds of problems" if problems else "every image can be decoded; no problems")
    return EXIT_FAILURE if problems else EXIT_SUCCESS


@Verb(
    "report",
    summary="write a page that shows a data set, and its plots as PNG files",
    examples=("thaw data report dataset=hymenoptera", "thaw data report augment=crop_flip --out DIR"),
    description="Images have dataset.image_size pixels, or ImageNet's 224 if the recipe leaves the size to the source "
    "weights: a report needs no weights.",
    options=(out_option("DIR", "folder to write to (default: a new folder in output_dir)"), config_dir_option()),
    recipe_keys=ANY_RECIPE_KEY,
)
def report(overrides: Sequence[str], out: Path | None, config_dir: Path | None) -> int:
    """Write the report of the recipe's data set and return the exit status.

    Raises:
        UserError: if the recipe is wrong, or the data cannot be downloaded.
    """
    recipe = compose_recipe(overrides, config_dir)
    return _write_report(recipe, out or generate_output_path(recipe, "report"))


def _write_report(recipe: Recipe, folder: Path) -> int:
    from thaw.data.augmentation import build_augmentation
    from thaw.data.batches import ImageDataset
    from thaw.data.factory import load_samples
    from thaw.data.inspection import inspect_dataset
    from thaw.models.pretrained import IMAGENET_PREPROCESSING
    from thaw.system.cache_folder import resolve_cache_dir
    from thaw.system.reporter import ConsoleReporter
    from thaw.visualization.reports.console import print_dataset_summary, print_problems
    from thaw.visualization.reports.dataset import write_report

    name, max_bytes = recipe.dataset.name, recipe.data.store_gib * 2**30
    preprocessing = IMAGENET_PREPROCESSING.with_size(recipe.dataset.image_size, recipe.dataset.crop)
    samples, cache_dir = load_samples(recipe, ConsoleReporter()), resolve_cache_dir(recipe.data.cache_dir)
    inspection = inspect_dataset(
        samples, preprocessing, cache_dir, True, recipe.data.near_duplicates, max_bytes, ConsoleReporter()
    )
    labels, augmentation = inspection.samples.get_labels(), build_augmentation(recipe.augment)
    images = ImageDataset(inspection.store, labels, preprocessing.size, augmentation, recipe.seed)
    print_dataset_summary(ConsoleReporter(), name, inspection.samples, inspection.skipped)
    print_problems(ConsoleReporter(), inspection.problems)
    print(f"the report is {write_report(name, inspection, images, folder)}")
    return EXIT_SUCCESS


def _find_captcha_problems(parameters: Parameters) -> Iterator[Problem]:
    folder = parameters["out"]
    if folder is None:
        yield Problem("--out", "no folder to write to", "--out DIR", "--out captchas")
    elif any(folder.glob("*")):
        yield Problem(f"--out {folder}", "a folder that is not empty", "a new or empty folder")


@Verb(
    "captchas",
    summary="draw captchas of several characters, others than the training images, with a labels.csv",
    examples=("thaw data captchas --out captchas", "thaw data captchas --out captchas --count 50 --length 6"),
    description="thaw predict RUN DIR --captcha reads them.",
    options=(
        out_option("DIR", "a new or empty folder"),
        Option("--count", type=click.IntRange(min=1), default=200, metavar="N", help="number of captchas"),
        Option("--length", type=click.IntRange(min=1), default=4, metavar="N", help="characters of each"),
        Option("--seed", "--draw", type=click.IntRange(min=0), metavar="N", help="which captchas (default: seed=)"),
        config_dir_option(),
    ),
    recipe_keys=ANY_RECIPE_KEY,
    check=_find_captcha_problems,
)
def captchas(
    overrides: Sequence[str], out: Path, count: int, length: int, seed: int | None, config_dir: Path | None
) -> int:
    """Draw captchas into `out` and return the exit status.

    Raises:
        UserError: if the recipe is wrong, or its data set has no characters.
    """
    from thaw.config.schema import CaptchaDatasetConfig
    from thaw.data.captcha import generate_captchas, write_captchas

    recipe = compose_recipe(overrides, config_dir)
    dataset, seed = recipe.dataset, recipe.seed if seed is None else seed
    if not isinstance(dataset, CaptchaDatasetConfig):
        problem = Problem(f"dataset={dataset.name}", "no data set of characters", "dataset=captcha")
        raise UserError("nothing was drawn.", [problem])
    labels_file = write_captchas(generate_captchas(dataset.characters, count, length, dataset.side, seed), out)
    print(f"{count} captchas of {length} characters are in {out}, their texts in {labels_file}")
    return EXIT_SUCCESS


data = VerbGroup("data", "download, verify or report on a data set; draw captchas", [fetch, verify, report, captchas])
