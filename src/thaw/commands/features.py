"""`thaw features OVERRIDES`: what a frozen backbone makes of a data set, as a file, in TensorBoard, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from thaw.commands.verbs import asks_for_help, one_recipe
from thaw.commands.words import CONFIG_DIR, own_presets, sorted_words
from thaw.config.faults import DONE, Fault, UserFault, listing, nearest
from thaw.config.schema import Recipe

if TYPE_CHECKING:
    import numpy as np

    from thaw.training.extraction import Extracted

WITH_VALUE, FLAGS = ("--out", "--stage", "--projector", "--map", CONFIG_DIR), ("--maps",)
GOALS = ("--out", "--projector", "--map")
ENDINGS = (".npz", ".npy", ".parquet")
HELP = """thaw features [key=value ...] [--out FILE] [--stage STAGE] [--maps] [--projector DIR] [--map FILE.png]

  The features that a recipe's frozen backbone makes of all images of its data set. At least one of:

  --out FILE        the ending says the format:
                      .npz      features float32, paths, labels, splits, classes, stage, backbone, fingerprint;
                                numpy.load(FILE, allow_pickle=False)
                      .npy      features alone, and beside it a .csv of path, label, class, split, a row an image
                      .parquet  path, label, class, split and a list of float32 an image; pip install "thaw[features]"
  --projector DIR   the features and a thumbnail an image for TensorBoard's projector: thaw dashboard DIR
  --map FILE.png    the features on two axes, by PCA and by t-SNE: colour is the class, shape the split; of more than
                    5,000 images a sample, as t-SNE of so many takes half a minute

  --stage STAGE     a stage of the backbone (thaw inspect lists them) instead of the vectors that the head takes;
                    its maps are averaged over their pixels, tokens over the tokens
  --maps            with --stage and --out, maps and tokens are written whole, [images, ...] as the stage puts them out;
                    not to .parquet, whose lists are flat
  --config-dir DIR  presets of your own, as train.py takes them

    thaw features dataset=hymenoptera --out features.npz --map features.png
    thaw features dataset=hymenoptera backbone=resnet18 --stage layer3 --out layer3.parquet
    thaw features dataset=folder dataset.root=DIR --projector outputs/projector

Other settings are those of python train.py. Features are kept in the cache: a second call computes nothing.
Exit status: 0, or 2 where there is something for you to change."""


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for, besides a recipe."""

    out: Path | None
    projector: Path | None
    map: Path | None
    stage: str | None
    maps: bool


def run(arguments: Sequence[str]) -> int:
    """Writes what `arguments` ask for and returns the exit status.

    Raises:
        UserFault: where the settings are wrong, the data or weights cannot be had, or a file cannot be written.
    """
    if asks_for_help(arguments):
        print(HELP)
        return DONE
    options, overrides = sorted_words(arguments, WITH_VALUE, FLAGS)
    out, projector, picture = (_path(options.get(one)) for one in GOALS)
    wanted = Wanted(out, projector, picture, options.get("--stage"), "--maps" in options)
    if faults := [*_faults(wanted)]:
        raise UserFault("nothing was started.", faults)
    recipe = one_recipe("thaw features", [*own_presets(options), *overrides])  # before torch is imported
    return _write(recipe, wanted)


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _faults(wanted: Wanted) -> Iterator[Fault]:
    if not (wanted.out or wanted.projector or wanted.map):
        yield Fault("thaw features", "nothing to write", listing(GOALS), "--out features.npz")
    for option, file in (("--out", wanted.out), ("--projector", wanted.projector), ("--map", wanted.map)):
        if file and not file.absolute().parent.is_dir():
            yield Fault(
                f"{option} {file}", f"no folder {file.parent}", "a folder that is there", f"mkdir {file.parent}"
            )
    yield from _wrong_files(wanted)
    yield from _wrong_maps(wanted)


def _wrong_files(wanted: Wanted) -> Iterator[Fault]:
    for option, file, endings in (("--out", wanted.out, ENDINGS), ("--map", wanted.map, (".png",))):
        if file and file.suffix not in endings:
            closest = nearest(file.suffix, endings) or endings[0]
            got = f"the ending {file.suffix}" if file.suffix else "no ending"
            yield Fault(f"{option} {file}", got, listing(endings), f"{option} {file.with_suffix(closest)}")
        elif file and file.is_dir():
            yield Fault(f"{option} {file}", "a folder", "a file")
    if wanted.projector and wanted.projector.is_file():
        yield Fault(f"--projector {wanted.projector}", "a file", "a folder")
    if wanted.out and wanted.out.suffix == ".parquet" and find_spec("pyarrow") is None:
        fix = f'pip install "thaw[features]", or --out {wanted.out.with_suffix(".npz")}'
        yield Fault(f"--out {wanted.out}", "the package pyarrow is not installed", fix=fix)


def _wrong_maps(wanted: Wanted) -> Iterator[Fault]:
    if not wanted.maps:
        return
    if wanted.stage is None:
        fix = "--stage STAGE (thaw inspect lists them), or leave --maps out"
        yield Fault("--maps", "the vectors that the head takes, which are no maps", "--maps with --stage", fix)
    if wanted.out is None:
        yield Fault("--maps", "no --out", "--maps with --out", "--out features.npz")
    elif wanted.out.suffix == ".parquet":
        fix = f"--out {wanted.out.with_suffix('.npz')}, or leave --maps out"
        yield Fault("--maps", f"--out {wanted.out}", "maps in .npz or .npy", fix)


def _write(recipe: Recipe, wanted: Wanted) -> int:
    from thaw.features.export import averaged
    from thaw.training.extraction import extracted

    found = extracted(recipe, wanted.stage)
    if wanted.maps and found.values.ndim == 2:
        fault = Fault("--maps", f"the stage {found.stage}, which puts out vectors", fix="leave --maps out")
        raise UserFault("nothing was written.", [fault])
    if recipe.strategy.start == "random":
        print(f"the weights are random, as strategy={recipe.strategy.name} has it")
    spent = f"computed in {found.seconds:.1f} s" if found.seconds else "from the cache"
    print(f"{recipe.backbone.name}, stage {found.stage}: {_shape(found.values)}, {spent}")
    vectors = averaged(found.values) if wanted.projector or wanted.map or not wanted.maps else found.values
    if wanted.out:
        _export(recipe, found, found.values if wanted.maps else vectors, wanted.out)
    if wanted.projector:
        _project(recipe, found, vectors, wanted.projector)
    if wanted.map:
        _draw(recipe, found, vectors, wanted.map)
    return DONE


def _export(recipe: Recipe, found: Extracted, features: np.ndarray, file: Path) -> None:
    from thaw.features.export import Export, writers

    export = Export(features, found.samples, recipe.backbone.name, found.stage)
    for place, write in writers(export, file).items():
        _save(place, write)
    print(f"features {_shape(features)} in {file}")


def _project(recipe: Recipe, found: Extracted, features: np.ndarray, folder: Path) -> None:
    from thaw.analysis.projector import CONFIG, projector_writers, shown_positions

    positions = shown_positions(len(features), recipe.seed)
    if len(positions) < len(features):
        print(f"the projector shows {len(positions):,} of {len(features):,} images, drawn by seed {recipe.seed}")
    name = f"{recipe.dataset.name}, {recipe.backbone.name}, {found.stage}"
    files = projector_writers(features, found.samples, found.images, positions, name)
    try:
        folder.mkdir(exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)  # an earlier one would speak of files that are half replaced
    except OSError as error:
        raise _cannot_write(folder, error) from error
    for file, write in files.items():
        _save(folder / file, write)
    # The projector is missing from TensorBoard's menu for the first half minute, but not at its own address.
    print(f"for the projector: thaw dashboard {folder}, then http://localhost:6006/#projector")


def _draw(recipe: Recipe, found: Extracted, features: np.ndarray, file: Path) -> None:
    from thaw.analysis.feature_map import feature_map, map_picture

    maps = feature_map(features, recipe.seed)
    shown = f"{len(features):,} images"
    if len(maps.positions) < len(features):
        shown = f"{len(maps.positions):,} of {shown}"
        print(f"the map shows {shown}, drawn by seed {recipe.seed}")
    picture = map_picture(maps, found.samples, f"{recipe.dataset.name}, {recipe.backbone.name}, {found.stage}: {shown}")
    _save(file, lambda stream: picture.savefig(stream, format="png", dpi=110))
    print(f"the map is {file}")


def _shape(values: np.ndarray) -> str:
    return " x ".join(map(str, values.shape))


def _save(file: Path, write: Callable[[BinaryIO], object]) -> None:
    from thaw.training.files import write_whole

    try:
        write_whole(file, write)
    except OSError as error:
        raise _cannot_write(file, error) from error


def _cannot_write(place: Path, error: OSError) -> UserFault:
    fault = Fault(str(place), error.strerror or str(error), fix="free some space, or another place")
    return UserFault("a file cannot be written.", [fault])
