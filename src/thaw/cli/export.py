"""`thaw export RUN --format FORMAT`: write a trained network for use elsewhere, checked against the original."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thaw.cli.grammar import Parameters, Verb
from thaw.cli.options import FilePath, Option, out_option, path_argument
from thaw.config.errors import EXIT_FAILURE, EXIT_SUCCESS, Problem, UserError, format_names

if TYPE_CHECKING:
    from thaw.inference.export import ExportCheck

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors", "torchscript": ".torchscript"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


def _find_problems(parameters: Parameters) -> Iterator[Problem]:
    name, out = parameters["format"], parameters["out"]
    missing_packages = [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]
    if name is None:
        yield Problem("--format", "no format", format_names(SUFFIXES), "--format onnx")
    if missing_packages:
        fix = 'pip install "thaw[export]", or --format torch_export'
        yield Problem(f"--format {name}", f"not installed: {format_names(missing_packages)}", fix=fix)
    if out and name and out.suffix != SUFFIXES[name]:
        fix = f"--out {out.with_suffix(SUFFIXES[name])}"
        yield Problem(f"--out {out}", out.suffix or "no suffix", SUFFIXES[name], fix)
    if out and not out.parent.is_dir():
        yield Problem(f"--out {out}", "no such folder", fix=f"mkdir -p {out.parent}")
    for path in parameters["images"]:
        if not path.is_file():
            yield Problem(str(path), "no such image", "image files, after the run")


@Verb(
    "export",
    summary="write a trained network as ONNX, torch.export, safetensors or TorchScript",
    examples=("thaw export outputs/RUN --format onnx", "thaw export best.ckpt --format torch_export --out ants.pt2"),
    description="RUN|CKPT is a run directory (its best epoch), a checkpoint, or an export to safetensors. IMAGE: "
    "images to check with; by default 100 test images of the run's data set, if it is on this machine. dataset.root "
    "is where the data set is now, if it has moved.\n\n"
    "The exported file runs by itself (onnxruntime, torch.export, ...) on real images, in batches of 1 and of 7; if "
    "its outputs differ from the network's by more than rounding it is deleted. Except for safetensors, the input is "
    "uint8 [batch, 3, size, size], RGB, resized and cropped; normalization is inside. The outputs are logits and "
    "probabilities. Class names, preprocessing, recipe and stages are in the metadata, as JSON.",
    paths=(
        path_argument("checkpoint", "RUN|CKPT", FilePath()),
        path_argument("images", "[IMAGE]...", FilePath(), required=False),
    ),
    options=(
        Option("--format", type=click.Choice(list(SUFFIXES)), metavar="FORMAT",
               help='onnx: for onnxruntime and others (pip install "thaw[export]"); torch_export: for torch without '
               "thaw; safetensors: the weights under the library's own names, also for backbone.weights=FILE; "
               "torchscript: for programs that still read it (torch has deprecated it)"),
        out_option("FILE", "file to write (default: beside the checkpoint, with the format's suffix)"),
    ),
    recipe_keys=("dataset.root",),
    check=_find_problems,
    exit_statuses="0 done; 1 the export computes something else; 2 there is something for you to change.",
    no_args_is_help=True,
)  # fmt: skip
def export(checkpoint: Path, images: Sequence[Path], overrides: Sequence[str], format: str, out: Path | None) -> int:
    """Export the network and return the exit status.

    Raises:
        UserError: for a run that cannot be used, or a format that cannot hold the network.
    """
    from thaw.inference.export import ExportMismatchError, export_model, load_check_images
    from thaw.inference.export_formats import FORMATS
    from thaw.inference.load import load_checkpoint
    from thaw.runs.checkpoint import resolve_checkpoint

    classifier = load_checkpoint(checkpoint)
    file = out or resolve_checkpoint(checkpoint).with_suffix(SUFFIXES[format])
    _check_output_path(file, checkpoint)
    root = overrides[-1].partition("=")[2] if overrides else None
    check_images = load_check_images(classifier, tuple(images), root)
    try:
        check = export_model(classifier, format, file, check_images.pixels)
    except ExportMismatchError as error:
        headline = "the export does not compute what the network does, and was deleted."
        print(f"thaw: {headline}\n{_format_check(error.check)}", file=sys.stderr)
        return EXIT_FAILURE
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB, {FORMATS[format].describe(file)}")
    print(f"checked on {check_images.description}, in batches of 1 and 7")
    print(_format_check(check))
    return EXIT_SUCCESS


def _format_check(check: ExportCheck) -> str:
    same = f"the same class for {check.num_same} of {check.num_images}"
    logits = f"{check.max_logit_difference:.1e} of logits (up to {check.max_logit:.1f})"
    return f"{same}; largest difference {check.max_probability_difference:.1e} of probabilities, {logits}"


def _check_output_path(file: Path, checkpoint: Path) -> None:
    if file.is_dir() or (file.exists() and file.samefile(checkpoint)):
        problem = Problem(str(file), "the file to export, or a folder", "another file", "--out FILE")
        raise UserError("nothing was exported.", [problem])
