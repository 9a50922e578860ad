"""`thaw features key=value`: extract a data set's features with a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import compose_recipe
from thaw.cli.grammar import ANY_RECIPE_KEY, Parameters, Verb
from thaw.cli.options import FilePath, Option, config_dir_option, flag, out_option
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names

if TYPE_CHECKING:
    import numpy as np

    from thaw.config.schema import Recipe
    from thaw.training.extraction import Extraction

OUTPUTS = ("out", "projector", "map")
SUFFIXES = {"out": (".npz", ".npy", ".parquet"), "map": (".png",)}


def _find_problems(parameters: Parameters) -> Iterator[Problem]:
    paths = {name: parameters[name] for name in OUTPUTS if parameters[name]}
    if not paths:
        valid = format_names(f"--{name}" for name in OUTPUTS)
        yield Problem("thaw features", "nothing to write", valid, "--out features.npz")
    for name, path in paths.items():
        if not path.absolute().parent.is_dir():
            yield Problem(f"--{name} {path}", f"no folder {path.parent}", "an existing folder", f"mkdir {path.parent}")
        yield from _find_file_problems(name, path)
    if parameters["maps"]:
        yield from _find_maps_problems(parameters["out"], parameters["stage"])


def _find_file_problems(name: str, path: Path) -> Iterator[Problem]:
    option, suffixes = f"--{name} {path}", SUFFIXES.get(name)
    if suffixes is None:
        if path.is_file():
            yield Problem(option, "a file", "a folder")
        return
    if path.suffix not in suffixes:
        closest = find_closest_name(path.suffix, suffixes) or suffixes[0]
        got = f"the suffix {path.suffix}" if path.suffix else "no suffix"
        yield Problem(option, got, format_names(suffixes), f"--{name} {path.with_suffix(closest)}")
    elif path.is_dir():
        yield Problem(option, "a folder", "a file")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        fix = f'pip install "thaw[features]", or --out {path.with_suffix(".npz")}'
        yield Problem(option, "the package pyarrow is not installed", fix=fix)


def _find_maps_problems(out: Path | None, stage: str | None) -> Iterator[Problem]:
    if stage is None:
        fix = "--stage STAGE (thaw inspect lists them), or leave --maps out"
        yield Problem("--maps", "the vectors that the head takes, which are no maps", "--maps with --stage", fix)
    if out is None:
        yield Problem("--maps", "no --out", "--maps with --out", "--out features.npz")
    elif out.suffix == ".parquet":
        fix = f"--out {out.with_suffix('.npz')}, or leave --maps out"
        yield Problem("--maps", f"--out {out}", "maps in .npz or .npy", fix)


@Verb(
    "features",
    summary="extract a data set's features with a frozen backbone, to a file or a plot",
    examples=(
        "thaw features dataset=hymenoptera --out features.npz --map features.png",
        "thaw features dataset=hymenoptera backbone=resnet18 --stage layer3 --out layer3.parquet",
    ),
    description="At least one of --out, --projector and --map. The suffix of --out is the format:\n\n"
    "\b\n"
    ".npz      features float32, paths, labels, splits, classes, stage, backbone, fingerprint;\n"
    "          numpy.load(FILE, allow_pickle=False)\n"
    ".npy      features alone, and beside it a .csv of path, label, class, split, a row for each image\n"
    '.parquet  path, label, class, split and a list of float32 for each image; pip install "thaw[features]"\n\n'
    "Features stay in the cache: a second call computes nothing.",
    options=(
        out_option("FILE", "features of all images, by the format of the suffix"),
        Option("--stage", metavar="NAME", help="a stage of the backbone (thaw inspect lists them), averaged over "
               "pixels or tokens, instead of the vectors that the head takes"),
        flag("--maps", "with --stage and --out (.npz, .npy): maps and tokens as they are, not averaged"),
        Option("--projector", type=FilePath(), metavar="DIR", help="features and a thumbnail for each image, for "
               "TensorBoard's projector: thaw dashboard DIR"),
        Option("--map", type=FilePath(), metavar="FILE.png", help="features in two dimensions, by PCA and t-SNE: color "
               "is the class, shape the split; of more than 5,000 images a sample"),
        config_dir_option(),
    ),
    recipe_keys=ANY_RECIPE_KEY,
    check=_find_problems,
    no_args_is_help=True,
)  # fmt: skip
def features(
    overrides: Sequence[str],
    out: Path | None,
    stage: str | None,
    maps: bool,
    projector: Path | None,
    map: Path | None,
    config_dir: Path | None,
) -> int:
    """Write the features and return the exit status.

    Raises:
        UserError: if the recipe is wrong, data or weights are not available, or a file cannot be written.
    """
    recipe = compose_recipe(overrides, config_dir)  # before torch is imported
    from thaw.features.export import pool_features
    from thaw.system.reporter import ConsoleReporter
    from thaw.training.extraction import extract_features, write_features

    extraction = extract_features(recipe, stage, ConsoleReporter())
    if maps and extraction.values.ndim == 2:
        problem = Problem("--maps", f"the stage {extraction.stage}, whose outputs are vectors", fix="leave --maps out")
        raise UserError("nothing was written.", [problem])
    _print_summary(recipe, extraction)
    vectors = pool_features(extraction.values) if projector or map or not maps else extraction.values
    if out:
        values = extraction.values if maps else vectors
        write_features(values, extraction, recipe.backbone.name, out)
        print(f"features {_format_shape(values)} in {out}")
    _write_pictures(recipe, extraction, vectors, projector, map)
    return EXIT_SUCCESS


def _write_pictures(
    recipe: Recipe, extraction: Extraction, vectors: np.ndarray, projector_dir: Path | None, map_file: Path | None
) -> None:
    from thaw.training.extraction import save_embedding_plot, write_projector

    title = f"{recipe.dataset.name}, {recipe.backbone.name}, {extraction.stage}"
    if projector_dir:
        num_shown = write_projector(vectors, extraction, title, projector_dir, recipe.seed)
        # The projector is missing from TensorBoard's menu for the first half minute, but not at its own address.
        note = _describe_sample(num_shown, recipe, vectors)
        print(f"for the projector: thaw dashboard {projector_dir}, then http://localhost:6006/#projector{note}")
    if map_file:
        num_shown = save_embedding_plot(vectors, extraction, title, map_file, recipe.seed)
        print(f"the map is {map_file}{_describe_sample(num_shown, recipe, vectors)}")


def _print_summary(recipe: Recipe, extraction: Extraction) -> None:
    if recipe.strategy.init == "random":
        print(f"the weights are random, because strategy={recipe.strategy.name} starts from random weights")
    timing = f"computed in {extraction.seconds:.1f} s" if extraction.seconds else "from the cache"
    print(f"{recipe.backbone.name}, stage {extraction.stage}: {_format_shape(extraction.values)}, {timing}")


def _format_shape(values: np.ndarray) -> str:
    return " x ".join(str(size) for size in values.shape)


def _describe_sample(num_shown: int, recipe: Recipe, vectors: np.ndarray) -> str:
    is_sample = num_shown < len(vectors)
    return f"; it shows {num_shown:,} of {len(vectors):,} images, drawn by seed {recipe.seed}" if is_sample else ""
