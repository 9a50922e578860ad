"""Report a data set on one self-contained page, `report.html`, with its figures as PNG files beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thaw.data.augmentation import Augmentation
from thaw.data.batches import ImageDataset
from thaw.data.inspection import DatasetInspection
from thaw.data.problems import build_broken_problems
from thaw.models.pretrained import IMAGENET_PREPROCESSING
from thaw.visualization.plots.dataset import plot_aspect_ratios, plot_class_counts, plot_image_rows, plot_image_sizes
from thaw.visualization.plots.encode import encode_png
from thaw.visualization.plots.example_images import (
    compute_channel_statistics,
    evaluation_pixels,
    select_class_examples,
    training_pixels,
)
from thaw.visualization.reports.html import encode_data_uri, encode_thumbnail, render_template

MAX_CLASSES, MAX_IMAGES_PER_CLASS = 24, 8
MAX_AUGMENTED_IMAGES, NUM_SHOWN_EPOCHS = 6, 4
HEADINGS = ("original", *(f"epoch {number + 1}" for number in range(NUM_SHOWN_EPOCHS)))
AugmentedRows = list[tuple[str, list[np.ndarray]]]  # class; an image of it without augmentation and in the first epochs


def write_report(name: str, data: DatasetInspection, images: ImageDataset, folder: Path) -> Path:
    """Write the report and classes.png, sizes.png, aspects.png, samples.png, augmented.png; return the report's path.

    `images` loads the images of `data` as training does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sample_rows, augmented_rows = _build_sample_rows(data, images), _build_augmented_rows(data, images)
    plots = _draw_plots(data, sample_rows, augmented_rows)
    for title, content in plots.items():
        (folder / f"{title}.png").write_bytes(content)
    html = render_template(
        "report.html",
        name=name,
        **_collect_facts(data),
        **_encode_rows(sample_rows, augmented_rows),
        channels=_compute_channel_rows(images, data),
        plots={title: encode_data_uri(content) for title, content in plots.items()},
        augmentation=_describe_augmentation(images.augmentation),
        side=images.size,
        headings=HEADINGS,
    )
    report_path = folder / "report.html"
    report_path.write_text(html, encoding="utf-8")
    return report_path


def _build_sample_rows(data: DatasetInspection, images: ImageDataset) -> dict[str, np.ndarray]:
    positions_by_label = select_class_examples(data.samples, MAX_IMAGES_PER_CLASS, MAX_CLASSES)
    return {
        data.samples.classes[label]: evaluation_pixels(images, positions)
        for label, positions in positions_by_label.items()
    }


def _build_augmented_rows(data: DatasetInspection, images: ImageDataset) -> AugmentedRows:
    """Build one row per image: without augmentation, then as training sees it in the first epochs."""
    if images.augmentation.is_empty:
        return []
    images_per_class = -(-MAX_AUGMENTED_IMAGES // min(MAX_AUGMENTED_IMAGES, len(data.samples.classes)))
    positions_by_label = select_class_examples(data.samples, images_per_class, MAX_AUGMENTED_IMAGES)
    shown_positions = [position for positions in positions_by_label.values() for position in positions]
    columns = [
        evaluation_pixels(images, shown_positions),
        *(training_pixels(images, epoch, shown_positions) for epoch in range(NUM_SHOWN_EPOCHS)),
    ]
    class_names = [data.samples.classes[data.samples.samples[position].label] for position in shown_positions]
    return list(zip(class_names, map(list, zip(*columns, strict=True)), strict=True))


def _draw_plots(
    data: DatasetInspection, sample_rows: Mapping[str, np.ndarray], augmented_rows: AugmentedRows
) -> dict[str, bytes]:
    figures = {
        "classes": plot_class_counts(data.samples),
        "sizes": plot_image_sizes(data.store.sizes),
        "aspects": plot_aspect_ratios(data.store.sizes),
        "samples": plot_image_rows([list(pixels) for pixels in sample_rows.values()], list(sample_rows)),
    }
    if augmented_rows:
        class_names, rows = zip(*augmented_rows, strict=True)
        figures["augmented"] = plot_image_rows(rows, class_names, HEADINGS)
    return {title: encode_png(figure) for title, figure in figures.items()}


def _encode_rows(sample_rows: Mapping[str, np.ndarray], augmented_rows: AugmentedRows) -> dict[str, Any]:
    return {
        "sample_rows": {name: [encode_thumbnail(pixels) for pixels in row] for name, row in sample_rows.items()},
        "augmented_rows": [(name, [encode_thumbnail(pixels) for pixels in row]) for name, row in augmented_rows],
    }


def _collect_facts(data: DatasetInspection) -> dict[str, Any]:
    samples, sizes = data.samples, data.store.sizes
    height, width = (int(value) for value in np.median(sizes, axis=0))
    return {
        "counts": samples.count_per_split(),
        "total": len(samples.samples),
        "classes": samples.classes,
        "counts_by_class": _count_by_class(data),
        "fingerprint": samples.fingerprint,
        "ignored_files": samples.group_ignored_files(),
        "problems": [*build_broken_problems(data.skipped), *data.problems],
        "median_size": f"{width} x {height}",
        "min_side": int(sizes.min()),
        "max_side": int(sizes.max()),
    }


def _count_by_class(data: DatasetInspection) -> list[tuple[str, list[int]]]:
    samples = data.samples
    counts = [
        np.bincount(samples.get_labels()[samples.get_positions(split)], minlength=len(samples.classes))
        for split in samples.count_per_split()
    ]
    return [(name, [int(split_counts[label]) for split_counts in counts]) for label, name in enumerate(samples.classes)]


def _compute_channel_rows(images: ImageDataset, data: DatasetInspection) -> dict[str, Any]:
    mean, std, count = compute_channel_statistics(images, data.samples)
    rows = zip(
        ("red", "green", "blue"), mean, std, IMAGENET_PREPROCESSING.mean, IMAGENET_PREPROCESSING.std, strict=True
    )
    return {"rows": list(rows), "count": count}


def _describe_augmentation(augmentation: Augmentation) -> str:
    defaults = Augmentation()
    values = {setting.name: getattr(augmentation, setting.name) for setting in dataclasses.fields(augmentation)}
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != getattr(defaults, name))
