"""Read checkpoints without executing anything in them; a file that is none is named for what it is."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AliasChoices, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import StrictModel
from thaw.data.identity import DataIdentity
from thaw.data.preprocessing import Decoding
from thaw.data.resizing import INTERPOLATIONS
from thaw.models.tensor_file import (
    FLOAT_DTYPES,
    ZIP_ERRORS,
    TensorFileError,
    find_damage,
    find_non_finite,
    find_unusable,
    load_tensor_file,
)
from thaw.runs import BEST_CHECKPOINT, LAST_CHECKPOINT, RECORD_FILE
from thaw.runs.reader import read_json
from thaw.runs.schema import PrecisionEntry, Record
from thaw.system.files import compute_sha256

EXPECTED_INPUT = f"a run directory, or its {BEST_CHECKPOINT}"
WEIGHTS_HINT = "python train.py backbone.weights=FILE starts a training from weights alone"
FOREIGN_FORMATS = (  # first bytes, description
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GGUF", "a GGUF file"),
)
Side = Annotated[int, Field(ge=1, le=8192)]
Mean = Annotated[float, Field(ge=-255, le=255, allow_inf_nan=False)]
Std = Annotated[float, Field(ge=1e-4, le=255, allow_inf_nan=False)]
DIGEST_KEY = "sha256"  # in the metadata of an export
CHECKPOINT_FORMAT = 1  # increased when checkpoints of older versions can no longer be read


class _Preprocessing(StrictModel):
    """The values of `Preprocessing`; version 0.1 called `std` deviation."""

    size: Side
    resize: Side
    interpolation: Literal[tuple(INTERPOLATIONS)]  # type: ignore[valid-type]
    mean: Annotated[list[Mean], Field(min_length=3, max_length=3)]
    # version 0.1 wrote deviation
    std: Annotated[list[Std], Field(min_length=3, max_length=3)] = Field(
        validation_alias=AliasChoices("std", "deviation")
    )
    squash: bool
    decoding: Decoding = "full"  # version 0.2 and older wrote none


class CheckpointMetadata(StrictModel):
    """The description in a checkpoint: recipe, class names, preprocessing, stages. Training writes it."""

    format: int
    recipe: dict[str, Any]
    classes: Annotated[list[str], Field(min_length=2)]
    preprocessing: _Preprocessing
    stages: list[dict[str, Any]]
    cached: list[Annotated[int, Field(ge=1)]] = Field(default=[])
    data: DataIdentity | None = None
    precision: PrecisionEntry | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> CheckpointMetadata:
        if len(set(self.classes)) != len(self.classes) or not all(self.classes):
            raise ValueError("a class name is empty or repeated")
        if self.preprocessing.resize < self.preprocessing.size:
            raise ValueError("preprocessing.resize is below preprocessing.size")
        return self


def resolve_checkpoint(path: Path) -> Path:
    """Return `path` if it is a file, or the checkpoint of the best epoch if it is a run directory.

    Raises:
        UserError: if there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        suggestion = (
            find_closest_name(path.name, [candidate.name for candidate in path.parent.glob("*")])
            if path.parent.is_dir()
            else None
        )
        raise checkpoint_error(
            path, "no such file", EXPECTED_INPUT, str(path.parent / suggestion) if suggestion else ""
        )
    checkpoints = [path / name for name in (BEST_CHECKPOINT, Path(BEST_CHECKPOINT).name) if (path / name).is_file()]
    if not checkpoints:
        run_folders = sorted(str(candidate.parents[1]) for candidate in path.glob(f"*/{BEST_CHECKPOINT}"))
        got = f"a folder of {len(run_folders)} runs" if run_folders else f"a folder without {BEST_CHECKPOINT}"
        raise checkpoint_error(
            path,
            got,
            f"one of {format_names(run_folders, 5)}" if run_folders else EXPECTED_INPUT,
            run_folders[0] if run_folders else "",
        )
    return checkpoints[0]


def read_checkpoint(file: Path) -> tuple[CheckpointMetadata, dict[str, Tensor]]:
    """Return the description in `file` and the tensors of the network by name. An export to safetensors has the names
    of the library.

    Raises:
        UserError: if the file is not a complete checkpoint of thaw, was written by a newer version, or holds more than
            tensors and plain data.
    """
    if is_exported(file):
        return _read_export(file)
    if foreign_format := _identify_foreign_file(file):
        raise checkpoint_error(
            file, foreign_format, EXPECTED_INPUT, WEIGHTS_HINT if "tensors" in foreign_format else ""
        )
    content = _load_file(file)
    metadata = content.get("thaw") if isinstance(content, Mapping) else None
    if not isinstance(metadata, Mapping):
        raise checkpoint_error(
            file, _describe_content(content), f"a checkpoint of thaw: {EXPECTED_INPUT}", WEIGHTS_HINT
        )
    _check_format(file, metadata.get("format"))
    state_dict = content.get("state_dict")
    if not isinstance(state_dict, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state_dict.values()):
        raise checkpoint_error(file, "state_dict holds other things than tensors", "tensors by name")
    return _parse_metadata(file, metadata), {
        str(name).removeprefix("network."): tensor for name, tensor in state_dict.items()
    }


def read_training_state(file: Path) -> dict[str, Any]:
    """Return the content of a `last.ckpt`, to resume from it.

    Raises:
        UserError: if the file is damaged, or its weights are not finite.
    """
    fix = f"rm {file}, then thaw resume {file.parent.parent}, which trains from the first epoch"
    content = _load_file(file, fix)
    state_dict = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state_dict, Mapping) or "thaw" not in content:
        raise checkpoint_error(file, _describe_content(content), "a checkpoint of thaw", fix)
    check_values(file, {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}, fix)
    return dict(content)


def check_values(file: Path, tensors: Mapping[str, Tensor], fix: str = "") -> None:
    """Raise UserError if tensors of `file` are not plain numbers, or not finite. `fix` is by default another file."""
    if unusable := list(find_unusable(tensors)):
        raise checkpoint_error(file, f"tensors of another kind: {format_names(unusable, 3)}", "dense tensors")
    if names := find_non_finite(tensors):
        got = f"{len(names)} tensor{'s' * (len(names) > 1)} with NaN or infinite values: {format_names(names, 3)}"
        raise checkpoint_error(file, got, "finite weights", fix or suggest_replacement(file))


def check_recorded_digest(file: Path) -> None:
    """Raise UserError if `file` is a checkpoint of a run that is done, and is not the file that the run has recorded.

    While a run trains, its files are newer than its record.
    """
    try:
        record = read_json(file.resolve().parent.parent / RECORD_FILE, Record)
    except UserError:  # a checkpoint needs nothing of its run
        return
    expected = record.get("checkpoints", {}).get(file.name) if record["status"] == "done" else None
    if expected and compute_sha256(file) != expected:
        got = "the file has changed since the run ended: its SHA-256 differs from that in run.json"
        fix = f"{suggest_replacement(file)}, or a copy outside of the run if you changed it on purpose"
        raise checkpoint_error(file, got, "the file as training wrote it", fix)


def _check_format(file: Path, written_format: Any) -> None:
    if written_format != CHECKPOINT_FORMAT:
        is_newer = isinstance(written_format, int) and written_format > CHECKPOINT_FORMAT
        got = f"format {written_format}{', of a newer version of thaw' if is_newer else ''}"
        fix = "pip install --upgrade thaw" if is_newer else ""
        raise checkpoint_error(file, got, f"format {CHECKPOINT_FORMAT}", fix)


def is_exported(file: Path) -> bool:
    """Return whether `thaw export --format safetensors` has written `file`."""
    try:
        with safe_open(file, "pt") as handle:
            return "thaw_format" in (handle.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _read_export(file: Path) -> tuple[CheckpointMetadata, dict[str, Tensor]]:
    with safe_open(file, "pt") as handle:
        raw_metadata, tensors = handle.metadata(), {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    if raw_metadata["thaw_format"] != str(CHECKPOINT_FORMAT):
        raise checkpoint_error(
            file, f"format {raw_metadata['thaw_format']}", f"format {CHECKPOINT_FORMAT}", "pip install --upgrade thaw"
        )
    keys = [
        field_name
        for field_name in CheckpointMetadata.model_fields
        if field_name != "format" and field_name in raw_metadata
    ]
    try:
        metadata = {key: json.loads(raw_metadata[key]) for key in keys}
    except ValueError as error:
        raise checkpoint_error(
            file, f"its metadata are not JSON: {error}", "a description as thaw writes it"
        ) from error
    parsed_metadata = _parse_metadata(file, {"format": CHECKPOINT_FORMAT, **metadata})
    if raw_metadata.get(DIGEST_KEY) not in (None, compute_export_digest(raw_metadata, tensors)):
        fix = "thaw export RUN --format safetensors, which writes it again"
        raise checkpoint_error(file, "the file has changed: its SHA-256 differs", "the file as thaw wrote it", fix)
    return parsed_metadata, tensors


def compute_export_digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of the content of an export to safetensors, a format without checksums."""
    texts = {key: text for key, text in metadata.items() if key != DIGEST_KEY}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_fit(file: Path, state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise UserError if tensors of `state_dict` are missing, unknown, or differ in shape from `expected`."""
    if got := "; ".join(_find_mismatches(state_dict, expected)):
        unknown = [name for name in state_dict if name not in expected]
        pairs = ((name, find_closest_name(name, unknown)) for name in expected if name not in state_dict)
        renames = [f"{suggestion} -> {name}" for name, suggestion in pairs if suggestion]
        renamed_note = f"; renamed? {format_names(renames, 3)}" if renames else ""
        fix = f"the file as training wrote it{renamed_note}"
        raise checkpoint_error(file, got, f"the {len(expected)} tensors of the network in its recipe", fix)


def checkpoint_error(file: Path, got: str, valid: str, fix: str = "") -> UserError:
    """Return the error for a checkpoint that cannot be used."""
    return UserError("the checkpoint cannot be used.", [Problem(str(file), got, valid, fix)])


def _find_mismatches(state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Iterator[str]:
    missing, unknown = (
        [name for name in expected if name not in state_dict],
        [name for name in state_dict if name not in expected],
    )
    shape_mismatches = [
        f"{name} {list(state_dict[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state_dict and state_dict[name].shape != tensor.shape
    ]
    dtype_mismatches = [
        f"{name} {state_dict[name].dtype} instead of {tensor.dtype}"
        for name, tensor in expected.items()
        if name in state_dict and (state_dict[name].dtype in FLOAT_DTYPES) != (tensor.dtype in FLOAT_DTYPES)
    ]
    for kind, names in (
        ("missing", missing),
        ("not in the network", unknown),
        ("of another shape", shape_mismatches),
        ("of another type", dtype_mismatches),
    ):
        if names:
            yield f"{len(names)} tensor{'s' * (len(names) > 1)} {kind}: {format_names(names, 3)}"


def _identify_foreign_file(file: Path) -> str:
    """Return what the file is by its first bytes; empty if torch.save may have written it."""
    with file.open("rb") as stream:
        first_bytes = stream.read(4096)
    if not first_bytes:
        return "the file is empty"
    for magic, description in FOREIGN_FORMATS:
        if first_bytes.startswith(magic):
            return description
    if first_bytes[8:9] == b"{" and int.from_bytes(first_bytes[:8], "little") < file.stat().st_size:
        return _identify_safetensors(file)
    if file.suffix == ".onnx":
        return "an ONNX file"
    if first_bytes.startswith(b"PK"):
        return _identify_archive(file)
    return "text" if not re.search(rb"[\x00-\x08\x0e-\x1a\x80-\xff]", first_bytes) else ""


def _identify_safetensors(file: Path) -> str:
    try:
        with safe_open(file, "pt"):
            return "a safetensors file: tensors without classes, preprocessing and recipe"
    except SafetensorError as error:
        return f"a truncated or damaged safetensors file: {error}"


def _identify_archive(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except ZIP_ERRORS:
        return ""  # reading it says how it is damaged
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program, which must be executed to load it"
    if not any(name.endswith("/data.pkl") for name in names):
        return "a Keras model" if "model.weights.h5" in names else f"a zip archive of {format_names(names, 3)}"
    return ""


def _load_file(file: Path, fix: str = "") -> Any:
    try:
        return load_tensor_file(file)
    except TensorFileError as error:
        raise checkpoint_error(file, str(error), EXPECTED_INPUT, fix or suggest_replacement(file)) from error
    except OSError as error:
        raise checkpoint_error(file, str(error), "a complete checkpoint") from error


def suggest_replacement(file: Path) -> str:
    """Return what to do where a checkpoint is damaged: use the other one of its run, or train again."""
    best, last = Path(BEST_CHECKPOINT).name, Path(LAST_CHECKPOINT).name
    other_file = file.with_name(last if file.name == best else best)
    alternatives = ["train the run again"]
    if file.name in (best, last) and other_file.is_file() and not find_damage(other_file):
        epoch = "last" if other_file.name == last else "best"
        alternatives.insert(0, f"{other_file}, the weights of the {epoch} epoch")
    return ", or ".join(alternatives)


def _describe_content(content: Any) -> str:
    """Return what a file of torch.save holds that is no checkpoint of thaw."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    if "pytorch-lightning_version" in content:
        return "a checkpoint of PyTorch Lightning, without thaw's classes, preprocessing and recipe"
    num_tensors = sum(isinstance(value, Tensor) for value in content.values())
    if num_tensors:
        return (
            f"{num_tensors} tensors by name, like the files of torchvision and timm: no classes, preprocessing, recipe"
        )
    return f"entries {format_names(map(str, content), 5) or 'none'}, and no `thaw` among them"


def _parse_metadata(file: Path, metadata: Mapping[str, Any]) -> CheckpointMetadata:
    try:
        return CheckpointMetadata.model_validate(dict(metadata))
    except ValidationError as error:
        messages = [
            f"thaw.{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors(include_url=False)
        ]
        raise checkpoint_error(file, format_names(messages, 3), "a description as thaw writes it") from error
