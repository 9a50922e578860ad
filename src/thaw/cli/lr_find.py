"""`thaw lr-find key=value`: find a learning rate for a recipe by a range test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thaw.cli.arguments import compose_recipe, generate_output_path, run_interruptible
from thaw.cli.grammar import ANY_RECIPE_KEY, Parameters, Verb
from thaw.cli.options import Number, Option, config_dir_option, out_option
from thaw.config.errors import EXIT_FAILURE, EXIT_SUCCESS, Problem, UserError

if TYPE_CHECKING:
    from thaw.config.schema import Recipe
    from thaw.training.tuner.lr_finder import LRCurve

MIN_STEPS = 25  # ten until the smoothed loss means something, and some to compare with each other


def _find_range_problems(parameters: Parameters) -> Iterator[Problem]:
    min_lr, max_lr = parameters["min_lr"], parameters["max_lr"]
    if min_lr >= max_lr:
        got = "no learning rates between them"
        yield Problem(f"--min-lr {min_lr:g} --max-lr {max_lr:g}", got, "min below max", f"--max-lr {10 * min_lr:g}")


@Verb(
    "lr-find",
    summary="find a learning rate for a recipe: train for some steps while the rate rises",
    examples=("thaw lr-find dataset=hymenoptera strategy=fixed", "thaw lr-find backbone=resnet18 --steps 200"),
    description="Trains the recipe's first phase while optimizer.learning_rate rises from step to step, and suggests "
    "the rate of the steepest descent. Writes the losses (learning_rate.csv) and their plot (learning_rate.png).",
    options=(
        Option("--min-lr", type=Number(min=0, min_open=True), default=1e-7, metavar="RATE", help="first rate"),
        Option("--max-lr", type=Number(min=0, min_open=True), default=10.0, metavar="RATE", help="last rate"),
        Option("--steps", type=click.IntRange(min=MIN_STEPS), default=100, metavar="N", help="optimizer steps"),
        out_option("DIR", "folder to write to (default: a new folder in output_dir)"),
        config_dir_option(),
    ),
    recipe_keys=ANY_RECIPE_KEY,
    check=_find_range_problems,
    exit_statuses="0 done; 1 the loss did not fall, so no rate is suggested; 2 there is something for you to change.",
)
def lr_find(
    overrides: Sequence[str], min_lr: float, max_lr: float, steps: int, out: Path | None, config_dir: Path | None
) -> int:
    """Run the range test and return the exit status.

    Raises:
        UserError: if the recipe cannot be trained.
    """
    recipe = compose_single_device_recipe(overrides, config_dir)  # before torch is imported
    return run_interruptible(lambda: _find_learning_rate(recipe, (min_lr, max_lr), steps, out))


def compose_single_device_recipe(overrides: Sequence[str], config_dir: Path | None) -> Recipe:
    """Return the recipe of `overrides`.

    Raises:
        UserError: with all problems; for a recipe that trains on several devices or continues a run, too.
    """
    recipe = compose_recipe(overrides, config_dir)
    if problems := [*_find_recipe_problems(recipe)]:
        raise UserError("nothing was started.", problems)
    return recipe


def _find_recipe_problems(recipe: Recipe) -> Iterator[Problem]:
    devices, accumulated = recipe.trainer.devices, recipe.trainer.accumulate_grad_batches
    if recipe.resume:
        yield Problem(f"resume={recipe.resume}", "a run", "a recipe, from its start", "leave it out")
    if recipe.trainer.parallel != "auto":
        subject = f"trainer.parallel={recipe.trainer.parallel}"
        yield Problem(subject, "several processes", "one process", "trainer=default")
    if isinstance(devices, int) and devices > 1:
        fix = f"trainer.devices=1 trainer.accumulate_grad_batches={devices * accumulated}, which trains the same way"
        yield Problem(f"trainer.devices={devices}", "several devices", "one device", fix)


def _find_learning_rate(recipe: Recipe, limits: tuple[float, float], steps: int, out: Path | None) -> int:
    from thaw.system.reporter import ConsoleReporter
    from thaw.training.tuner.lr_finder import range_test, write_lr_curve

    curve, phase = range_test(recipe, *limits, steps, ConsoleReporter())
    folder = out or generate_output_path(recipe, "lr_find")
    write_lr_curve(curve, f"{recipe.dataset.name}, {recipe.backbone.name}, {recipe.strategy.name}: {phase}", folder)
    outcome = "the loss diverged" if curve.has_diverged else "the loss did not diverge"
    files = f"{folder}/learning_rate.png, .csv"
    print(f"phase {phase}, {len(curve.learning_rates)} of {steps} steps: {outcome}; {files}")
    return _print_suggested_rate(curve)


def _print_suggested_rate(curve: LRCurve) -> int:
    """The steepest descent is recommended because it comes before any divergence. With frozen features, or a few
    batches that are memorized, the loss falls to 0 and stays there at any rate, and a tenth of the minimum's rate is
    then a tenth of the rate at which the test ended."""
    if curve.steepest_step is None:
        print("the loss hardly fell, so no rate is suggested: try more --steps, or another --min-lr and --max-lr")
        return EXIT_FAILURE
    tenth = curve.learning_rates[curve.minimum_step] / 10
    remark = "" if curve.is_bounded else "   means nothing here: no rate made the loss rise again"
    print(f"\n  steepest descent        {curve.learning_rates[curve.steepest_step]:.1e}   recommended")
    print(f"  a tenth of the minimum  {tenth:.1e}{remark}\n")
    print("It is the peak of the schedule. Rates of single parts are multiples of it, as in the table above.")
    print(f"optimizer.learning_rate={curve.learning_rates[curve.steepest_step]:.1e}")
    return EXIT_SUCCESS
