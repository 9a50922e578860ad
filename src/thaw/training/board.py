"""What TensorBoard shows of a whole run: charts in which runs overlay, HPARAMS, and what the test images tell."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytorch_lightning as pl
import yaml
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from thaw.config.schema import Recipe
from thaw.data.samples import Samples
from thaw.training.run import Run

MOST_CURVES = 20  # classes with a precision-recall curve
PICTURES = ("confusion_matrix.png", "worst.jpg")  # of plots/
# Five, since the HPARAMS tab shows the first five metrics by name without being asked; final/ comes before all others.
FINALS = (("test", "accuracy"), ("test", "loss"), ("test", "macro_accuracy"), ("val", "accuracy"), ("val", "loss"))
# Tags are regular expressions; every run that has them is a line. Equal layouts of many runs are shown once.
CHARTS = {
    "strategies": {
        "validation accuracy": ["Multiline", ["val/accuracy"]],
        "validation loss": ["Multiline", ["val/loss"]],
        "training loss": ["Multiline", ["train/loss"]],
        "training accuracy": ["Multiline", ["train/accuracy"]],
    },
    "learning rates": {
        "of the head": ["Multiline", ["lr/head"]],
        "of every part": ["Multiline", ["lr/.*"]],
    },
    "norms": {
        "gradient of the head": ["Multiline", ["grad_norm/head"]],
        "gradients of all that trains": ["Multiline", ["grad_norm/.*"]],
        "weights of all that trains": ["Multiline", ["weight_norm/.*"]],
    },
}


def show_charts(trainer: pl.Trainer) -> None:
    """The CUSTOM SCALARS tab: the same charts in every run, so that scratch, fixed and fine-tune share them."""
    assert trainer.logger is not None
    writer: Any = trainer.logger.experiment  # type: ignore[attr-defined]
    writer.add_custom_scalars(CHARTS)


def show_results(run: Run, samples: Samples, predicted: tuple[Tensor, Tensor], metrics: dict[str, Any]) -> None:
    """Of the test images, whose logits [n, classes] and positions [n] are `predicted`: `test/confusion_matrix` and
    `test/worst`, as they lie in plots/, and precision-recall curves; of the run the tab HPARAMS."""
    logits, positions = predicted
    probabilities, labels = logits.softmax(1).numpy(), samples.labels()[positions.numpy()]
    with SummaryWriter(run.directory / "tensorboard") as writer:
        for file in (run.directory / "plots" / name for name in PICTURES):
            add_picture(writer, f"test/{file.stem}", file.read_bytes())
        for label in rarest(labels, MOST_CURVES):
            writer.add_pr_curve(f"test/{samples.classes[label]}", labels == label, probabilities[:, label], 0)
        _show_hyperparameters(writer, run.recipe, metrics)


def rarest(labels: np.ndarray, most: int) -> list[int]:
    """All that occur, ascending, or the `most` that do least often: the same in all runs of a data set, so that their
    curves overlay, unlike those that a network is worst at."""
    found, counts = np.unique(labels, return_counts=True)
    return sorted(found[np.argsort(counts, kind="stable")][:most].tolist())


def add_picture(writer: SummaryWriter, tag: str, content: bytes) -> None:
    """Of a PNG or JPEG file. The writer's own `add_image` makes PNGs of photographs, 0.1 s each, and its checksum is
    Python code, 0.2 s a megabyte."""
    with Image.open(io.BytesIO(content)) as image:
        (width, height), channels = image.size, len(image.getbands())
    shown = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=content)
    summary = Summary(value=[Summary.Value(tag=tag, image=shown)])
    writer._get_file_writer().add_summary(summary, 0)  # type: ignore[no-untyped-call]


def _show_hyperparameters(writer: SummaryWriter, recipe: Recipe, metrics: dict[str, Any]) -> None:
    """Without torch's summary of an experiment, of which TensorBoard would take the first run's for all: so it looks at
    all runs itself, puts the keys that differ first and the final metrics before the other scalars."""
    finals = {f"final/{split}_{name}": metrics[split][name] for split, name in FINALS if split in metrics}
    for tag, value in finals.items():
        writer.add_scalar(tag, value, 0)
    _, started, ended = hparams(hyperparameters(recipe), finals)  # type: ignore[no-untyped-call]
    for summary in (started, ended):
        writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]


def hyperparameters(recipe: Recipe) -> dict[str, Any]:
    """`group.key` -> a scalar, or text of what lies deeper. TensorBoard holds a key to differ where two runs have it
    with different values; at this depth all recipes of a kind have the same keys. Where a run writes itself is none."""
    short = recipe.model_dump(mode="json", exclude_defaults=True)
    found: dict[str, Any] = {}
    for group, value in recipe.plain().items():
        if group in ("output_dir", "resume", "data"):
            continue
        if isinstance(value, dict):
            found |= {f"{group}.{key}": _scalar(short.get(group, {}).get(key, one)) for key, one in value.items()}
        else:
            found[group] = _scalar(value)
    return found


def _scalar(value: Any) -> bool | int | float | str:
    if isinstance(value, dict | list):
        return str(yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)).strip()
    return value if isinstance(value, bool | int | float | str) else str(value)
