"""`thaw find VERB OVERRIDES`: a learning rate, or a batch size, for a recipe. Overrides are those of train.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import (
    compose_single_recipe,
    generate_output_path,
    is_help_request,
    parse_number,
    parse_verb,
    run_interruptible,
)
from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import Recipe

if TYPE_CHECKING:
    from thaw.training.tuner.batch_size_finder import BatchSizeResult
    from thaw.training.tuner.lr_finder import LRCurve

EXIT_FOUND, EXIT_NOTHING_FOUND = 0, 1
MIN_STEPS = 25  # ten until the smoothed loss means something, and some to compare with each other
HELP = """thaw find VERB [key=value ...]

  learning_rate   train for some steps while the rate rises; write the losses and their picture
                    steps=100 lowest=1e-7 highest=10 out=DIR
  batch_size      images a second and memory of a training step, by batch size
                    lowest=4 highest=512

    thaw find learning_rate dataset=hymenoptera strategy=fixed
    thaw find batch_size backbone=resnet50 dataset.image_size=224

Other settings are those of python train.py. Exit status: 0 done; 1 the loss did not fall, so no rate is suggested;
2 something for you to change."""
Settings = Mapping[str, str]


def run(arguments: Sequence[str]) -> int:
    """Runs the finder that comes first in `arguments` and returns the exit status.

    Raises:
        UserFault: where there is no such finder, the settings are wrong, or the recipe cannot be trained.
    """
    if is_help_request(arguments):
        print(HELP)
        return EXIT_FOUND
    verb, verb_arguments = parse_verb("thaw find", arguments, VERBS)
    finder, defaults = VERBS[verb]
    finder_arguments = [
        argument for argument in verb_arguments if argument.split("=", 1)[0] in defaults and "=" in argument
    ]
    overrides = [argument for argument in verb_arguments if argument not in finder_arguments]
    settings = {**defaults, **dict(argument.split("=", 1) for argument in finder_arguments)}
    if problems := [
        *_find_misspelt_settings(overrides, defaults),
        *_find_number_problems(settings, is_integer=verb == "batch_size"),
    ]:
        raise UserError("nothing was started.", problems)
    recipe = _compose_recipe(overrides)  # before torch is imported
    return run_interruptible(lambda: finder(recipe, settings))


def _find_misspelt_settings(overrides: Sequence[str], defaults: Settings) -> Iterator[Problem]:
    """Words that no recipe has and that are like one of the finder's own."""
    for override in overrides:
        key, _, value = override.partition("=")
        closest = find_closest_name(key, defaults)
        if closest and key not in (*Recipe.model_fields, "experiment"):
            fix = f"{closest}={value or 'VALUE'}"
            yield Problem(
                override,
                f"no setting {key}" if value else "no value",
                f"{format_names(defaults)}, and those of train.py",
                fix,
            )


def _find_number_problems(settings: Settings, is_integer: bool) -> Iterator[Problem]:
    problems = [*_find_limit_problems(settings, is_integer)]
    yield from problems
    low, high = (parse_number(settings[key], float) for key in ("lowest", "highest"))
    if not problems and (
        low > high or (low == high and not is_integer)
    ):  # one batch size can be tried, one rate cannot rise
        subject, fix = f"lowest={settings['lowest']} highest={settings['highest']}", f"highest={10 * low:g}"
        yield Problem(subject, "nothing lies between them", "lowest below highest", fix)
    if "steps" in settings and not parse_number(settings["steps"], int) >= MIN_STEPS:
        valid = f"a whole number of at least {MIN_STEPS}"
        yield Problem(f"steps={settings['steps']}", settings["steps"], valid, "steps=100")


def _find_limit_problems(settings: Settings, is_integer: bool) -> Iterator[Problem]:
    minimum, valid = (2, "a whole number of at least 2") if is_integer else (0, "a number above 0")
    for key in ("lowest", "highest"):
        number = parse_number(settings[key], int if is_integer else float)
        if not (number >= minimum and number > 0):
            yield Problem(f"{key}={settings[key]}", settings[key], valid, f"{key}=NUMBER")


def _compose_recipe(overrides: Sequence[str]) -> Recipe:
    recipe = compose_single_recipe("thaw find", overrides)
    if problems := [*_find_recipe_problems(recipe)]:
        raise UserError("nothing was started.", problems)
    return recipe


def _find_recipe_problems(recipe: Recipe) -> Iterator[Problem]:
    devices = recipe.trainer.devices
    if recipe.resume:
        yield Problem(f"resume={recipe.resume}", "a run", "a recipe, from its start", "leave it out")
    if recipe.trainer.parallel != "auto":
        yield Problem(
            f"trainer.parallel={recipe.trainer.parallel}", "processes", "a finder runs in one", "trainer=default"
        )
    if isinstance(devices, int) and devices > 1:
        equivalent = f"trainer.devices=1 trainer.accumulate_grad_batches={devices * recipe.trainer.accumulate_grad_batches}, which trains alike"
        yield Problem(f"trainer.devices={devices}", "several devices", "a finder runs on one", equivalent)


def _find_learning_rate(recipe: Recipe, settings: Settings) -> int:
    from thaw.system.reporter import ConsoleReporter
    from thaw.training.tuner.lr_finder import range_test

    limits, steps = (float(settings["lowest"]), float(settings["highest"])), int(settings["steps"])
    curve, phase = range_test(recipe, *limits, steps, ConsoleReporter())
    folder = (
        Path(settings["out"]).expanduser() if settings["out"] else generate_output_path(recipe, "find_learning_rate")
    )
    _write_curve(curve, f"{recipe.dataset.name}, {recipe.backbone.name}, {recipe.strategy.name}: {phase}", folder)
    outcome = "the loss diverged" if curve.has_diverged else "the loss did not diverge"
    print(
        f"phase {phase}, {len(curve.learning_rates)} of {settings['steps']} steps: {outcome}; {folder}/learning_rate.png, .csv"
    )
    return _print_suggested_rate(curve)


def _write_curve(curve: LRCurve, title: str, folder: Path) -> None:
    from thaw.system.files import write_text
    from thaw.training.tuner.lr_finder import save_lr_curve

    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(curve.learning_rates, curve.losses, curve.smoothed_losses, strict=True)
    lines = [f"{step},{rate:.6g},{loss:.6g},{mean:.6g}" for step, (rate, loss, mean) in enumerate(rows, 1)]
    write_text(folder / "learning_rate.csv", "\n".join(["step,learning_rate,loss,smoothed_loss", *lines]) + "\n")
    save_lr_curve(curve, title, folder / "learning_rate.png")


def _print_suggested_rate(curve: LRCurve) -> int:
    """The steepest descent is recommended, as it is there before any divergence: with frozen features, or a few batches
    that are learned by heart, the loss falls to 0 and stays there at any rate, and a tenth of the minimum's rate is
    then a tenth of where the test ended."""
    if curve.steepest_step is None:
        print("the loss hardly fell, so no rate is suggested: try more steps=, or another lowest= and highest=")
        return EXIT_NOTHING_FOUND
    tenth = curve.learning_rates[curve.minimum_step] / 10
    remark = "" if curve.is_bounded else "   says nothing here: no rate drove the loss up again"
    print(f"\n  steepest descent        {curve.learning_rates[curve.steepest_step]:.1e}   recommended")
    print(f"  a tenth of the minimum  {tenth:.1e}{remark}\n")
    print("Rates of single parts are multiples of it, as in the table above; a schedule's peak is meant.")
    print(f"optimizer.learning_rate={curve.learning_rates[curve.steepest_step]:.1e}")
    return EXIT_FOUND


def _find_batch_size(recipe: Recipe, settings: Settings) -> int:
    from thaw.system.reporter import ConsoleReporter
    from thaw.training.tuner.batch_size_finder import find_batch_size

    trials = find_batch_size(recipe, int(settings["lowest"]), int(settings["highest"]), ConsoleReporter())
    print(
        f"phase {trials.phase_name}; random {trials.input_kind} that lie on the device, so without loading and augmentation\n"
    )
    _print_trials(trials)
    print(f"trainer.batch_size={trials.suggestion}")
    if trials.suggestion != recipe.trainer.batch_size:
        print(_describe_rate_rule(recipe, trials.suggestion))
    return EXIT_FOUND


def _print_trials(trials: BatchSizeResult) -> None:
    print(f"  {'batch':>5}  {'images/s':>9}  {'peak memory':>12}")
    for trial in trials.trials:
        mark = "   suggested" if trial.batch_size == trials.suggestion else ""
        print(f"  {trial.batch_size:>5}  {trial.images_per_s:>9,.0f}  {trial.peak_bytes / 2**30:>8.2f} GiB{mark}")
    print(f"\nno larger batch was tried: {trials.stop_reason}")
    print("The suggestion is the largest batch that is at most 2 % slower than the fastest.")


def _describe_rate_rule(recipe: Recipe, batch_size: int) -> str:
    """SGD: Goyal et al. 2017, "Accurate, large minibatch SGD"; Adam and RMSprop: Malladi et al. 2022, "On the SDEs and
    scaling rules for adaptive gradient algorithms"."""
    hint = f"thaw find learning_rate trainer.batch_size={batch_size} ... measures it"
    factor, name = batch_size / recipe.trainer.batch_size, recipe.optimizer.name.lower().rpartition(".")[2]
    if "sgd" in name:
        rate, rule = recipe.optimizer.learning_rate * factor, "linear for SGD, Goyal et al. 2017"
    elif "adam" in name or "rmsprop" in name:
        rate, rule = recipe.optimizer.learning_rate * math.sqrt(factor), "square root for Adam, Malladi et al. 2022"
    else:
        return f"no rule for the learning rate of {recipe.optimizer.name} is known; {hint}"
    advice = f"optimizer.learning_rate={rate:.2g} by a rule of thumb ({rule})"
    return f"{factor:g} times the recipe's {recipe.trainer.batch_size}: {advice};\n{hint}"


Finder = Callable[[Recipe, Settings], int]
VERBS: dict[str, tuple[Finder, dict[str, str]]] = {
    "learning_rate": (_find_learning_rate, {"steps": "100", "lowest": "1e-7", "highest": "10", "out": ""}),
    "batch_size": (_find_batch_size, {"lowest": "4", "highest": "512"}),
}
