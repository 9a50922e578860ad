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
from thaw.data.batches import ImageDataset
from thaw.data.samples import Samples
from thaw.runs.run import Run
from thaw.visualization.plots.dataset import plot_class_counts
from thaw.visualization.plots.encode import encode_jpeg, encode_png
from thaw.visualization.plots.example_images import evaluation_pixels, select_class_examples, training_pixels

MAX_CURVES = 20  # classes with a precision-recall curve
TEST_PLOT_FILES = ("confusion_matrix.png", "worst.jpg")  # of plots/
# Five, since the HPARAMS tab shows the first five metrics by name without being asked; final/ comes before all others.
HPARAM_METRICS = (
    ("test", "accuracy"),
    ("test", "loss"),
    ("test", "macro_accuracy"),
    ("val", "accuracy"),
    ("val", "loss"),
)
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


def log_charts(trainer: pl.Trainer) -> None:
    """The CUSTOM SCALARS tab: the same charts in every run, so that scratch, fixed and fine-tune share them."""
    assert trainer.logger is not None
    writer: Any = trainer.logger.experiment  # type: ignore[attr-defined]
    writer.add_custom_scalars(CHARTS)


def log_results(run: Run, samples: Samples, predictions: tuple[Tensor, Tensor], metrics: dict[str, Any]) -> None:
    """Of the test images, whose logits [n, classes] and positions [n] are `predicted`: `test/confusion_matrix` and
    `test/worst`, as they lie in plots/, and precision-recall curves; of the run the tab HPARAMS."""
    logits, positions = predictions
    probabilities, labels = logits.softmax(1).numpy(), samples.get_labels()[positions.numpy()]
    with SummaryWriter(run.tensorboard_directory) as writer:
        for file in (run.plots_directory / name for name in TEST_PLOT_FILES):
            add_encoded_image(writer, f"test/{file.stem}", file.read_bytes())
        for label in find_rarest_classes(labels, MAX_CURVES):
            writer.add_pr_curve(f"test/{samples.classes[label]}", labels == label, probabilities[:, label], 0)
        _log_hyperparameters(writer, run.recipe, metrics)


def find_rarest_classes(labels: np.ndarray, max_classes: int) -> list[int]:
    """All that occur, ascending, or the `most` that do least often: the same in all runs of a data set, so that their
    curves overlay, unlike those that a network is worst at."""
    class_indices, counts = np.unique(labels, return_counts=True)
    return sorted(class_indices[np.argsort(counts, kind="stable")][:max_classes].tolist())


def add_encoded_image(writer: SummaryWriter, tag: str, encoded_image: bytes) -> None:
    """Of a PNG or JPEG file. The writer's own `add_image` makes PNGs of photographs, 0.1 s each, and its checksum is
    Python code, 0.2 s a megabyte."""
    with Image.open(io.BytesIO(encoded_image)) as image:
        (width, height), channels = image.size, len(image.getbands())
    image_proto = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded_image)
    summary = Summary(value=[Summary.Value(tag=tag, image=image_proto)])
    writer._get_file_writer().add_summary(summary, 0)  # type: ignore[no-untyped-call]


def _log_hyperparameters(writer: SummaryWriter, recipe: Recipe, metrics: dict[str, Any]) -> None:
    """Without torch's summary of an experiment, of which TensorBoard would take the first run's for all: so it looks at
    all runs itself, puts the keys that differ first and the final metrics before the other scalars."""
    final_metrics = {
        f"final/{split}_{name}": metrics[split][name] for split, name in HPARAM_METRICS if split in metrics
    }
    for tag, value in final_metrics.items():
        writer.add_scalar(tag, value, 0)
    _, session_start, session_end = hparams(collect_hyperparameters(recipe), final_metrics)  # type: ignore[no-untyped-call]
    for summary in (session_start, session_end):
        writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]


def collect_hyperparameters(recipe: Recipe) -> dict[str, Any]:
    """`group.key` -> a scalar, or text of what lies deeper. TensorBoard holds a key to differ where two runs have it
    with different values; at this depth all recipes of a kind have the same keys. Where a run writes itself is none."""
    non_defaults = recipe.model_dump(mode="json", exclude_defaults=True)
    scalars: dict[str, Any] = {}
    for group, value in recipe.to_dict().items():
        if group in ("output_dir", "resume", "data"):
            continue
        if isinstance(value, dict):
            scalars |= {
                f"{group}.{key}": _to_scalar(non_defaults.get(group, {}).get(key, nested_value))
                for key, nested_value in value.items()
            }
        else:
            scalars[group] = _to_scalar(value)
    return scalars


def _to_scalar(value: Any) -> bool | int | float | str:
    if isinstance(value, dict | list):
        return str(yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)).strip()
    return value if isinstance(value, bool | int | float | str) else str(value)


MAX_IMAGES_SHOWN = 16
MAX_SIDE = 128  # pixels, a picture's side


def log_dataset(trainer: pl.Trainer, samples: Samples, images: ImageDataset) -> None:
    """Images `data/class_counts`, `data/samples` and, where training augments, `data/augmented`: the same samples in
    its first epoch. Takes less than a second, whatever the size of the data set."""
    assert trainer.logger is not None
    writer: Any = trainer.logger.experiment  # type: ignore[attr-defined]
    add_encoded_image(writer, "data/class_counts", encode_png(plot_class_counts(samples), dpi=100))
    num_per_class = max(1, MAX_IMAGES_SHOWN // len(samples.classes))
    positions_by_class = select_class_examples(samples, num_per_class, MAX_IMAGES_SHOWN).values()
    sample_positions = [position for class_positions in positions_by_class for position in class_positions][
        :MAX_IMAGES_SHOWN
    ]
    add_encoded_image(
        writer, "data/samples", encode_jpeg(tile_images(downscale_images(evaluation_pixels(images, sample_positions))))
    )
    if not images.augmentation.is_empty:
        add_encoded_image(
            writer,
            "data/augmented",
            encode_jpeg(tile_images(downscale_images(training_pixels(images, 0, sample_positions)))),
        )


def downscale_images(images: np.ndarray) -> np.ndarray:
    """uint8 [n, side, side, 3] of uint8 [n, size, size, 3], `side` at most LARGEST."""
    side = min(MAX_SIDE, images.shape[1])
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side))) for image in images])


def tile_images(images: np.ndarray, columns: int = 4, gap: int = 2) -> np.ndarray:
    """uint8 [height, width, 3] of uint8 [n, height, width, 3]: side by side on white, `gap` pixels apart."""
    height, width = (side + gap for side in images[0].shape[:2])
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    grid = np.full((rows * height - gap, columns * width - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * height, index % columns * width
        grid[top : top + height - gap, left : left + width - gap] = image
    return grid
