"""`thaw features OVERRIDES`: what a frozen backbone makes of a data set, as a file, in TensorBoard, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from thaw.cli.arguments import (
    CONFIG_DIR_OPTION,
    compose_single_recipe,
    get_config_dir_arguments,
    is_help_request,
    parse_arguments,
)
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names
from thaw.config.schema import Recipe

if TYPE_CHECKING:
    import numpy as np

    from thaw.training.extraction import Extraction

VALUE_OPTIONS, FLAGS = ("--out", "--stage", "--projector", "--map", CONFIG_DIR_OPTION), ("--maps",)
OUTPUT_OPTIONS = ("--out", "--projector", "--map")
SUFFIXES = (".npz", ".npy", ".parquet")
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
class FeatureArguments:
    """What the command line asks for, besides a recipe."""

    out: Path | None
    projector_folder: Path | None
    embedding_path: Path | None
    stage: str | None
    has_maps: bool


def run(arguments: Sequence[str]) -> int:
    """Writes what `arguments` ask for and returns the exit status.

    Raises:
        UserFault: where the settings are wrong, the data or weights cannot be had, or a file cannot be written.
    """
    if is_help_request(arguments):
        print(HELP)
        return EXIT_SUCCESS
    options, overrides = parse_arguments(arguments, VALUE_OPTIONS, FLAGS)
    out, projector_folder, embedding_path = (_parse_path(options.get(option)) for option in OUTPUT_OPTIONS)
    feature_arguments = FeatureArguments(
        out, projector_folder, embedding_path, options.get("--stage"), "--maps" in options
    )
    if problems := [*_find_problems(feature_arguments)]:
        raise UserError("nothing was started.", problems)
    recipe = compose_single_recipe(
        "thaw features", [*get_config_dir_arguments(options), *overrides]
    )  # before torch is imported
    return _write_outputs(recipe, feature_arguments)


def _parse_path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _find_problems(feature_arguments: FeatureArguments) -> Iterator[Problem]:
    if not (feature_arguments.out or feature_arguments.projector_folder or feature_arguments.embedding_path):
        yield Problem("thaw features", "nothing to write", format_names(OUTPUT_OPTIONS), "--out features.npz")
    for option, file in (
        ("--out", feature_arguments.out),
        ("--projector", feature_arguments.projector_folder),
        ("--map", feature_arguments.embedding_path),
    ):
        if file and not file.absolute().parent.is_dir():
            yield Problem(
                f"{option} {file}", f"no folder {file.parent}", "a folder that is there", f"mkdir {file.parent}"
            )
    yield from _find_file_problems(feature_arguments)
    yield from _find_maps_problems(feature_arguments)


def _find_file_problems(feature_arguments: FeatureArguments) -> Iterator[Problem]:
    for option, file, suffixes in (
        ("--out", feature_arguments.out, SUFFIXES),
        ("--map", feature_arguments.embedding_path, (".png",)),
    ):
        if file and file.suffix not in suffixes:
            closest = find_closest_name(file.suffix, suffixes) or suffixes[0]
            actual = f"the ending {file.suffix}" if file.suffix else "no ending"
            yield Problem(f"{option} {file}", actual, format_names(suffixes), f"{option} {file.with_suffix(closest)}")
        elif file and file.is_dir():
            yield Problem(f"{option} {file}", "a folder", "a file")
    if feature_arguments.projector_folder and feature_arguments.projector_folder.is_file():
        yield Problem(f"--projector {feature_arguments.projector_folder}", "a file", "a folder")
    if feature_arguments.out and feature_arguments.out.suffix == ".parquet" and find_spec("pyarrow") is None:
        fix = f'pip install "thaw[features]", or --out {feature_arguments.out.with_suffix(".npz")}'
        yield Problem(f"--out {feature_arguments.out}", "the package pyarrow is not installed", fix=fix)


def _find_maps_problems(feature_arguments: FeatureArguments) -> Iterator[Problem]:
    if not feature_arguments.has_maps:
        return
    if feature_arguments.stage is None:
        fix = "--stage STAGE (thaw inspect lists them), or leave --maps out"
        yield Problem("--maps", "the vectors that the head takes, which are no maps", "--maps with --stage", fix)
    if feature_arguments.out is None:
        yield Problem("--maps", "no --out", "--maps with --out", "--out features.npz")
    elif feature_arguments.out.suffix == ".parquet":
        fix = f"--out {feature_arguments.out.with_suffix('.npz')}, or leave --maps out"
        yield Problem("--maps", f"--out {feature_arguments.out}", "maps in .npz or .npy", fix)


def _write_outputs(recipe: Recipe, feature_arguments: FeatureArguments) -> int:
    from thaw.features.export import pool_features
    from thaw.system.reporter import ConsoleReporter
    from thaw.training.extraction import extract_features

    extraction = extract_features(recipe, feature_arguments.stage, ConsoleReporter())
    if feature_arguments.has_maps and extraction.values.ndim == 2:
        problem = Problem("--maps", f"the stage {extraction.stage}, which puts out vectors", fix="leave --maps out")
        raise UserError("nothing was written.", [problem])
    if recipe.strategy.init == "random":
        print(f"the weights are random, as strategy={recipe.strategy.name} has it")
    timing = f"computed in {extraction.seconds:.1f} s" if extraction.seconds else "from the cache"
    print(f"{recipe.backbone.name}, stage {extraction.stage}: {_format_shape(extraction.values)}, {timing}")
    vectors = (
        pool_features(extraction.values)
        if feature_arguments.projector_folder or feature_arguments.embedding_path or not feature_arguments.has_maps
        else extraction.values
    )
    if feature_arguments.out:
        _export_features(
            recipe, extraction, extraction.values if feature_arguments.has_maps else vectors, feature_arguments.out
        )
    if feature_arguments.projector_folder:
        _write_projector(recipe, extraction, vectors, feature_arguments.projector_folder)
    if feature_arguments.embedding_path:
        _save_embedding_plot(recipe, extraction, vectors, feature_arguments.embedding_path)
    return EXIT_SUCCESS


def _export_features(recipe: Recipe, extraction: Extraction, features: np.ndarray, file: Path) -> None:
    from thaw.features.export import Export, build_writers

    export = Export(features, extraction.samples, recipe.backbone.name, extraction.stage)
    for path, write in build_writers(export, file).items():
        _save(path, write)
    print(f"features {_format_shape(features)} in {file}")


def _write_projector(recipe: Recipe, extraction: Extraction, features: np.ndarray, folder: Path) -> None:
    from thaw.visualization.plots.projector import CONFIG_FILE, build_projector_writers, select_positions

    positions = select_positions(len(features), recipe.seed)
    if len(positions) < len(features):
        print(f"the projector shows {len(positions):,} of {len(features):,} images, drawn by seed {recipe.seed}")
    name = f"{recipe.dataset.name}, {recipe.backbone.name}, {extraction.stage}"
    writers = build_projector_writers(features, extraction.samples, extraction.images, positions, name)
    try:
        folder.mkdir(exist_ok=True)
        (folder / CONFIG_FILE).unlink(missing_ok=True)  # an earlier one would speak of files that are half replaced
    except OSError as error:
        raise _build_write_error(folder, error) from error
    for file, write in writers.items():
        _save(folder / file, write)
    # The projector is missing from TensorBoard's menu for the first half minute, but not at its own address.
    print(f"for the projector: thaw dashboard {folder}, then http://localhost:6006/#projector")


def _save_embedding_plot(recipe: Recipe, extraction: Extraction, features: np.ndarray, file: Path) -> None:
    from thaw.visualization.plots.embedding import compute_embedding, plot_embedding

    embeddings = compute_embedding(features, recipe.seed)
    image_count = f"{len(features):,} images"
    if len(embeddings.positions) < len(features):
        image_count = f"{len(embeddings.positions):,} of {image_count}"
        print(f"the map shows {image_count}, drawn by seed {recipe.seed}")
    figure = plot_embedding(
        embeddings,
        extraction.samples,
        f"{recipe.dataset.name}, {recipe.backbone.name}, {extraction.stage}: {image_count}",
    )
    _save(file, lambda stream: figure.savefig(stream, format="png", dpi=110))
    print(f"the map is {file}")


def _format_shape(values: np.ndarray) -> str:
    return " x ".join(map(str, values.shape))


def _save(file: Path, write: Callable[[BinaryIO], object]) -> None:
    from thaw.system.files import write_atomically

    try:
        write_atomically(file, write)
    except OSError as error:
        raise _build_write_error(file, error) from error


def _build_write_error(path: Path, error: OSError) -> UserError:
    problem = Problem(str(path), error.strerror or str(error), fix="free some space, or another place")
    return UserError("a file cannot be written.", [problem])
