"""Log a run to TensorBoard: custom charts, examples of the data set, test results and hyperparameters."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import yaml
from PIL import Image
from pydantic import BaseModel
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from thaw.config.schema import Recipe
from thaw.data.samples import Samples
from thaw.runs.run import Run
from thaw.training.setup import Data
from thaw.visualization.plots.dataset import plot_class_counts
from thaw.visualization.plots.encode import encode_jpeg, encode_png
from thaw.visualization.plots.example_images import evaluation_pixels, select_class_examples, training_pixels

MAX_IMAGES_SHOWN, MAX_SIDE = 16, 128  # images of the data set, pixels per side
MAX_CURVES = 20  # classes with a precision-recall curve
TEST_PLOT_FILES = ("confusion_matrix.png", "worst.jpg")  # in plots/
# Five, since the HPARAMS tab shows the first five metrics by name by default; final/ comes before all others.
HPARAM_METRICS = (
    ("test", "accuracy"),
    ("test", "loss"),
    ("test", "macro_accuracy"),
    ("val", "accuracy"),
    ("val", "loss"),
)
# Tags are regular expressions; each run that has them is a line. Equal layouts of many runs are shown once.
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


def log_charts(trainer: pl.Trainer) -> None:
    """Log the CUSTOM SCALARS tab: every run has the same charts, so runs share them."""
    _get_writer(trainer).add_custom_scalars(CHARTS)


def log_results(run: Run, samples: Samples, predictions: tuple[Tensor, Tensor], metrics: dict[str, Any]) -> None:
    """Log the results on the test images and the HPARAMS tab. `predictions` are logits [n, classes] and positions [n].

    The results are the images `test/confusion_matrix` and `test/worst` from plots/, and precision-recall curves.
    """
    logits, positions = predictions
    probabilities, labels = logits.softmax(1).numpy(), samples.get_labels()[positions.numpy()]
    with SummaryWriter(run.tensorboard_directory) as writer:
        for file in (run.plots_directory / name for name in TEST_PLOT_FILES if (run.plots_directory / name).is_file()):
            add_encoded_image(writer, f"test/{file.stem}", file.read_bytes())
        for label in find_rarest_classes(labels, MAX_CURVES):
            writer.add_pr_curve(f"test/{samples.classes[label]}", labels == label, probabilities[:, label], 0)
        _log_hyperparameters(writer, run.recipe, metrics)


def find_rarest_classes(labels: np.ndarray, max_classes: int) -> list[int]:
    """Return at most `max_classes` classes that occur in `labels`, the rarest, in ascending order.

    They are the same in all runs of a data set, so their curves overlay; the classes with the worst results are not.
    """
    class_indices, counts = np.unique(labels, return_counts=True)
    return sorted(class_indices[np.argsort(counts, kind="stable")][:max_classes].tolist())


def add_encoded_image(writer: SummaryWriter, tag: str, encoded_image: bytes) -> None:
    """Add the bytes of a PNG or JPEG file.

    The writer's own `add_image` encodes photographs as PNG, 0.1 s each, and its checksum in Python takes 0.2 s per MB.
    """
    with Image.open(io.BytesIO(encoded_image)) as image:
        (width, height), channels = image.size, len(image.getbands())
    image_proto = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded_image)
    summary = Summary(value=[Summary.Value(tag=tag, image=image_proto)])
    writer._get_file_writer().add_summary(summary, 0)  # type: ignore[no-untyped-call]


def _log_hyperparameters(writer: SummaryWriter, recipe: Recipe, metrics: dict[str, Any]) -> None:
    """Log the hyperparameters and the final metrics.

    torch's summary of the experiment is left out: TensorBoard would use the first run's for all runs. Without it
    TensorBoard reads all runs, lists the keys that differ first and the final metrics before the other scalars.
    """
    metric_names = [(split, name) for split, name in HPARAM_METRICS if split in metrics]
    final_metrics = {f"final/{split}_{name}": metrics[split][name] for split, name in metric_names}
    for tag, metric in final_metrics.items():
        writer.add_scalar(tag, metric, 0)
    hyperparameters = collect_hyperparameters(recipe)
    _, session_start, session_end = hparams(hyperparameters, final_metrics)  # type: ignore[no-untyped-call]
    for summary in (session_start, session_end):
        writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]


def collect_hyperparameters(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as `group.key` -> scalar; values that are nested deeper become text.

    A key that is null is left out: it would be a column of "None". TensorBoard counts a key as differing if two runs
    have it with different values, so every group with such keys also has `group.optional`, a text of those that are
    set. The paths of a run are not hyperparameters.
    """
    non_defaults = recipe.model_dump(mode="json", exclude_defaults=True)
    scalars: dict[str, Any] = {}
    for group, value in recipe.to_dict().items():
        if group in ("output_dir", "resume", "data"):
            continue
        if isinstance(value, dict):
            values = {key: non_defaults.get(group, {}).get(key, nested_value) for key, nested_value in value.items()}
            scalars |= {f"{group}.{key}": text for key, text in _list_scalars(type(getattr(recipe, group)), values)}
        elif value is not None:
            scalars[group] = _to_scalar(value)
    return scalars


def _list_scalars(schema: type[BaseModel], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    optional_keys = [key for key, field in schema.model_fields.items() if field.default is None]
    yield from ((key, _to_scalar(value)) for key, value in values.items() if value is not None)
    if optional_keys:
        yield "optional", _to_scalar({key: values[key] for key in optional_keys if values.get(key) is not None})


def _to_scalar(value: Any) -> bool | int | float | str:
    if isinstance(value, dict | list):
        return str(yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)).strip()
    return value if isinstance(value, bool | int | float | str) else str(value)


def log_dataset(trainer: pl.Trainer, data: Data) -> None:
    """Log the images `data/class_counts`, `data/samples` and, if training augments, `data/augmented`.

    The last two show the same samples, `data/augmented` those of the first epoch. Takes less than a second for a data
    set of any size.
    """
    samples, images, writer = data.samples, data.images, _get_writer(trainer)
    add_encoded_image(writer, "data/class_counts", encode_png(plot_class_counts(samples), dpi=100))
    num_per_class = max(1, MAX_IMAGES_SHOWN // len(samples.classes))
    positions_by_class = select_class_examples(samples, num_per_class, MAX_IMAGES_SHOWN).values()
    positions = [position for class_positions in positions_by_class for position in class_positions]
    pixels = {"data/samples": evaluation_pixels(images, positions[:MAX_IMAGES_SHOWN])}
    if not images.augmentation.is_empty:
        pixels["data/augmented"] = training_pixels(images, 0, positions[:MAX_IMAGES_SHOWN])
    for tag, tag_pixels in pixels.items():
        add_encoded_image(writer, tag, encode_jpeg(tile_images(downscale_images(tag_pixels))))


def _get_writer(trainer: pl.Trainer) -> Any:
    assert trainer.logger is not None
    return trainer.logger.experiment  # type: ignore[attr-defined]


def downscale_images(images: np.ndarray) -> np.ndarray:
    """Downscale uint8 [n, size, size, 3] to at most MAX_SIDE pixels per side."""
    side = min(MAX_SIDE, images.shape[1])
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side))) for image in images])


def tile_images(images: np.ndarray, columns: int = 4, gap: int = 2) -> np.ndarray:
    """Tile uint8 [n, height, width, 3] in rows on white, `gap` pixels apart. Returns uint8 [height, width, 3]."""
    height, width = (side + gap for side in images[0].shape[:2])
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    grid = np.full((rows * height - gap, columns * width - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * height, index % columns * width
        grid[top : top + height - gap, left : left + width - gap] = image
    return grid
