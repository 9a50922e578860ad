"""`thaw explain RUN|CKPT IMAGE`: what a trained network sees in a picture, next to what it says."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import is_help_request, parse_number, run_interruptible
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_SETTINGS = {"top": "3", "out": "", "steps": "20", "octaves": "4", "rate": "0.02", "seed": "0"}
DREAM_KEYS = ("steps", "octaves", "rate", "seed")
HELP = """thaw explain RUN|CKPT IMAGE [--dream STAGE] [key=value ...]

  Pages to look at, and the same as PNG files: what the network says of the picture, Grad-CAM of its likeliest classes,
  the feature maps of every convolution (a page a stage; of each layer the 32 channels that vary most over the picture),
  the filters of the first layer. Stages without convolutions, as a ViT's, show what they put out.

  RUN|CKPT          a run directory, or a checkpoint, which needs nothing beside it
  --dream STAGE     DeepDream too: the picture changed so that this stage answers more strongly to it
  steps=20          of it in each octave
  octaves=4         from coarse patterns to fine ones
  rate=0.02         how far a step goes, in deviations of the source's images
  seed=0            of the shifts between the steps
  top=3             how many classes
  out=DIR           the folder; by default a new one here, explain_IMAGE_SUFFIX

    thaw explain outputs/RUN ant.jpg
    thaw explain best.ckpt ant.jpg --dream block5 out=seen

Exit status: 0, or 2 where there is something for you to change."""


def run(arguments: Sequence[str]) -> int:
    """Explains what `arguments` say and returns the exit status.

    Raises:
        UserFault: where there is no such checkpoint, picture or stage, or the settings are wrong.
    """
    if is_help_request(arguments):
        print(HELP)
        return EXIT_SUCCESS
    positionals, settings, problems = _parse_arguments(arguments)
    if problems := [*problems, *_find_problems(positionals, settings)]:
        raise UserError("nothing was started.", problems)
    checkpoint_path, image_path = (Path(positional).expanduser() for positional in positionals)
    image = _load_image(image_path)  # before torch is imported
    folder = (
        Path(settings["out"]).expanduser()
        if settings.get("out")
        else Path(f"explain_{image_path.stem}_{secrets.token_hex(3)}")
    )
    return run_interruptible(lambda: _explain(checkpoint_path, image, image_path.name, folder, settings))


def _parse_arguments(arguments: Sequence[str]) -> tuple[list[str], dict[str, str], list[Problem]]:
    """Checkpoint and picture, settings by key, and what is wrong. What has a = and is a file is no setting."""
    positionals, settings, problems, remaining_arguments = (
        list[str](),
        dict[str, str](),
        list[Problem](),
        list(arguments),
    )
    while remaining_arguments:
        argument = remaining_arguments.pop(0)
        key, separator, value = argument.partition("=")
        if key == "--dream":
            settings["dream"] = value if separator else remaining_arguments.pop(0) if remaining_arguments else ""
            problems += [] if settings["dream"] else [Problem("--dream", "no stage", fix="--dream STAGE")]
        elif key in DEFAULT_SETTINGS and separator:
            settings[key] = value
        elif argument.startswith("-") or (separator and not Path(argument).expanduser().exists()):
            closest = find_closest_name(key, ["--dream", *DEFAULT_SETTINGS])
            fix = (
                ""
                if closest is None
                else f"{closest} STAGE"
                if closest == "--dream"
                else f"{closest}={value or 'VALUE'}"
            )
            problems.append(
                Problem(
                    argument,
                    "no such setting",
                    format_names(["--dream", *(f"{name}=" for name in DEFAULT_SETTINGS)]),
                    fix,
                )
            )
        else:
            positionals.append(argument)
    return positionals, settings, problems


def _find_problems(positionals: Sequence[str], settings: Mapping[str, str]) -> Iterator[Problem]:
    if len(positionals) != 2:
        yield Problem(
            "thaw explain", format_names(positionals) or "nothing", "a run or checkpoint, and a picture", "see --help"
        )
    all_settings = {**DEFAULT_SETTINGS, **settings}
    for key in ("top", "steps", "octaves"):
        if not parse_number(all_settings[key], int) >= 1:
            yield Problem(
                f"{key}={all_settings[key]}",
                all_settings[key],
                "a whole number of at least 1",
                f"{key}={DEFAULT_SETTINGS[key]}",
            )
    if not parse_number(all_settings["rate"], float) > 0:
        yield Problem(
            f"rate={all_settings['rate']}", all_settings["rate"], "a number above 0", f"rate={DEFAULT_SETTINGS['rate']}"
        )
    if not 0 <= parse_number(all_settings["seed"], int) < 2**32:
        yield Problem(f"seed={all_settings['seed']}", all_settings["seed"], "a whole number from 0", "seed=0")
    if "dream" not in settings:
        yield from (
            Problem(f"{key}={settings[key]}", "no --dream", fix="--dream STAGE")
            for key in DREAM_KEYS
            if key in settings
        )
    out = Path(all_settings["out"]).expanduser()
    if all_settings["out"] and out.exists() and not out.is_dir():
        yield Problem(f"out={all_settings['out']}", "a file", "a folder")


def _load_image(file: Path) -> Image:
    from thaw.data.image import BrokenImageError, decode_image

    if not file.is_file():
        file_names = (
            sorted(path.name for path in file.parent.iterdir() if path.is_file()) if file.parent.is_dir() else []
        )
        closest = find_closest_name(file.name, file_names)
        actual = "a folder" if file.is_dir() else "no such file"
        raise UserError(
            "no such picture.",
            [Problem(str(file), actual, "a picture", str(file.with_name(closest)) if closest else "")],
        )
    try:
        return decode_image(file)
    except BrokenImageError as error:
        raise UserError(
            "the picture cannot be decoded.", [Problem(str(file), str(error), "a whole picture")]
        ) from error


def _explain(checkpoint_path: Path, image: Image, name: str, folder: Path, settings: Mapping[str, str]) -> int:
    from thaw.inference.explain import explain
    from thaw.inference.load import load_checkpoint
    from thaw.visualization.interpret.deep_dream import DeepDreamSettings

    all_settings = {**DEFAULT_SETTINGS, **settings}
    dream = None
    if "dream" in settings:
        steps, octaves, seed = (int(all_settings[key]) for key in ("steps", "octaves", "seed"))
        dream = DeepDreamSettings(settings["dream"], steps, octaves, float(all_settings["rate"]), seed)
    page_path = explain(load_checkpoint(checkpoint_path), image, name, folder, int(all_settings["top"]), dream)
    print(f"the pages begin with {page_path}")
    return EXIT_SUCCESS
