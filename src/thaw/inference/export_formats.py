"""Formats of exports: write each, and run it without thaw's network to compare the two."""

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

from thaw.config.errors import Problem, UserError
from thaw.data.preprocessing import Preprocessing
from thaw.inference.load import Classifier
from thaw.models.network import PixelNetwork, collect_stage_facts
from thaw.runs.checkpoint import DIGEST_KEY, compute_export_digest
from thaw.training.callbacks.checkpointing import build_checkpoint_metadata

INPUT_NAME, OUTPUT_NAMES = "images", ("logits", "probabilities")
EXAMPLE_BATCH_SIZE = 2  # torch takes a batch size of 1 for a constant
MAX_ONNX_BYTES = 2**31  # the format's limit for one file
Metadata = dict[str, str]
LogitsFunction = Callable[[Tensor], Tensor]  # uint8 [n, 3, size, size] -> float32 [n, classes]


@dataclass(frozen=True)
class ExportFormat:
    """A format: `write(classifier, metadata, file)`, `load(file)`, and a note for the user, `describe(file)`."""

    write: Callable[[Classifier, Metadata, Path], None]
    load: Callable[[Path], LogitsFunction]
    describe: Callable[[Path], str]


class ExportableModel(nn.Module):
    """uint8 [n, 3, size, size] -> logits and probabilities, both float32 [n, classes].

    Integers leave no doubt whether pixels go to 1 or to 255; the model normalizes them itself.
    """

    def __init__(self, model: PixelNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and probabilities."""
        logits = self.model(images)
        return logits, logits.softmax(1)


def build_exportable_model(classifier: Classifier) -> ExportableModel:
    """Build the model that exports hold, in evaluation mode."""
    return ExportableModel(PixelNetwork(classifier.network, classifier.preprocessing)).eval()


def build_export_metadata(classifier: Classifier, includes_normalization: bool) -> Metadata:
    """Build JSON by key: the metadata of a checkpoint, and how images become the input."""
    facts = collect_stage_facts(classifier.network, classifier.preprocessing.size)
    metadata = build_checkpoint_metadata(
        classifier.recipe.to_dict(),
        classifier.classes,
        classifier.preprocessing,
        facts,
        classifier.cached_depths,
        precision=classifier.recorded_precision,
    )
    metadata["thaw_format"] = metadata.pop("format")
    metadata["thaw"] = importlib.metadata.version("thaw")
    metadata["input"] = _describe_input(classifier.preprocessing, includes_normalization)
    names = OUTPUT_NAMES if includes_normalization else OUTPUT_NAMES[:1]
    metadata["output"] = {name: {"type": "float32", "shape": ["batch", len(classifier.classes)]} for name in names}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()}


def _describe_input(preprocessing: Preprocessing, includes_normalization: bool) -> dict[str, Any]:
    size, resize, interpolation = preprocessing.size, preprocessing.resize, preprocessing.interpolation
    sides = "both sides" if preprocessing.squash else "the shorter side"
    steps = [
        f"decode to RGB, upright as EXIF says, transparency on white{_describe_fraction(preprocessing)}",
        f"resize {sides} to {resize} pixels, {interpolation} with antialiasing as Pillow does it",
        f"crop {size} x {size} pixels from the center",
    ]
    normalize_step = "divide by 255, subtract preprocessing.mean, divide by preprocessing.std, channel by channel"
    return {
        "name": INPUT_NAME,
        "type": "uint8" if includes_normalization else "float32",
        "shape": ["batch", 3, size, size],
        "values": "0 to 255; the model normalizes them" if includes_normalization else "normalized",
        "steps": steps if includes_normalization else [*steps, normalize_step],
    }


def _describe_fraction(preprocessing: Preprocessing) -> str:
    side = preprocessing.min_decoded_side
    return f"; a JPEG at 1/2, 1/4 or 1/8 of its size if both sides keep {side} pixels" if side else ""


def _build_example(classifier: Classifier) -> Tensor:
    size = classifier.preprocessing.size
    return torch.zeros(EXAMPLE_BATCH_SIZE, 3, size, size, dtype=torch.uint8)


def _write_onnx(classifier: Classifier, metadata: Metadata, file: Path) -> None:
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in classifier.network.state_dict().values())
    if num_bytes >= MAX_ONNX_BYTES:
        fix = "--format torch_export, or --format safetensors"
        raise UserError("too large for ONNX.", [Problem("--format onnx", f"{num_bytes / 2**30:.1f} GiB", "2 GiB", fix)])
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # onnxscript and torch warn about each other
        program = torch.onnx.export(
            build_exportable_model(classifier),
            (_build_example(classifier),),
            dynamo=True,
            input_names=[INPUT_NAME],
            output_names=OUTPUT_NAMES,
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(file, external_data=False)


def _load_onnx(file: Path) -> LogitsFunction:
    import onnx
    import onnxruntime

    onnx.checker.check_model(file, full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(OUTPUT_NAMES[:1], {INPUT_NAME: images.numpy()})[0])


def _describe_onnx(file: Path) -> str:
    import onnx

    model = onnx.load(file)
    (version,) = [opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    outputs = " and ".join(OUTPUT_NAMES)
    return f"opset {version}, {INPUT_NAME} uint8 [batch, 3, size, size] -> {outputs}; onnx.checker passes"


def _write_torch_export(classifier: Classifier, metadata: Metadata, file: Path) -> None:
    with torch.no_grad():
        batch_dim = torch.export.Dim("batch")
        program = torch.export.export(
            build_exportable_model(classifier), (_build_example(classifier),), dynamic_shapes=({0: batch_dim},)
        )
    with file.open("wb") as stream:  # given a path, torch insists on its own suffix
        torch.export.save(program, stream, extra_files=_build_extra_files(metadata))


def _load_torch_export(file: Path) -> LogitsFunction:
    with file.open("rb") as stream:
        module = torch.export.load(stream).module()
    return _select_logits(module)


def _write_torchscript(classifier: Classifier, metadata: Metadata, file: Path) -> None:
    with _ignore_deprecation_warnings():
        script = torch.jit.trace(build_exportable_model(classifier), _build_example(classifier))  # type: ignore[no-untyped-call]
        torch.jit.save(script, str(file), _extra_files=_build_extra_files(metadata))


def _load_torchscript(file: Path) -> LogitsFunction:
    with _ignore_deprecation_warnings():
        return _select_logits(torch.jit.load(str(file)))  # type: ignore[no-untyped-call]


@contextmanager
def _ignore_deprecation_warnings() -> Iterator[None]:
    """Ignore torch.jit's deprecation warning, which `describe` states once, and its warning about constant sizes: the
    image size is a constant of the trace on purpose."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.*", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def _select_logits(module: Callable[[Tensor], tuple[Tensor, Tensor]]) -> LogitsFunction:
    @torch.no_grad()
    def compute_logits(images: Tensor) -> Tensor:
        return module(images)[0]

    return compute_logits


def _build_extra_files(metadata: Mapping[str, str]) -> dict[str, str]:
    return {f"{key}.json": text for key, text in metadata.items()}


def _write_safetensors(classifier: Classifier, metadata: Metadata, file: Path) -> None:
    from safetensors.torch import save

    from thaw.models.state_dict import to_library_state_dict

    tensors = to_library_state_dict(classifier.network, build_library_model(classifier), classifier.recipe.head)
    contiguous_tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    identity = {"data": classifier.identity.model_dump_json()} if classifier.identity else {}
    texts = {"format": "pt", **metadata, **identity}
    content = save(contiguous_tensors, {**texts, DIGEST_KEY: compute_export_digest(texts, contiguous_tensors)})
    file.write_bytes(content)  # safetensors' save_file makes a file that only its owner can read


def _load_safetensors(file: Path) -> LogitsFunction:
    from thaw.inference.load import load_checkpoint

    classifier = load_checkpoint(file)
    return _select_logits(build_exportable_model(classifier))


def build_library_model(classifier: Classifier) -> nn.Module:
    """Build the library's classifier that the network was split from, without values."""
    from thaw.models.factory import load_seeded_pretrained

    recipe = classifier.recipe
    with torch.device("meta"):
        return load_seeded_pretrained(recipe.backbone, True, recipe.seed, Path(), None, recipe.dataset.image_size).model


FORMATS = {
    "onnx": ExportFormat(_write_onnx, _load_onnx, _describe_onnx),
    "torch_export": ExportFormat(
        _write_torch_export,
        _load_torch_export,
        lambda _: (
            "torch.export.load(FILE).module(), without thaw; torch unpickles parts of it: load trusted files only"
        ),
    ),
    "safetensors": ExportFormat(
        _write_safetensors,
        _load_safetensors,
        lambda file: f"weights only, under the library's names; to use them in thaw: backbone.weights={file}",
    ),
    "torchscript": ExportFormat(
        _write_torchscript,
        _load_torchscript,
        lambda _: (
            "torch.jit.load(FILE); torch has deprecated TorchScript and will remove it: prefer --format torch_export"
        ),
    ),
}
