"""A data set on one page that needs nothing else: `report.html`, and its pictures as PNG files beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thaw.analysis.dataset_plots import aspect_histogram, class_counts, picture_rows, size_scatter
from thaw.analysis.encoded import png_of
from thaw.analysis.page import data_uri, rendered, thumb
from thaw.analysis.picked import as_they_are, as_trained_on, channel_statistics, picked_by_class
from thaw.data.augmentation import Augmentation
from thaw.data.batches import Images
from thaw.data.inspected import Inspected
from thaw.data.problems import broken
from thaw.network.source import IMAGENET

CLASSES_SHOWN, IMAGES_A_CLASS = 24, 8
AUGMENTED_IMAGES, EPOCHS_SHOWN = 6, 4
HEADINGS = ("as it is", *(f"epoch {number + 1}" for number in range(EPOCHS_SHOWN)))
Augmented = list[tuple[str, list[np.ndarray]]]  # class, and one of its images as it is and in the first epochs


def write_report(name: str, data: Inspected, images: Images, folder: Path) -> Path:
    """Writes `report.html` and classes.png, sizes.png, aspects.png, samples.png, augmented.png into `folder`; returns
    the page's path. `images` cuts `data` as training would."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = _sample_rows(data, images)
    augmented = _augmented_rows(data, images)
    pictures = _drawn(data, rows, augmented)
    for title, content in pictures.items():
        (folder / f"{title}.png").write_bytes(content)
    page = folder / "report.html"
    page.write_text(_rendered(name, data, images, rows, augmented, pictures), encoding="utf-8")
    return page


def _sample_rows(data: Inspected, images: Images) -> dict[str, np.ndarray]:
    picked = picked_by_class(data.samples, IMAGES_A_CLASS, CLASSES_SHOWN)
    return {data.samples.classes[label]: as_they_are(images, places) for label, places in picked.items()}


def _augmented_rows(data: Inspected, images: Images) -> Augmented:
    """One image a row, as it is and then as training sees it in its first epochs."""
    if images.augmentation.is_empty:
        return []
    each = -(-AUGMENTED_IMAGES // min(AUGMENTED_IMAGES, len(data.samples.classes)))
    picked = picked_by_class(data.samples, each, AUGMENTED_IMAGES)
    places = [place for positions in picked.values() for place in positions]
    columns = [as_they_are(images, places), *(as_trained_on(images, epoch, places) for epoch in range(EPOCHS_SHOWN))]
    names = [data.samples.classes[data.samples.samples[place].label] for place in places]
    return list(zip(names, map(list, zip(*columns, strict=True)), strict=True))


def _drawn(data: Inspected, rows: Mapping[str, np.ndarray], augmented: Augmented) -> dict[str, bytes]:
    figures = {
        "classes": class_counts(data.samples),
        "sizes": size_scatter(data.store.sizes),
        "aspects": aspect_histogram(data.store.sizes),
        "samples": picture_rows([list(row) for row in rows.values()], list(rows)),
    }
    if augmented:
        figures["augmented"] = picture_rows([row for _, row in augmented], [name for name, _ in augmented], HEADINGS)
    return {title: png_of(figure) for title, figure in figures.items()}


def _rendered(
    name: str,
    data: Inspected,
    images: Images,
    rows: Mapping[str, np.ndarray],
    augmented: Augmented,
    pictures: Mapping[str, bytes],
) -> str:
    return rendered(
        "report.html",
        name=name,
        **_facts(data),
        problems=[*broken(data.skipped), *data.problems],
        channels=_channels(images, data),
        rows={title: [thumb(one) for one in pictures] for title, pictures in rows.items()},
        augmented=[(title, [thumb(one) for one in row]) for title, row in augmented],
        pictures={title: data_uri(content) for title, content in pictures.items()},
        augmentation=_settings(images.augmentation),
        side=images.size,
        headings=HEADINGS,
    )


def _facts(data: Inspected) -> dict[str, Any]:
    samples, sizes = data.samples, data.store.sizes
    height, width = (int(value) for value in np.median(sizes, axis=0))
    return {
        "counts": samples.counts(),
        "total": len(samples.samples),
        "classes": samples.classes,
        "by_class": _by_class(data),
        "fingerprint": samples.fingerprint,
        "passed_over": samples.passed_over,
        "median_size": f"{width} x {height}",
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
    }


def _by_class(data: Inspected) -> list[tuple[str, list[int]]]:
    samples = data.samples
    counts = [
        np.bincount(samples.labels()[samples.of(split)], minlength=len(samples.classes)) for split in samples.counts()
    ]
    return [(name, [int(one[label]) for one in counts]) for label, name in enumerate(samples.classes)]


def _channels(images: Images, data: Inspected) -> dict[str, Any]:
    mean, deviation, count = channel_statistics(images, data.samples)
    rows = zip(("red", "green", "blue"), mean, deviation, IMAGENET.mean, IMAGENET.deviation, strict=True)
    return {"rows": list(rows), "count": count}


def _settings(augmentation: Augmentation) -> str:
    usual = Augmentation()
    values = {one.name: getattr(augmentation, one.name) for one in dataclasses.fields(augmentation)}
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != getattr(usual, name))
