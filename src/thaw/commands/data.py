"""`thaw data VERB OVERRIDES`: fetch a data set, verify it, look at it. Overrides are those of train.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.commands.verbs import asks_for_help, new_folder, number_of, one_recipe, verb_of
from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Captcha, Recipe

if TYPE_CHECKING:
    from thaw.data.problems import Problem

Values = Mapping[str, str]

CLEAN, PROBLEMS = 0, 1
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
    if asks_for_help(arguments):
        print(HELP)
        return CLEAN
    verb, rest = verb_of("thaw data", arguments, VERBS)
    act, own = VERBS[verb]
    values = {**own, **dict(one.split("=", 1) for one in rest if "=" in one and one.split("=", 1)[0] in own)}
    overrides = [one for one in rest if one.split("=", 1)[0] not in own or "=" not in one]
    return act(one_recipe("thaw data", overrides, "data set", "dataset=NAME and key=value"), values)


def _fetch(recipe: Recipe, _: Values) -> int:
    from thaw.analysis.inventory import say_samples
    from thaw.data.build import samples_of
    from thaw.data.cache import cache_folder

    samples = samples_of(recipe.dataset, recipe.seed, cache_folder(recipe.data.cache), recipe.data.mirror)
    say_samples(recipe.dataset.name, samples, {})
    print(f"it lies in {samples.root}")
    return CLEAN


def _verify(recipe: Recipe, _: Values) -> int:
    """Decodes the files themselves, not what an earlier run has kept of them."""
    from thaw.analysis.inventory import say_problems, say_samples
    from thaw.data.build import samples_of
    from thaw.data.cache import cache_folder
    from thaw.data.verified import verified

    cache = cache_folder(recipe.data.cache)
    archive_problems = list(_wrong_archive(recipe, cache))
    samples = samples_of(recipe.dataset, recipe.seed, cache, recipe.data.mirror)
    problems = [*archive_problems, *verified(samples, recipe.data.near_duplicates)]
    say_samples(recipe.dataset.name, samples, {})
    say_problems(problems)
    print(f"{len(problems)} kinds of problems" if problems else "every image can be decoded; no problems found")
    return PROBLEMS if problems else CLEAN


def _wrong_archive(recipe: Recipe, cache: Path) -> Iterator[Problem]:
    """Of those that lie here: fetched ones, and one that dataset.root names."""
    from thaw.config.consistency import archives_of
    from thaw.data.fetch import matches
    from thaw.data.problems import Problem

    if recipe.dataset.kind == "captcha":
        return
    checksums = {Path(one.url).name: one.checksum for one in archives_of(recipe.dataset).values() if one.checksum}
    places = [cache / "downloads" / name for name in checksums]
    places += [Path(recipe.dataset.root).expanduser()] if recipe.dataset.root else []
    wrong = [place for place in places if place.is_file() and place.name in checksums]
    wrong = [place for place in wrong if not matches(place, checksums[place.name])]
    if wrong:
        yield Problem("archive", "archives with another checksum than the official one", tuple(map(str, wrong)))


def _report(recipe: Recipe, values: Values) -> int:
    """The images are cut for a network of dataset.image_size pixels, ImageNet's usual 224 where the recipe leaves that
    to the source weights: a report needs no weights."""
    from thaw.analysis.inventory import say_problems, say_samples
    from thaw.analysis.report import write_report
    from thaw.data.augmentation import augmentation_of
    from thaw.data.batches import Images
    from thaw.data.build import samples_of
    from thaw.data.cache import cache_folder
    from thaw.data.inspected import inspected
    from thaw.network.source import IMAGENET

    name, cache = recipe.dataset.name, cache_folder(recipe.data.cache)
    preprocessing = IMAGENET.at(recipe.dataset.image_size, recipe.dataset.crop)
    samples = samples_of(recipe.dataset, recipe.seed, cache, recipe.data.mirror)
    most_bytes = recipe.data.store_gib * 2**30
    data = inspected(samples, preprocessing, cache, True, recipe.data.near_duplicates, most_bytes)
    labels, augmentation = data.samples.labels(), augmentation_of(recipe.augment)
    images = Images(data.store, labels, preprocessing.size, augmentation, recipe.seed)
    say_samples(name, data.samples, data.skipped)
    say_problems(data.problems)
    out = Path(values["out"]).expanduser() if values["out"] else new_folder(recipe, "report")
    print(f"the report is {write_report(name, data, images, out)}")
    return CLEAN


def _captchas(recipe: Recipe, values: Values) -> int:
    """labels.csv comes last: a folder without it was not drawn to the end."""
    from thaw.data.captcha import captchas
    from thaw.training.files import write_text

    if faults := [*_undrawable(recipe, values)]:
        raise UserFault("nothing was drawn.", faults)
    assert isinstance(recipe.dataset, Captcha)
    count, length, draw = (int(values[key]) for key in ("count", "length", "draw"))
    folder, rows = Path(values["out"]).expanduser(), ["file,text"]
    folder.mkdir(parents=True, exist_ok=True)
    drawn = captchas(recipe.dataset.characters, count, length, recipe.dataset.side, draw)
    for number, (text, image) in enumerate(drawn):
        image.save(folder / f"{number:04}.png")
        rows.append(f"{number:04}.png,{text}")
    write_text(folder / "labels.csv", "\n".join(rows) + "\n")
    print(f"{count} captchas of {length} characters are in {folder}, what they say in {folder / 'labels.csv'}")
    return CLEAN


def _undrawable(recipe: Recipe, values: Values) -> Iterator[Fault]:
    for key, least in (("count", 1), ("length", 1), ("draw", 0)):
        if not number_of(values[key], int) >= least:
            yield Fault(f"{key}={values[key]}", values[key], f"a whole number of at least {least}", f"{key}={least}")
    if not isinstance(recipe.dataset, Captcha):
        yield Fault(f"dataset={recipe.dataset.name}", "no data set of characters", "dataset=captcha")
    if not values["out"]:
        yield Fault("out", "no folder to draw into", "out=DIR", "out=captchas")
    elif any(Path(values["out"]).expanduser().glob("*")):
        yield Fault(f"out={values['out']}", "a folder that holds something", "a new or empty one")


VERBS: dict[str, tuple[Callable[[Recipe, Values], int], Values]] = {
    "fetch": (_fetch, {}),
    "verify": (_verify, {}),
    "report": (_report, {"out": ""}),
    "captchas": (_captchas, {"out": "", "count": "200", "length": "4", "draw": "0"}),
}
