"""`thaw explain RUN|CKPT IMAGE`: what a trained network sees in a picture, next to what it says."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.commands.verbs import asks_for_help, interruptible, number_of
from thaw.config.faults import DONE, Fault, UserFault, listing, nearest

if TYPE_CHECKING:
    from PIL.Image import Image

KEYS = {"top": "3", "out": "", "steps": "20", "octaves": "4", "rate": "0.02", "seed": "0"}
OF_DREAMS = ("steps", "octaves", "rate", "seed")
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
    if asks_for_help(arguments):
        print(HELP)
        return DONE
    places, own, faults = _sorted_out(arguments)
    if faults := [*faults, *_faults(places, own)]:
        raise UserFault("nothing was started.", faults)
    checkpoint, file = (Path(one).expanduser() for one in places)
    picture = _decoded(file)  # before torch is imported
    folder = Path(own["out"]).expanduser() if own.get("out") else Path(f"explain_{file.stem}_{secrets.token_hex(3)}")
    return interruptible(lambda: _explain(checkpoint, picture, file.name, folder, own))


def _sorted_out(arguments: Sequence[str]) -> tuple[list[str], dict[str, str], list[Fault]]:
    """Checkpoint and picture, settings by key, and what is wrong. What has a = and is a file is no setting."""
    places, own, faults, words = list[str](), dict[str, str](), list[Fault](), list(arguments)
    while words:
        word = words.pop(0)
        key, is_joined, value = word.partition("=")
        if key == "--dream":
            own["dream"] = value if is_joined else words.pop(0) if words else ""
            faults += [] if own["dream"] else [Fault("--dream", "no stage", fix="--dream STAGE")]
        elif key in KEYS and is_joined:
            own[key] = value
        elif word.startswith("-") or (is_joined and not Path(word).expanduser().exists()):
            near = nearest(key, ["--dream", *KEYS])
            fix = "" if near is None else f"{near} STAGE" if near == "--dream" else f"{near}={value or 'VALUE'}"
            faults.append(Fault(word, "no such setting", listing(["--dream", *(f"{one}=" for one in KEYS)]), fix))
        else:
            places.append(word)
    return places, own, faults


def _faults(places: Sequence[str], own: Mapping[str, str]) -> Iterator[Fault]:
    if len(places) != 2:
        yield Fault("thaw explain", listing(places) or "nothing", "a run or checkpoint, and a picture", "see --help")
    values = {**KEYS, **own}
    for key in ("top", "steps", "octaves"):
        if not number_of(values[key], int) >= 1:
            yield Fault(f"{key}={values[key]}", values[key], "a whole number of at least 1", f"{key}={KEYS[key]}")
    if not number_of(values["rate"], float) > 0:
        yield Fault(f"rate={values['rate']}", values["rate"], "a number above 0", f"rate={KEYS['rate']}")
    if not 0 <= number_of(values["seed"], int) < 2**32:
        yield Fault(f"seed={values['seed']}", values["seed"], "a whole number from 0", "seed=0")
    if "dream" not in own:
        yield from (Fault(f"{key}={own[key]}", "no --dream", fix="--dream STAGE") for key in OF_DREAMS if key in own)
    out = Path(values["out"]).expanduser()
    if values["out"] and out.exists() and not out.is_dir():
        yield Fault(f"out={values['out']}", "a file", "a folder")


def _decoded(file: Path) -> Image:
    from thaw.data.image import BrokenImage, decoded

    if not file.is_file():
        there = sorted(one.name for one in file.parent.iterdir() if one.is_file()) if file.parent.is_dir() else []
        near = nearest(file.name, there)
        got = "a folder" if file.is_dir() else "no such file"
        raise UserFault(
            "no such picture.", [Fault(str(file), got, "a picture", str(file.with_name(near)) if near else "")]
        )
    try:
        return decoded(file)
    except BrokenImage as error:
        raise UserFault("the picture cannot be decoded.", [Fault(str(file), str(error), "a whole picture")]) from error


def _explain(checkpoint: Path, picture: Image, name: str, folder: Path, own: Mapping[str, str]) -> int:
    from thaw.analysis.dream import Dreaming
    from thaw.trained.explanation import explain
    from thaw.trained.restore import restored

    values = {**KEYS, **own}
    dream = None
    if "dream" in own:
        steps, octaves, seed = (int(values[key]) for key in ("steps", "octaves", "seed"))
        dream = Dreaming(own["dream"], steps, octaves, float(values["rate"]), seed)
    page = explain(restored(checkpoint), picture, name, folder, int(values["top"]), dream)
    print(f"the pages begin with {page}")
    return DONE
