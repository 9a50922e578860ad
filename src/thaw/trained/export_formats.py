"""The formats of an export: how each is written, and run by itself, to be held against the network."""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thaw.config.faults import Fault, UserFault
from thaw.data.preprocessing import Preprocessing
from thaw.network.network import Network, facts
from thaw.network.normalise import Normalise
from thaw.trained.restore import Restored
from thaw.training.checkpoint import description

IMAGES, OUTPUTS = "images", ("logits", "probabilities")
TRACED_WITH = 2  # images: of one, torch takes the number for a constant
MOST_BYTES_OF_ONNX = 2**31  # of one file: its format's limit
Metadata = dict[str, str]
Logits = Callable[[Tensor], Tensor]  # float32 [n, classes] for uint8 [n, 3, size, size]


@dataclass(frozen=True)
class Format:
    """`write(trained, metadata, file)` and `logits_of(file)`. `notes(file)` says what a user is to know of it."""

    write: Callable[[Restored, Metadata, Path], None]
    logits_of: Callable[[Path], Logits]
    notes: Callable[[Path], str]


class Shipped(nn.Module):
    """uint8 [n, 3, size, size] -> logits and probabilities, both float32 [n, classes]. Integers leave no doubt whether
    0..1 or 0..255 is meant, and the mean and deviation of the source's images are taken off in here."""

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalise, self.network = Normalise(preprocessing), network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(self.normalise(images))
        return logits, logits.softmax(1)


def shipped(trained: Restored) -> Shipped:
    return Shipped(trained.network, trained.preprocessing).eval()


def metadata_of(trained: Restored, normalised_inside: bool) -> Metadata:
    """JSON by key: what a checkpoint says of itself, and how images become the input."""
    rows = facts(trained.network, trained.preprocessing.size)
    about = description(trained.recipe.plain(), trained.classes, trained.preprocessing, rows, trained.cached)
    about["thaw_format"] = about.pop("format")
    about["thaw"] = importlib.metadata.version("thaw")
    about["input"] = _input(trained.preprocessing, normalised_inside)
    names = OUTPUTS if normalised_inside else OUTPUTS[:1]
    about["output"] = {name: {"type": "float32", "shape": ["batch", len(trained.classes)]} for name in names}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()}


def _input(preprocessing: Preprocessing, normalised_inside: bool) -> dict[str, Any]:
    size, resize, how = preprocessing.size, preprocessing.resize, preprocessing.interpolation
    sides = "both sides" if preprocessing.squash else "the shorter side"
    steps = [
        "decode to RGB, upright as EXIF says, transparency on white",
        f"resize {sides} to {resize} pixels, {how} with antialiasing as Pillow does it",
        f"cut {size} x {size} pixels out of the centre",
    ]
    normalise = "divide by 255, subtract preprocessing.mean, divide by preprocessing.deviation, channel by channel"
    return {
        "name": IMAGES,
        "type": "uint8" if normalised_inside else "float32",
        "shape": ["batch", 3, size, size],
        "values": "0 to 255; mean and deviation are taken off inside" if normalised_inside else "normalised",
        "steps": steps if normalised_inside else [*steps, normalise],
    }


def _example(trained: Restored) -> Tensor:
    size = trained.preprocessing.size
    return torch.zeros(TRACED_WITH, 3, size, size, dtype=torch.uint8)


def _write_onnx(trained: Restored, metadata: Metadata, file: Path) -> None:
    held = sum(one.numel() * one.element_size() for one in trained.network.state_dict().values())
    if held >= MOST_BYTES_OF_ONNX:
        fix = "--format torch_export, or --format safetensors"
        raise UserFault("too large for ONNX.", [Fault("--format onnx", f"{held / 2**30:.1f} GiB", "2 GiB", fix)])
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # of onnxscript and torch about one another
        program = torch.onnx.export(
            shipped(trained),
            (_example(trained),),
            dynamo=True,
            input_names=[IMAGES],
            output_names=OUTPUTS,
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(file, external_data=False)


def _run_onnx(file: Path) -> Logits:
    import onnx
    import onnxruntime

    onnx.checker.check_model(file, full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(OUTPUTS[:1], {IMAGES: images.numpy()})[0])


def _about_onnx(file: Path) -> str:
    import onnx

    model = onnx.load(file)
    (opset,) = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    return f"opset {opset}, {IMAGES} uint8 [batch, 3, size, size] -> {' and '.join(OUTPUTS)}; onnx.checker passes"


def _write_program(trained: Restored, metadata: Metadata, file: Path) -> None:
    with torch.no_grad():
        batch = torch.export.Dim("batch")
        program = torch.export.export(shipped(trained), (_example(trained),), dynamic_shapes=({0: batch},))
    with file.open("wb") as stream:  # by name it would insist on the ending
        torch.export.save(program, stream, extra_files=_as_files(metadata))


def _run_program(file: Path) -> Logits:
    with file.open("rb") as stream:
        module = torch.export.load(stream).module()
    return _first_of(module)


def _write_script(trained: Restored, metadata: Metadata, file: Path) -> None:
    with _deprecated():
        script = torch.jit.trace(shipped(trained), _example(trained))  # type: ignore[no-untyped-call]
        torch.jit.save(script, str(file), _extra_files=_as_files(metadata))


def _run_script(file: Path) -> Logits:
    with _deprecated():
        return _first_of(torch.jit.load(str(file)))  # type: ignore[no-untyped-call]


@contextmanager
def _deprecated() -> Iterator[None]:
    """torch.jit says in every call that it is going away, where `notes` says it once; that the size of the images is a
    constant of the trace is meant so."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.*", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def _first_of(module: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Logits:
    @torch.no_grad()
    def logits(images: Tensor) -> Tensor:
        return module(images)[0]

    return logits


def _as_files(metadata: Mapping[str, str]) -> dict[str, str]:
    return {f"{key}.json": text for key, text in metadata.items()}


def _write_safetensors(trained: Restored, metadata: Metadata, file: Path) -> None:
    from safetensors.torch import save

    from thaw.network.names import under_library_names

    tensors = under_library_names(trained.network, library_model(trained), trained.recipe.head)
    whole = {name: one.detach().clone(memory_format=torch.contiguous_format) for name, one in tensors.items()}
    file.write_bytes(save(whole, {"format": "pt", **metadata}))  # save_file leaves a file that others cannot read


def _run_safetensors(file: Path) -> Logits:
    from thaw.trained.restore import restored

    read = restored(file)
    return _first_of(shipped(read))


def library_model(trained: Restored) -> nn.Module:
    """The library's classifier that `trained` was cut from, without values."""
    from thaw.network.build import source_for

    recipe = trained.recipe
    with torch.device("meta"):
        return source_for(recipe.backbone, True, recipe.seed, Path(), None, recipe.dataset.image_size).model


FORMATS = {
    "onnx": Format(_write_onnx, _run_onnx, _about_onnx),
    "torch_export": Format(
        _write_program,
        _run_program,
        lambda _: (
            "torch.export.load(FILE).module(), without thaw; torch unpickles parts of such files: trust their origin"
        ),
    ),
    "safetensors": Format(
        _write_safetensors,
        _run_safetensors,
        lambda file: f"weights alone, under the library's names; again in thaw: backbone.weights={file}",
    ),
    "torchscript": Format(
        _write_script,
        _run_script,
        lambda _: (
            "torch.jit.load(FILE); torch has deprecated TorchScript and will drop it: prefer --format torch_export"
        ),
    ),
}
