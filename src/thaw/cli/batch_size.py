"""`thaw batch-size key=value`: find a batch size for a recipe on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thaw.cli.arguments import run_interruptible
from thaw.cli.grammar import ANY_RECIPE_KEY, Parameters, Verb
from thaw.cli.lr_find import compose_single_device_recipe
from thaw.cli.options import Option, config_dir_option
from thaw.config.errors import EXIT_SUCCESS, Problem

if TYPE_CHECKING:
    from thaw.config.schema import Recipe
    from thaw.training.tuner.batch_size_finder import BatchSizeResult


def _find_range_problems(parameters: Parameters) -> Iterator[Problem]:
    smallest, largest = parameters["min_batch_size"], parameters["max_batch_size"]
    if smallest > largest:
        subject = f"--min-batch-size {smallest} --max-batch-size {largest}"
        yield Problem(subject, "no batch sizes between them", "min up to max", f"--max-batch-size {10 * smallest}")


@Verb(
    "batch-size",
    summary="find a batch size for a recipe: speed and memory of a training step by batch size",
    examples=("thaw batch-size backbone=resnet50", "thaw batch-size dataset.image_size=224 --max-batch-size 64"),
    description="Measures images per second and peak memory of a training step for batches of the smallest size, twice "
    "that, and so on, and suggests the largest that is at most 2 % slower than the fastest.",
    options=(
        Option("--min-batch-size", type=click.IntRange(min=2), default=4, metavar="N", help="smallest batch"),
        Option("--max-batch-size", type=click.IntRange(min=2), default=512, metavar="N", help="largest batch"),
        config_dir_option(),
    ),
    recipe_keys=ANY_RECIPE_KEY,
    check=_find_range_problems,
)
def batch_size(overrides: Sequence[str], min_batch_size: int, max_batch_size: int, config_dir: Path | None) -> int:
    """Measure batch sizes and return the exit status.

    Raises:
        UserError: if the recipe cannot be trained.
    """
    recipe = compose_single_device_recipe(overrides, config_dir)  # before torch is imported
    return run_interruptible(lambda: _find_batch_size(recipe, min_batch_size, max_batch_size))


def _find_batch_size(recipe: Recipe, min_batch_size: int, max_batch_size: int) -> int:
    from thaw.system.reporter import ConsoleReporter
    from thaw.training.tuner.batch_size_finder import find_batch_size

    result = find_batch_size(recipe, min_batch_size, max_batch_size, ConsoleReporter())
    inputs = f"random {result.input_kind} on the device, so without loading and augmentation"
    print(f"phase {result.phase_name}; {inputs}\n")
    _print_trials(result)
    print(f"trainer.batch_size={result.suggestion}")
    if result.suggestion != recipe.trainer.batch_size:
        print(_describe_rate_rule(recipe, result.suggestion))
    return EXIT_SUCCESS


def _print_trials(result: BatchSizeResult) -> None:
    print(f"  {'batch':>5}  {'images/s':>9}  {'peak memory':>12}")
    for trial in result.trials:
        mark = "   suggested" if trial.batch_size == result.suggestion else ""
        print(f"  {trial.batch_size:>5}  {trial.images_per_s:>9,.0f}  {trial.peak_bytes / 2**30:>8.2f} GiB{mark}")
    print(f"\nno larger batch was tried: {result.stop_reason}")
    print("The suggestion is the largest batch that is at most 2 % slower than the fastest.")


def _describe_rate_rule(recipe: Recipe, batch_size: int) -> str:
    from thaw.training.tuner.batch_size_finder import scale_learning_rate

    hint = f"thaw lr-find trainer.batch_size={batch_size} ... measures it"
    scaled = scale_learning_rate(recipe, batch_size)
    if scaled is None:
        return f"no rule for the learning rate of {recipe.optimizer.name} is known; {hint}"
    factor = f"{batch_size / recipe.trainer.batch_size:g} times the recipe's {recipe.trainer.batch_size}"
    return f"{factor}: optimizer.learning_rate={scaled[0]:.2g} by a rule of thumb ({scaled[1]});\n{hint}"
