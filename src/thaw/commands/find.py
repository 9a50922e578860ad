"""`thaw find VERB OVERRIDES`: a learning rate, or a batch size, for a recipe. Overrides are those of train.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.commands.verbs import asks_for_help, interruptible, new_folder, number_of, one_recipe, verb_of
from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.schema import Recipe

if TYPE_CHECKING:
    from thaw.analysis.rate_curve import RateCurve
    from thaw.training.batch_finder import Trials

FOUND, NOTHING_FOUND = 0, 1
FEWEST_STEPS = 25  # ten until the smoothed loss means something, and some to compare with each other
HELP = """thaw find VERB [key=value ...]

  learning_rate   train for some steps while the rate rises; write the losses and their picture
                    steps=100 lowest=1e-7 highest=10 out=DIR
  batch_size      images a second and memory of a training step, by batch size
                    lowest=4 highest=512

    thaw find learning_rate dataset=hymenoptera strategy=fixed
    thaw find batch_size backbone=resnet50 dataset.image_size=224

Other settings are those of python train.py. Exit status: 0 done; 1 the loss did not fall, so no rate is suggested;
2 something for you to change."""
Values = Mapping[str, str]


def run(arguments: Sequence[str]) -> int:
    """Runs the finder that comes first in `arguments` and returns the exit status.

    Raises:
        UserFault: where there is no such finder, the settings are wrong, or the recipe cannot be trained.
    """
    if asks_for_help(arguments):
        print(HELP)
        return FOUND
    verb, rest = verb_of("thaw find", arguments, VERBS)
    finder, defaults = VERBS[verb]
    own = [one for one in rest if one.split("=", 1)[0] in defaults and "=" in one]
    overrides = [one for one in rest if one not in own]
    values = {**defaults, **dict(one.split("=", 1) for one in own)}
    if faults := [*_misspelt(overrides, defaults), *_wrong_numbers(values, whole=verb == "batch_size")]:
        raise UserFault("nothing was started.", faults)
    recipe = _recipe(overrides)  # before torch is imported
    return interruptible(lambda: finder(recipe, values))


def _misspelt(overrides: Sequence[str], own: Values) -> Iterator[Fault]:
    """Words that no recipe has and that are like one of the finder's own."""
    for line in overrides:
        key, _, value = line.partition("=")
        closest = nearest(key, own)
        if closest and key not in (*Recipe.model_fields, "experiment"):
            fix = f"{closest}={value or 'VALUE'}"
            yield Fault(
                line, f"no setting {key}" if value else "no value", f"{listing(own)}, and those of train.py", fix
            )


def _wrong_numbers(values: Values, whole: bool) -> Iterator[Fault]:
    faults = [*_wrong_limits(values, whole)]
    yield from faults
    low, high = (number_of(values[key], float) for key in ("lowest", "highest"))
    if not faults and (low > high or (low == high and not whole)):  # one batch size can be tried, one rate cannot rise
        subject, fix = f"lowest={values['lowest']} highest={values['highest']}", f"highest={10 * low:g}"
        yield Fault(subject, "nothing lies between them", "lowest below highest", fix)
    if "steps" in values and not number_of(values["steps"], int) >= FEWEST_STEPS:
        valid = f"a whole number of at least {FEWEST_STEPS}"
        yield Fault(f"steps={values['steps']}", values["steps"], valid, "steps=100")


def _wrong_limits(values: Values, whole: bool) -> Iterator[Fault]:
    least, valid = (2, "a whole number of at least 2") if whole else (0, "a number above 0")
    for key in ("lowest", "highest"):
        number = number_of(values[key], int if whole else float)
        if not (number >= least and number > 0):
            yield Fault(f"{key}={values[key]}", values[key], valid, f"{key}=NUMBER")


def _recipe(overrides: Sequence[str]) -> Recipe:
    recipe = one_recipe("thaw find", overrides)
    if faults := [*_unfit(recipe)]:
        raise UserFault("nothing was started.", faults)
    return recipe


def _unfit(recipe: Recipe) -> Iterator[Fault]:
    devices = recipe.trainer.devices
    if recipe.resume:
        yield Fault(f"resume={recipe.resume}", "a run", "a recipe, from its start", "leave it out")
    if recipe.trainer.parallel != "auto":
        yield Fault(
            f"trainer.parallel={recipe.trainer.parallel}", "processes", "a finder runs in one", "trainer=default"
        )
    if isinstance(devices, int) and devices > 1:
        alike = f"trainer.devices=1 trainer.accumulate={devices * recipe.trainer.accumulate}, which trains alike"
        yield Fault(f"trainer.devices={devices}", "several devices", "a finder runs on one", alike)


def _learning_rate(recipe: Recipe, values: Values) -> int:
    from thaw.training.rate_finder import range_test

    curve, phase = range_test(recipe, float(values["lowest"]), float(values["highest"]), int(values["steps"]))
    folder = Path(values["out"]).expanduser() if values["out"] else new_folder(recipe, "find_learning_rate")
    _write_curve(curve, f"{recipe.dataset.name}, {recipe.backbone.name}, {recipe.strategy.name}: {phase}", folder)
    ended = "the loss diverged" if curve.diverged else "the loss did not diverge"
    print(f"phase {phase}, {len(curve.rates)} of {values['steps']} steps: {ended}; {folder}/learning_rate.png, .csv")
    return _say_rates(curve)


def _write_curve(curve: RateCurve, title: str, folder: Path) -> None:
    from thaw.analysis.finder_plot import save_rate_curve
    from thaw.training.files import write_text

    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    lines = [f"{step},{rate:.6g},{loss:.6g},{mean:.6g}" for step, (rate, loss, mean) in enumerate(rows, 1)]
    write_text(folder / "learning_rate.csv", "\n".join(["step,learning_rate,loss,smoothed_loss", *lines]) + "\n")
    save_rate_curve(curve, title, folder / "learning_rate.png")


def _say_rates(curve: RateCurve) -> int:
    """The steepest descent is recommended, as it is there before any divergence: with frozen features, or a few batches
    that are learned by heart, the loss falls to 0 and stays there at any rate, and a tenth of the minimum's rate is
    then a tenth of where the test ended."""
    if curve.steepest is None:
        print("the loss hardly fell, so no rate is suggested: try more steps=, or another lowest= and highest=")
        return NOTHING_FOUND
    tenth = curve.rates[curve.minimum] / 10
    remark = "" if curve.is_bounded else "   says nothing here: no rate drove the loss up again"
    print(f"\n  steepest descent        {curve.rates[curve.steepest]:.1e}   recommended")
    print(f"  a tenth of the minimum  {tenth:.1e}{remark}\n")
    print("Rates of single parts are multiples of it, as in the table above; a schedule's peak is meant.")
    print(f"optimizer.learning_rate={curve.rates[curve.steepest]:.1e}")
    return FOUND


def _batch_size(recipe: Recipe, values: Values) -> int:
    from thaw.training.batch_finder import batch_trials

    found = batch_trials(recipe, int(values["lowest"]), int(values["highest"]))
    print(f"phase {found.phase}; random {found.inputs} that lie on the device, so without loading and augmentation\n")
    _say_trials(found)
    print(f"trainer.batch_size={found.suggestion}")
    if found.suggestion != recipe.trainer.batch_size:
        print(_rate_rule(recipe, found.suggestion))
    return FOUND


def _say_trials(found: Trials) -> None:
    print(f"  {'batch':>5}  {'images/s':>9}  {'peak memory':>12}")
    for one in found.rows:
        mark = "   suggested" if one.batch_size == found.suggestion else ""
        print(f"  {one.batch_size:>5}  {one.images_per_s:>9,.0f}  {one.peak / 2**30:>8.2f} GiB{mark}")
    print(f"\nno larger batch was tried: {found.ended}")
    print("The suggestion is the largest batch that is at most 2 % slower than the fastest.")


def _rate_rule(recipe: Recipe, batch_size: int) -> str:
    """SGD: Goyal et al. 2017, "Accurate, large minibatch SGD"; Adam and RMSprop: Malladi et al. 2022, "On the SDEs and
    scaling rules for adaptive gradient algorithms"."""
    measured = f"thaw find learning_rate trainer.batch_size={batch_size} ... measures it"
    times, name = batch_size / recipe.trainer.batch_size, recipe.optimizer.name.lower().rpartition(".")[2]
    if "sgd" in name:
        rate, rule = recipe.optimizer.learning_rate * times, "linear for SGD, Goyal et al. 2017"
    elif "adam" in name or "rmsprop" in name:
        rate, rule = recipe.optimizer.learning_rate * math.sqrt(times), "square root for Adam, Malladi et al. 2022"
    else:
        return f"no rule for the learning rate of {recipe.optimizer.name} is known; {measured}"
    advice = f"optimizer.learning_rate={rate:.2g} by a rule of thumb ({rule})"
    return f"{times:g} times the recipe's {recipe.trainer.batch_size}: {advice};\n{measured}"


Finder = Callable[[Recipe, Values], int]
VERBS: dict[str, tuple[Finder, dict[str, str]]] = {
    "learning_rate": (_learning_rate, {"steps": "100", "lowest": "1e-7", "highest": "10", "out": ""}),
    "batch_size": (_batch_size, {"lowest": "4", "highest": "512"}),
}
