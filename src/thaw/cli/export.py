"""`thaw export RUN --format FORMAT`: a trained network for use elsewhere, held against the original first."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import is_help_request, parse_arguments
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names

if TYPE_CHECKING:
    from thaw.inference.export import ExportCheck

EXIT_MISMATCH = 1
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
class ExportArguments:
    """`out` is None where nothing is said."""

    checkpoint_path: Path
    format: str
    out: Path | None
    root: str | None
    image_paths: tuple[Path, ...]


def run(arguments: Sequence[str]) -> int:
    """Exports as `arguments` say and returns the exit status.

    Raises:
        UserFault: for arguments that are not understood, packages that are missing, or a run that cannot be used.
    """
    if is_help_request(arguments):
        print(HELP)
        return EXIT_SUCCESS
    export_arguments = _parse_export_arguments(arguments)  # before torch is imported
    from thaw.inference.export import ExportMismatchError, export_model, load_check_images
    from thaw.inference.export_formats import FORMATS
    from thaw.inference.load import load_checkpoint
    from thaw.runs.checkpoint import resolve_checkpoint

    classifier = load_checkpoint(export_arguments.checkpoint_path)
    out = export_arguments.out or resolve_checkpoint(export_arguments.checkpoint_path).with_suffix(
        SUFFIXES[export_arguments.format]
    )
    _check_output_path(out, export_arguments)
    check_images = load_check_images(classifier, export_arguments.image_paths, export_arguments.root)
    try:
        check_result = export_model(classifier, export_arguments.format, out, check_images.pixels)
    except ExportMismatchError as error:
        print(
            f"thaw: the export does not compute what the network does, and was deleted.\n{_format_check_result(error.check)}",
            file=sys.stderr,
        )
        return EXIT_MISMATCH
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, {FORMATS[export_arguments.format].describe(out)}")
    print(f"checked on {check_images.description}, in batches of 1 and 7")
    print(_format_check_result(check_result))
    return EXIT_SUCCESS


def _format_check_result(check_result: ExportCheck) -> str:
    return (
        f"the same class for {check_result.num_same} of {check_result.num_images}; largest difference {check_result.max_probability_difference:.1e} "
        f"of probabilities, {check_result.max_logit_difference:.1e} of logits (up to {check_result.max_logit:.1f})"
    )


def _parse_export_arguments(arguments: Sequence[str]) -> ExportArguments:
    options, positionals = parse_arguments(arguments, OPTIONS, ())
    settings = dict(argument.split("=", 1) for argument in positionals if argument.startswith("dataset.root="))
    paths = [argument for argument in positionals if not argument.startswith("dataset.root=")]
    if problems := [*_find_format_problems(options), *_find_path_problems(paths)]:
        raise UserError("nothing was exported.", problems)
    checkpoint_path, *image_paths = (Path(argument).expanduser() for argument in paths)
    out = Path(options["--out"]).expanduser() if options.get("--out") else None
    return ExportArguments(checkpoint_path, options["--format"], out, settings.get("dataset.root"), tuple(image_paths))


def _find_format_problems(options: dict[str, str]) -> Iterator[Problem]:
    name = options.get("--format", "")
    missing_packages = [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]
    if name not in SUFFIXES:
        actual = repr(name) if name else "no format"
        yield Problem(
            "--format", actual, format_names(SUFFIXES), f"--format {find_closest_name(name, SUFFIXES) or 'onnx'}"
        )
    elif missing_packages:
        fix = 'pip install "thaw[export]", or --format torch_export'
        yield Problem(f"--format {name}", f"not installed: {format_names(missing_packages)}", fix=fix)


def _find_path_problems(paths: Sequence[str]) -> Iterator[Problem]:
    if not paths:
        yield Problem(
            "thaw export", "no run", "a run directory or a checkpoint", "thaw export outputs/RUN --format onnx"
        )
    for path in paths[1:]:
        if not Path(path).expanduser().is_file():
            yield Problem(path, "no such image", "files of images, after the run")


def _check_output_path(out: Path, export_arguments: ExportArguments) -> None:
    if out.suffix != SUFFIXES[export_arguments.format]:
        fix = f"--out {out.with_suffix(SUFFIXES[export_arguments.format])}"
        raise UserError(
            "nothing was exported.",
            [Problem(f"--out {out}", out.suffix or "no ending", SUFFIXES[export_arguments.format], fix)],
        )
    if not out.parent.is_dir():
        raise UserError(
            "nothing was exported.", [Problem(f"--out {out}", "no such folder", fix=f"mkdir -p {out.parent}")]
        )
    if out.is_dir() or (out.exists() and out.samefile(export_arguments.checkpoint_path)):
        raise UserError(
            "nothing was exported.", [Problem(str(out), "what is exported, or a folder", "another file", "--out FILE")]
        )
