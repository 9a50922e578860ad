"""`thaw explain RUN|CKPT IMAGE`: show what a trained network sees in an image."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thaw.cli.arguments import run_interruptible
from thaw.cli.grammar import Parameters, Verb
from thaw.cli.options import FilePath, Number, Option, out_option, path_argument
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name

if TYPE_CHECKING:
    from thaw.data.image import DecodedImage
    from thaw.data.preprocessing import Preprocessing
    from thaw.visualization.interpret.deep_dream import DeepDreamSettings

DREAM_DEFAULTS: dict[str, Any] = {"steps": 20, "octaves": 4, "rate": 0.02, "seed": 0}
POSITIVE = click.IntRange(min=1)


def _find_problems(parameters: Parameters) -> Iterator[Problem]:
    out = parameters["out"]
    if out and out.exists() and not out.is_dir():
        yield Problem(f"--out {out}", "a file", "a folder")
    if parameters["dream"] is None:
        for name, default in DREAM_DEFAULTS.items():
            if parameters[name] != default:
                yield Problem(f"--{name} {parameters[name]}", "no --dream", fix="--dream STAGE")


@Verb(
    "explain",
    summary="show what a trained network sees in an image: Grad-CAM, feature maps, DeepDream",
    examples=("thaw explain outputs/RUN ant.jpg", "thaw explain best.ckpt ant.jpg --dream block5 --out explained"),
    description="Writes pages, and the same as PNG files: the prediction; Grad-CAM of the most probable classes; the "
    "feature maps of every convolution (a page for each stage; of each layer the 32 channels that vary most over the "
    "image); the filters of the first layer. For stages without convolutions, such as a ViT's, their outputs.\n\n"
    "RUN|CKPT is a run directory, or a checkpoint, which needs nothing beside it.",
    paths=(path_argument("checkpoint", "RUN|CKPT", FilePath()), path_argument("image", "IMAGE", FilePath())),
    options=(
        Option("--top", type=POSITIVE, default=3, metavar="N", help="number of classes"),
        out_option("DIR", "folder to write to (default: a new one here, explain_IMAGE_SUFFIX)"),
        Option("--dream", metavar="STAGE", help="DeepDream too: the image changed so that this stage responds more"),
        Option("--steps", type=POSITIVE, default=20, metavar="N", help="of DeepDream in each octave"),
        Option("--octaves", type=POSITIVE, default=4, metavar="N", help="of DeepDream, from coarse to fine patterns"),
        Option("--rate", type=Number(min=0, min_open=True), default=0.02, metavar="RATE",
               help="size of a step, in standard deviations of the source's images"),
        Option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, metavar="N", help="of the shifts between steps"),
    ),
    check=_find_problems,
    no_args_is_help=True,
)  # fmt: skip
def explain(checkpoint: Path, image: Path, top: int, out: Path | None, dream: str | None, **dream_settings: Any) -> int:
    """Write the pages and return the exit status.

    Raises:
        UserError: if there is no such checkpoint, image or stage.
    """
    _check_file(image)  # before torch is imported
    folder = out or Path(f"explain_{image.stem}_{secrets.token_hex(3)}")

    def write_pages() -> Path:
        from thaw.inference.explain import explain as explain_image
        from thaw.inference.load import load_checkpoint

        settings, classifier = _build_dream_settings(dream, dream_settings), load_checkpoint(checkpoint)
        decoded_image = _load_image(image, classifier.preprocessing)
        return explain_image(classifier, decoded_image, image.name, folder, top, settings)

    print(f"the pages begin with {run_interruptible(write_pages)}")
    return EXIT_SUCCESS


def _build_dream_settings(stage: str | None, settings: dict[str, Any]) -> DeepDreamSettings | None:
    from thaw.visualization.interpret.deep_dream import DeepDreamSettings

    return DeepDreamSettings(stage, *(settings[name] for name in DREAM_DEFAULTS)) if stage else None


def _check_file(file: Path) -> None:
    if not file.is_file():
        files = [path for path in file.parent.iterdir() if path.is_file()] if file.parent.is_dir() else []
        closest = find_closest_name(file.name, sorted(path.name for path in files))
        got = "a folder" if file.is_dir() else "no such file"
        problem = Problem(str(file), got, "an image", str(file.with_name(closest)) if closest else "")
        raise UserError("no such image.", [problem])


def _load_image(file: Path, preprocessing: Preprocessing) -> DecodedImage:
    from thaw.data.image import BrokenImageError, decode_image

    try:
        return decode_image(file, preprocessing.min_decoded_side)
    except BrokenImageError as error:
        problem = Problem(str(file), str(error), "an image that can be decoded")
        raise UserError("the image cannot be decoded.", [problem]) from error
