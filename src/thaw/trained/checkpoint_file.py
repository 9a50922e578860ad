"""A file -> what a checkpoint of thaw's holds, or a refusal that says what it is instead. Nothing in it is executed."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.schema import Strict
from thaw.data.preprocessing import INTERPOLATIONS
from thaw.training.format import FORMAT

BEST = "checkpoints/best.ckpt"
VALID = "a run directory, or its checkpoints/best.ckpt"
AS_WEIGHTS = "python train.py backbone.weights=FILE starts a training from weights alone"
FOREIGN = (  # first bytes, what they are of
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GGUF", "a GGUF file"),
)
Triple = Annotated[list[float], Field(min_length=3, max_length=3)]


class _Preprocessing(Strict):
    size: int
    resize: int
    interpolation: Literal[tuple(INTERPOLATIONS)]  # type: ignore[valid-type]
    mean: Triple
    deviation: Triple
    squash: bool


class About(Strict):
    """What `training.checkpoint.description` writes, as it comes back."""

    format: int
    recipe: dict[str, Any]
    classes: Annotated[list[str], Field(min_length=2)]
    preprocessing: _Preprocessing
    stages: list[dict[str, Any]]
    cached: list[int] = Field(default=[])


def checkpoint_in(place: Path) -> Path:
    """The file that `place` names: itself, or of a run directory the best epoch's.

    Raises:
        UserFault: where there is none.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        near = nearest(place.name, [one.name for one in place.parent.glob("*")]) if place.parent.is_dir() else None
        raise refused(place, "no such file", VALID, str(place.parent / near) if near else "")
    found = [place / name for name in (BEST, Path(BEST).name) if (place / name).is_file()]
    if not found:
        below = sorted(str(one.parents[1]) for one in place.glob(f"*/{BEST}"))
        got = f"a folder of {len(below)} runs" if below else "a folder without checkpoints/best.ckpt"
        raise refused(place, got, f"one of {listing(below, 5)}" if below else VALID, below[0] if below else "")
    return found[0]


def content_of(file: Path) -> tuple[About, dict[str, Tensor]]:
    """What `file` says of itself, and the network's tensors by name; of an export to safetensors by the library's.

    Raises:
        UserFault: for a file that is no whole checkpoint of thaw's, is of a newer thaw, or holds more than tensors and
            plain data.
    """
    if is_exported(file):
        return _exported(file)
    if foreign := _foreign(file):
        raise refused(file, foreign, VALID, AS_WEIGHTS if "tensors" in foreign else "")
    content = _loaded(file)
    about = content.get("thaw") if isinstance(content, Mapping) else None
    if not isinstance(about, Mapping):
        raise refused(file, _other(content), f"a checkpoint of thaw's, {VALID}", AS_WEIGHTS)
    if about.get("format") != FORMAT:
        newer = isinstance(about.get("format"), int) and about["format"] > FORMAT
        got = f"format {about.get('format')}{', of a newer thaw' if newer else ''}"
        raise refused(file, got, f"format {FORMAT}", "pip install --upgrade thaw" if newer else "")
    state = content.get("state_dict")
    if not isinstance(state, Mapping) or not all(isinstance(one, Tensor) for one in state.values()):
        raise refused(file, "state_dict holds something else than tensors", "tensors by name")
    return _described(file, about), {str(name).removeprefix("network."): one for name, one in state.items()}


def is_exported(file: Path) -> bool:
    """Whether `thaw export --format safetensors` has written it, by its metadata."""
    try:
        with safe_open(file, "pt") as opened:
            return "thaw_format" in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _exported(file: Path) -> tuple[About, dict[str, Tensor]]:
    with safe_open(file, "pt") as opened:
        held, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if held["thaw_format"] != str(FORMAT):
        raise refused(file, f"format {held['thaw_format']}", f"format {FORMAT}", "pip install --upgrade thaw")
    keys = [one for one in About.model_fields if one != "format" and one in held]
    try:
        about = {key: json.loads(held[key]) for key in keys}
    except ValueError as error:
        raise refused(file, f"metadata that are no JSON: {error}", "a description as thaw writes it") from error
    return _described(file, {"format": FORMAT, **about}), tensors


def check_fit(file: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises UserFault naming the tensors of `state` that are missing, unknown or of another shape than `wanted`'s."""
    if got := "; ".join(_misfits(state, wanted)):
        unknown = [name for name in state if name not in wanted]
        pairs = ((name, nearest(name, unknown)) for name in wanted if name not in state)
        renamed = [f"{near} -> {name}" for name, near in pairs if near]
        fix = f"the file as it was trained{f'; renamed? {listing(renamed, 3)}' if renamed else ''}"
        raise refused(file, got, f"the {len(wanted)} tensors of its own recipe's network", fix)


def refused(file: Path, got: str, valid: str, fix: str = "") -> UserFault:
    return UserFault("the checkpoint cannot be used.", [Fault(str(file), got, valid, fix)])


def _misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    missing, unknown = [name for name in wanted if name not in state], [name for name in state if name not in wanted]
    shapes = [
        f"{name} {list(state[name].shape)} instead of {list(one.shape)}"
        for name, one in wanted.items()
        if name in state and state[name].shape != one.shape
    ]
    for what, names in (("missing", missing), ("not in the network", unknown), ("of another shape", shapes)):
        if names:
            yield f"{len(names)} tensor{'s' * (len(names) > 1)} {what}: {listing(names, 3)}"


def _foreign(file: Path) -> str:
    """What the file is by its first bytes, where that is nothing that torch.save writes."""
    with file.open("rb") as stream:
        head = stream.read(4096)
    if not head:
        return "the file is empty"
    for magic, what in FOREIGN:
        if head.startswith(magic):
            return what
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size:
        return _foreign_tensors(file)
    if file.suffix == ".onnx":
        return "an ONNX file"
    if head.startswith(b"PK"):
        return _foreign_archive(file)
    return "text" if not re.search(rb"[\x00-\x08\x0e-\x1a\x80-\xff]", head) else ""


def _foreign_tensors(file: Path) -> str:
    try:
        with safe_open(file, "pt"):
            return "a safetensors file: tensors without classes, preprocessing and recipe"
    except SafetensorError as error:
        return f"a truncated or damaged safetensors file: {error}"


def _foreign_archive(file: Path) -> str:
    if not zipfile.is_zipfile(file):
        return "a truncated file: the end of its archive is missing"
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program, which would have to be executed"
    if not any(name.endswith("/data.pkl") for name in names):
        return "a Keras model" if "model.weights.h5" in names else f"a zip archive of {listing(names, 3)}"
    return ""


def _loaded(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        objects = f"pickled objects{f' ({found[1]})' if found else ''}, which would have to be executed"
        is_pickle = found or "Unsupported" in str(error) or "weights_only" in str(error).lower()
        raise refused(file, f"it holds {objects}" if is_pickle else "no file of torch.save's", VALID) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise refused(file, str(error).strip().splitlines()[0], "a whole checkpoint") from error


def _other(content: Any) -> str:
    """What torch.save has written, if it is no checkpoint of thaw's."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    if "pytorch-lightning_version" in content:
        return "a checkpoint of PyTorch Lightning, without thaw's classes, preprocessing and recipe"
    tensors = sum(isinstance(one, Tensor) for one in content.values())
    if tensors:
        return f"{tensors} tensors by name, as torchvision's and timm's files hold: no classes, preprocessing, recipe"
    return f"entries {listing(map(str, content), 5) or 'none'}, and no `thaw` among them"


def _described(file: Path, about: Mapping[str, Any]) -> About:
    try:
        return About.model_validate(dict(about))
    except ValidationError as error:
        told = [f"thaw.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
        raise refused(file, listing(told, 3), "a description as thaw writes it") from error
