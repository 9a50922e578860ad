"""`thaw export RUN --format FORMAT`: a trained network for use elsewhere, held against the original first."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.commands.verbs import asks_for_help
from thaw.commands.words import sorted_words
from thaw.config.faults import DONE, Fault, UserFault, listing, nearest

if TYPE_CHECKING:
    from thaw.trained.export import Checked

REFUSED = 1
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors", "torchscript": ".torchscript"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
OPTIONS = ("--format", "--out")
HELP = """thaw export RUN --format onnx|torch_export|safetensors|torchscript [--out FILE] [dataset.root=DIR] [IMAGE ...]

  RUN            a run directory (its best epoch), a checkpoint, or an export to safetensors
  --format       onnx: for onnxruntime and others (pip install "thaw[export]"); torch_export: for torch without thaw;
                 safetensors: the weights under the library's own names, also for backbone.weights=FILE;
                 torchscript: for what still reads it: torch has deprecated it
  --out          by default beside the checkpoint, with the format's ending
  dataset.root   where the data set lies now, if it has moved
  IMAGE          images to check with; by default 100 test images of the run's data set, if it is here

The file is written aside, run by itself (onnxruntime, torch.export, ...) on real images, in batches of 1 and of 7, and
held against the network; where they differ by more than rounding it is deleted. But for safetensors, the input is uint8
[batch, 3, size, size], RGB as decoded, resized and cut: mean and deviation are taken off inside; the outputs are logits
and probabilities. Class names, preprocessing, recipe and stages are in the metadata, as JSON.

Exit status: 0; 1 where the export does not compute what the network does; 2 where there is something to change."""


@dataclass(frozen=True)
class Wanted:
    """`out` is None where nothing is said."""

    checkpoint: Path
    format: str
    out: Path | None
    root: str | None
    images: tuple[Path, ...]


def run(arguments: Sequence[str]) -> int:
    """Exports as `arguments` say and returns the exit status.

    Raises:
        UserFault: for arguments that are not understood, packages that are missing, or a run that cannot be used.
    """
    if asks_for_help(arguments):
        print(HELP)
        return DONE
    wanted = _understood(arguments)  # before torch is imported
    from thaw.trained.checkpoint_file import checkpoint_in
    from thaw.trained.export import NotTheSame, exported
    from thaw.trained.export_formats import FORMATS
    from thaw.trained.export_images import images_for
    from thaw.trained.restore import restored

    trained = restored(wanted.checkpoint)
    out = wanted.out or checkpoint_in(wanted.checkpoint).with_suffix(SUFFIXES[wanted.format])
    _check_place(out, wanted)
    shown = images_for(trained, wanted.images, wanted.root)
    try:
        checked = exported(trained, wanted.format, out, shown.pixels)
    except NotTheSame as error:
        print(
            f"thaw: the export does not compute what the network does, and was deleted.\n{_told(error.checked)}",
            file=sys.stderr,
        )
        return REFUSED
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, {FORMATS[wanted.format].notes(out)}")
    print(f"checked on {shown.said}, in batches of 1 and 7")
    print(_told(checked))
    return DONE


def _told(checked: Checked) -> str:
    return (
        f"the same class for {checked.same} of {checked.images}; largest difference {checked.of_probabilities:.1e} "
        f"of probabilities, {checked.of_logits:.1e} of logits (up to {checked.largest_logit:.1f})"
    )


def _understood(arguments: Sequence[str]) -> Wanted:
    options, words = sorted_words(arguments, OPTIONS, ())
    settings = dict(one.split("=", 1) for one in words if one.startswith("dataset.root="))
    places = [one for one in words if not one.startswith("dataset.root=")]
    if faults := [*_wrong_format(options), *_wrong_words(places)]:
        raise UserFault("nothing was exported.", faults)
    checkpoint, *images = (Path(one).expanduser() for one in places)
    out = Path(options["--out"]).expanduser() if options.get("--out") else None
    return Wanted(checkpoint, options["--format"], out, settings.get("dataset.root"), tuple(images))


def _wrong_format(options: dict[str, str]) -> Iterator[Fault]:
    name = options.get("--format", "")
    missing = [one for one in PACKAGES.get(name, ()) if find_spec(one) is None]
    if name not in SUFFIXES:
        got = repr(name) if name else "no format"
        yield Fault("--format", got, listing(SUFFIXES), f"--format {nearest(name, SUFFIXES) or 'onnx'}")
    elif missing:
        fix = 'pip install "thaw[export]", or --format torch_export'
        yield Fault(f"--format {name}", f"not installed: {listing(missing)}", fix=fix)


def _wrong_words(places: Sequence[str]) -> Iterator[Fault]:
    if not places:
        yield Fault("thaw export", "no run", "a run directory or a checkpoint", "thaw export outputs/RUN --format onnx")
    for word in places[1:]:
        if not Path(word).expanduser().is_file():
            yield Fault(word, "no such image", "files of images, after the run")


def _check_place(out: Path, wanted: Wanted) -> None:
    if out.suffix != SUFFIXES[wanted.format]:
        fix = f"--out {out.with_suffix(SUFFIXES[wanted.format])}"
        raise UserFault(
            "nothing was exported.", [Fault(f"--out {out}", out.suffix or "no ending", SUFFIXES[wanted.format], fix)]
        )
    if not out.parent.is_dir():
        raise UserFault(
            "nothing was exported.", [Fault(f"--out {out}", "no such folder", fix=f"mkdir -p {out.parent}")]
        )
    if out.is_dir() or (out.exists() and out.samefile(wanted.checkpoint)):
        raise UserFault(
            "nothing was exported.", [Fault(str(out), "what is exported, or a folder", "another file", "--out FILE")]
        )
