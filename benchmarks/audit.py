"""Measure the checks of `thaw audit` on data sets with planted faults.

    python -m benchmarks.audit NAME=DIR [NAME=DIR ...] [key=value ...]       folders of images

For each data set, the first table has what the checks list as it is, and the second how many planted faults they list:

- wrong labels: 5 % of the labels become another class (similar: a class that the image resembles), 3 to 10 draws; `top`
  is the precision of as many images as were planted, at the head of the list, counting only planted labels as wrong;
- outliers: 1 % images of another of the data sets, each in turn; precision counts no other image as an outlier;
- shortcuts: the first class saved at another JPEG quality, at another size, or as PNG; half of the classes saved at
  another quality. `kinds` are the planted kinds that were not listed before and are now;
- classes: a class cut at random into two names, up to 5 classes of at least 20 images;
- groups: 4 crops each of up to 60 images as frames of a scene, whose name holds the number of the scene; `none` if
  nothing is suggested for the same features with shuffled names.

Seconds of the processor are those of the checks, in the second table with planting and the features of the scenes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from thaw.auditing.classes import find_inseparable_classes
from thaw.auditing.file_facts import read_file_facts
from thaw.auditing.group_names import GroupSuggestion, suggest_groups
from thaw.auditing.labels import LabelCheck, check_labels
from thaw.auditing.neighbors import Neighbors, find_neighbors
from thaw.auditing.out_of_fold import OutOfFold, predict_out_of_fold, project_features
from thaw.auditing.outliers import find_outliers
from thaw.auditing.shortcuts import Shortcut, measure_shortcuts
from thaw.config.compose import compose_recipe
from thaw.data.samples import Samples
from thaw.training.extraction import extract_features

RECIPE = ("dataset=folder", "data.broken=skip", "dataset.fractions.val=0", "trainer.accelerator=cpu")
PLANTED_FRACTION, MIN_PLANTED = 0.01, 5
MAX_SCENES, MIN_SCENES_PER_CLASS, NUM_FRAMES = 60, 6, 4
MAX_SPLIT_CLASSES, MIN_CLASS_IMAGES = 5, 20
Writer = Callable[[Image.Image, Path], None]


@dataclass(frozen=True)
class AuditedData:
    """A data set and what its checks share."""

    samples: Samples
    features: np.ndarray
    projected: np.ndarray
    neighbors: Neighbors
    predictions: OutOfFold

    @property
    def labels(self) -> np.ndarray:
        return self.samples.get_labels()

    @property
    def singles(self) -> np.ndarray:
        return np.arange(len(self.labels))

    @property
    def paths(self) -> list[str]:
        return [sample.path for sample in self.samples.samples]


def main(arguments: list[str]) -> None:
    roots = {
        name: Path(value) for name, _, value in (text.partition("=") for text in arguments) if Path(value).is_dir()
    }
    overrides = [text for text in arguments if text.partition("=")[0] not in roots]
    data_sets = {name: load_data(root, overrides) for name, root in roots.items()}
    print("| data set | images | classes | accuracy | wrong labels | outliers | shortcuts | classes | groups | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    label_checks = {name: _print_findings(name, data) for name, data in data_sets.items()}
    print(
        "\n| data set | wrong labels: recall | precision | top | similar: recall | outliers: recall | precision ",
        end="",
    )
    print("| shortcuts | classes | groups | random split | grouped split | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name, data in data_sets.items():
        others = [other.features for other_name, other in data_sets.items() if other_name != name]
        print(_format_planted(name, data, label_checks[name], others, overrides), flush=True)


def load_data(root: Path, overrides: list[str]) -> AuditedData:
    """Extract the features of the images under `root` and predict their labels out of fold."""
    extraction = extract_features(compose_recipe([*RECIPE, f'dataset.root="{root}"', *overrides]))
    features, labels = extraction.values, extraction.labels
    projected, neighbors = project_features(features), find_neighbors(features)
    predictions = predict_out_of_fold(projected, neighbors, labels, np.arange(len(labels)))
    return AuditedData(extraction.samples, features, projected, neighbors, predictions)


def _print_findings(name: str, data: AuditedData) -> LabelCheck:
    """Print what the checks list in the data set as it is."""
    start_time = time.process_time()
    label_check = check_labels(data.projected, data.neighbors, data.labels, data.singles, data.predictions)
    num_outliers = len(find_outliers(data.neighbors))
    shortcuts = ", ".join(sorted(_list_shortcuts(data.samples.root, data.paths, data.labels))) or "none"
    pairs = find_inseparable_classes(data.predictions, data.labels)
    num_inseparable = sum(pair.is_inseparable for pair in pairs)
    groups = suggest_groups(data.paths, data.projected, data.neighbors, data.labels, data.singles)
    print(
        f"| {name} | {len(data.labels)} | {len(data.samples.classes)} | {label_check.accuracy:.3f} "
        f"| {len(label_check.suspects)} of {label_check.num_estimated} | {num_outliers} | {shortcuts} "
        f"| {num_inseparable}, {len(pairs) - num_inseparable} mixed | {f'`{groups.pattern}`' if groups else 'none'} "
        f"| {time.process_time() - start_time:.1f} |",
        flush=True,
    )
    return label_check


def _format_planted(
    name: str, data: AuditedData, label_check: LabelCheck, others: list[np.ndarray], overrides: list[str]
) -> str:
    start_time, planted = time.process_time(), label_check.planted
    assert planted is not None
    precision = planted.recall * planted.num_planted / max(planted.num_listed, 1)
    outlier_recall, outlier_precision = _measure_outliers(data, others)
    num_found, num_split = _measure_split_classes(data)
    shortcuts, groups = _measure_shortcuts(data), _measure_groups(data, overrides)
    return (
        f"| {name} | {planted.recall:.2f} | {precision:.2f} | {planted.top_precision:.2f} "
        f"| {planted.similar_recall:.2f} | {outlier_recall:.2f} | {outlier_precision:.2f} | {shortcuts} "
        f"| {num_found} of {num_split} | {groups} | {time.process_time() - start_time:.1f} |"
    )


def _measure_outliers(data: AuditedData, others: list[np.ndarray]) -> tuple[float, float]:
    """Return the recall and the precision of planted images of other data sets, as means over these."""
    num_images, rng, results = len(data.features), np.random.default_rng(0), []
    num_planted = max(MIN_PLANTED, round(PLANTED_FRACTION * num_images))
    for other in others:
        planted = other[rng.choice(len(other), min(num_planted, len(other)), replace=False)]
        outliers = find_outliers(find_neighbors(np.concatenate([data.features, planted])))
        num_found = sum(outlier.position >= num_images for outlier in outliers)
        results.append((num_found / len(planted), num_found / max(len(outliers), 1)))
    recall, precision = np.mean(results, axis=0) if results else (float("nan"), float("nan"))
    return float(recall), float(precision)


def _measure_split_classes(data: AuditedData) -> tuple[int, int]:
    """Return how many of the classes that were cut into two names are listed as inseparable, and how many were cut."""
    sizes, num_found = np.bincount(data.labels), 0
    candidates = np.flatnonzero(sizes >= MIN_CLASS_IMAGES)[:MAX_SPLIT_CLASSES]
    for label in candidates:
        labels = data.labels.copy()
        labels[(labels == label) & (np.random.default_rng(label).random(len(labels)) < 0.5)] = len(sizes)
        predictions = predict_out_of_fold(data.projected, data.neighbors, labels, data.singles)
        pairs = {
            (pair.first, pair.second) for pair in find_inseparable_classes(predictions, labels) if pair.is_inseparable
        }
        num_found += (label, len(sizes)) in pairs
    return num_found, len(candidates)


def _measure_shortcuts(data: AuditedData) -> str:
    """Return how many planted shortcuts are listed."""
    with Image.open(data.samples.root / data.paths[0]) as image:
        width, height = image.size
    writers: dict[str, tuple[Writer, bool]] = {
        "quality": (lambda image, path: image.save(path, "JPEG", quality=95), False),
        "size": (lambda image, path: image.resize((width + 16, height + 16)).save(path, "JPEG", quality=75), False),
        "format": (lambda image, path: image.save(path, "PNG"), False),
        "sources": (lambda image, path: image.save(path, "JPEG", quality=95), True),
    }
    kinds = {
        "quality": "JPEG tables",
        "size": "image size",
        "format": "format and color mode",
        "sources": "JPEG tables",
    }
    num_found, before = 0, _list_shortcuts(data.samples.root, data.paths, data.labels)
    for planted, (write, is_half) in writers.items():
        num_changed = len(data.samples.classes) // 2 if is_half else 1
        with tempfile.TemporaryDirectory() as folder:
            for path, label in zip(data.paths, data.labels, strict=True):
                copy = Path(folder) / path
                copy.parent.mkdir(parents=True, exist_ok=True)
                if label < num_changed:
                    write(Image.open(data.samples.root / path).convert("RGB"), copy)
                else:
                    copy.symlink_to(data.samples.root / path)
            num_found += kinds[planted] in _list_shortcuts(Path(folder), data.paths, data.labels).keys() - before.keys()
    return f"{num_found} of {len(writers)}"


def _list_shortcuts(root: Path, paths: list[str], labels: np.ndarray) -> dict[str, Shortcut]:
    shortcuts = measure_shortcuts(read_file_facts(root, paths), labels, np.arange(len(labels)))
    return {shortcut.kind: shortcut for shortcut in shortcuts if shortcut.is_shortcut}


def _measure_groups(data: AuditedData, overrides: list[str]) -> str:
    """Return whether scenes of several frames are suggested, and the accuracy of a random and of a grouped split."""
    with tempfile.TemporaryDirectory() as folder:
        scenes = _write_scenes(data, Path(folder))
        frames = load_data(Path(folder), [*overrides, "feature_cache.mode=off"])
        suggestion = _suggest(frames, frames.paths)
        is_right = suggestion is not None and suggestion.num_groups == scenes
        shuffled = np.random.default_rng(0).permutation(len(frames.paths))
        is_none = _suggest(frames, [f"x/scene{index // NUM_FRAMES}_{index}.jpg" for index in shuffled]) is None
    if suggestion is None:
        return "not found | |"
    verdict = f"{'found' if is_right else 'others found'}, {'none' if is_none else 'some'}"
    return f"{verdict} | {suggestion.random_accuracy:.3f} | {suggestion.grouped_accuracy:.3f}"


def _suggest(frames: AuditedData, paths: list[str]) -> GroupSuggestion | None:
    return suggest_groups(paths, frames.projected, frames.neighbors, frames.labels, frames.singles)


def _write_scenes(data: AuditedData, folder: Path) -> int:
    """Write frames of scenes and return the number of scenes."""
    rng, scene = np.random.default_rng(0), 0
    for position in _draw_positions(data.labels, rng):
        sample = data.samples.samples[position]
        image = Image.open(data.samples.root / sample.path).convert("RGB")
        class_folder = folder / data.samples.classes[sample.label]
        class_folder.mkdir(exist_ok=True)
        for frame in range(NUM_FRAMES):
            sides = np.array(image.size)
            left, top = (rng.uniform(0, 0.2, 2) * sides).astype(int)
            width, height = (0.8 * sides).astype(int)
            crop = image.crop((left, top, left + width, top + height))
            crop = ImageEnhance.Brightness(crop).enhance(rng.uniform(0.8, 1.2))
            crop.save(class_folder / f"scene{scene:03}_{frame}.jpg", quality=int(rng.integers(70, 95)))
        scene += 1
    return scene


def _draw_positions(labels: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yield up to MAX_SCENES positions of random images, about as many of each of at most 10 classes."""
    classes = rng.permutation(labels.max() + 1)[: max(2, MAX_SCENES // MIN_SCENES_PER_CLASS)]
    order = rng.permutation(np.flatnonzero(np.isin(labels, classes)))
    ranks = np.array([int((labels[order[:index]] == labels[position]).sum()) for index, position in enumerate(order)])
    yield from map(int, order[np.argsort(ranks, kind="stable")][:MAX_SCENES])


if __name__ == "__main__":
    main(sys.argv[1:])
