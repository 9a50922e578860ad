"""A data set on one page that needs nothing else: `report.html`, and its pictures as PNG files beside it."""

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
HEADINGS = ("as it is", *(f"epoch {number + 1}" for number in range(NUM_SHOWN_EPOCHS)))
AugmentedRows = list[tuple[str, list[np.ndarray]]]  # class, and one of its images as it is and in the first epochs


def write_report(name: str, data: DatasetInspection, images: ImageDataset, folder: Path) -> Path:
    """Writes `report.html` and classes.png, sizes.png, aspects.png, samples.png, augmented.png into `folder`; returns
    the page's path. `images` cuts `data` as training would."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = _build_sample_rows(data, images)
    augmented = _build_augmented_rows(data, images)
    pictures = _draw_figures(data, rows, augmented)
    for title, content in pictures.items():
        (folder / f"{title}.png").write_bytes(content)
    report_path = folder / "report.html"
    report_path.write_text(_render_report(name, data, images, rows, augmented, pictures), encoding="utf-8")
    return report_path


def _build_sample_rows(data: DatasetInspection, images: ImageDataset) -> dict[str, np.ndarray]:
    positions_by_label = select_class_examples(data.samples, MAX_IMAGES_PER_CLASS, MAX_CLASSES)
    return {
        data.samples.classes[label]: evaluation_pixels(images, positions)
        for label, positions in positions_by_label.items()
    }


def _build_augmented_rows(data: DatasetInspection, images: ImageDataset) -> AugmentedRows:
    """One image a row, as it is and then as training sees it in its first epochs."""
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


def _draw_figures(
    data: DatasetInspection, rows: Mapping[str, np.ndarray], augmented: AugmentedRows
) -> dict[str, bytes]:
    figures = {
        "classes": plot_class_counts(data.samples),
        "sizes": plot_image_sizes(data.store.sizes),
        "aspects": plot_aspect_ratios(data.store.sizes),
        "samples": plot_image_rows([list(row) for row in rows.values()], list(rows)),
    }
    if augmented:
        figures["augmented"] = plot_image_rows([row for _, row in augmented], [name for name, _ in augmented], HEADINGS)
    return {title: encode_png(figure) for title, figure in figures.items()}


def _render_report(
    name: str,
    data: DatasetInspection,
    images: ImageDataset,
    rows: Mapping[str, np.ndarray],
    augmented: AugmentedRows,
    pictures: Mapping[str, bytes],
) -> str:
    return render_template(
        "report.html",
        name=name,
        **_collect_facts(data),
        problems=[*build_broken_problems(data.skipped), *data.problems],
        channels=_compute_channel_rows(images, data),
        rows={title: [encode_thumbnail(pixels) for pixels in pictures] for title, pictures in rows.items()},
        augmented=[(title, [encode_thumbnail(pixels) for pixels in row]) for title, row in augmented],
        pictures={title: encode_data_uri(content) for title, content in pictures.items()},
        augmentation=_describe_augmentation(images.augmentation),
        side=images.size,
        headings=HEADINGS,
    )


def _collect_facts(data: DatasetInspection) -> dict[str, Any]:
    samples, sizes = data.samples, data.store.sizes
    height, width = (int(value) for value in np.median(sizes, axis=0))
    return {
        "counts": samples.count_per_split(),
        "total": len(samples.samples),
        "classes": samples.classes,
        "by_class": _count_by_class(data),
        "fingerprint": samples.fingerprint,
        "passed_over": samples.ignored_files,
        "median_size": f"{width} x {height}",
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
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
