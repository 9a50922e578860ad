"""Say what each check on features and files has found: for the screen, the page and audit.csv."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict

import numpy as np

from thaw.auditing.classes import ClassPair
from thaw.auditing.findings import (
    CheckResult,
    Exhibit,
    Finding,
    Picture,
    Table,
    build_finding,
    build_picture,
    limit_exhibits,
)
from thaw.auditing.labels import LabelCheck, SuspectLabel
from thaw.auditing.neighbors import Neighbors
from thaw.auditing.out_of_fold import OutOfFold
from thaw.auditing.outliers import MIN_DEVIATION, BlankImage, Outlier
from thaw.auditing.shortcuts import Shortcut
from thaw.config.errors import format_count
from thaw.data.samples import Samples

NOTHING = "nothing found"
NUM_NEIGHBORS = 3  # that are shown beside an image
NUM_EXAMPLES = 3  # images of each of two classes that are hard to tell apart
MIN_ACCURACY_OVER_CHANCE = 0.1  # of predictions on which a statement about labels can be built


def describe_labels(check: LabelCheck, samples: Samples, neighbors: Neighbors, checked: Collection[int]) -> CheckResult:
    """Describe the probable wrong labels, without the images `checked`, whose label a person has checked."""
    suspects = [suspect for suspect in check.suspects if suspect.position not in checked]
    classes = samples.classes
    findings = [
        build_finding(
            "wrong_label",
            samples,
            suspect.position,
            suggested_label=classes[suspect.likely_label],
            score=suspect.likely_probability - suspect.label_probability,
            note=_format_probabilities(suspect, classes),
        )
        for suspect in suspects
    ]
    measured = check.planted.describe() if check.planted else "too few images to measure the recall"
    certainty = f"predictions on images they were not fitted to are right in {check.accuracy:.3f} of cases; {measured}"
    return CheckResult(
        "wrong_labels",
        "Probable wrong labels",
        format_count(len(suspects), "image") if suspects else NOTHING,
        certainty,
        tuple(findings),
        limit_exhibits([_show_suspect(suspect, samples, neighbors) for suspect in suspects]),
        advice="A person must look at each: the list is the most probable first, and some labels are right.",
        measurements={
            "accuracy": check.accuracy,
            "num_unpredictable": check.num_unpredictable,
            "planted": asdict(check.planted) if check.planted else None,
        },
    )


def _format_probabilities(suspect: SuspectLabel, classes: Sequence[str]) -> str:
    label, likely_label = classes[suspect.label], classes[suspect.likely_label]
    return f"{label} {suspect.label_probability:.2f}, {likely_label} {suspect.likely_probability:.2f}"


def _show_suspect(suspect: SuspectLabel, samples: Samples, neighbors: Neighbors) -> Exhibit:
    classes, position = samples.classes, suspect.position
    title = f"labeled {classes[suspect.label]}, likely {classes[suspect.likely_label]}"
    nearest = [int(index) for index in neighbors.indices[position, :NUM_NEIGHBORS]]
    neighbor_pictures = [build_picture(samples, index, is_small=True) for index in nearest]
    pictures = (build_picture(samples, position, title), *neighbor_pictures)
    return Exhibit(pictures, f"{_format_probabilities(suspect, classes)}; below it its nearest images")


def describe_shortcuts(shortcuts: Sequence[Shortcut], classes: Sequence[str]) -> CheckResult:
    """Describe how well the class can be told from facts about the files."""
    strong = [shortcut for shortcut in shortcuts if shortcut.is_shortcut]
    findings = [
        Finding(
            "shortcut",
            label=", ".join(classes[entry.label] for entry in shortcut.classes),
            score=shortcut.accuracy,
            note=f"{shortcut.describe(classes)}; {shortcut.remark}",
        )
        for shortcut in strong
    ]
    rows = [
        (
            shortcut.kind,
            f"{shortcut.accuracy:.2f}",
            "{:.2f} to {:.2f}".format(*shortcut.accuracy_ci95),
            f"{shortcut.chance:.2f}",
            "yes" if shortcut.is_shortcut else "no",
            shortcut.format_classes(classes),
            shortcut.remark,
        )
        for shortcut in shortcuts
    ]
    headings = (
        "told from",
        "accuracy",
        "95 % interval",
        "chance",
        "shortcut",
        "classes told from all others",
        "remark",
    )
    return CheckResult(
        "shortcuts",
        "Shortcuts",
        f"{', '.join(shortcut.kind for shortcut in strong)}" if strong else NOTHING,
        strong[0].describe(classes) if strong else _describe_best_kind(shortcuts, classes),
        tuple(findings),
        table=Table(headings, tuple(rows)) if rows else None,
        advice="A network may learn the compression or the source of the files instead of what they show. Convert all "
        "files in the same way, or collect each class from the same sources.",
        measurements={shortcut.kind: asdict(shortcut) for shortcut in shortcuts},
    )


def _describe_best_kind(shortcuts: Sequence[Shortcut], classes: Sequence[str]) -> str:
    return shortcuts[0].describe(classes) if shortcuts else "all files are alike in size, format and name"


def describe_outliers(outliers: Sequence[Outlier], samples: Samples) -> CheckResult:
    """Describe the images far from all others."""
    findings = [
        build_finding(
            "outlier",
            samples,
            outlier.position,
            score=outlier.deviation,
            note=f"{outlier.deviation:.1f} standard deviations farther from other images than most",
        )
        for outlier in outliers
    ]
    exhibits = [
        Exhibit((build_picture(samples, outlier.position),), f"{outlier.deviation:.1f} standard deviations away")
        for outlier in outliers
    ]
    certainty = "images farther from others than nearly all are: rare views, other kinds of pictures, damage"
    return CheckResult(
        "outliers",
        "Outliers",
        format_count(len(outliers), "image") if outliers else NOTHING,
        certainty if outliers else f"no image is {MIN_DEVIATION} standard deviations farther from others than most",
        tuple(findings),
        limit_exhibits(exhibits),
        advice="Leave out what does not belong to the data set; rare images of a class should stay.",
    )


def describe_blank_images(blank_images: Sequence[BlankImage], samples: Samples) -> CheckResult:
    """Describe the images that show nothing."""
    notes = [f"standard deviation of its pixels {image.std:.1f} of 255" for image in blank_images]
    return CheckResult(
        "blank_images",
        "Images that show nothing",
        format_count(len(blank_images), "image") if blank_images else NOTHING,
        "nearly the same pixels everywhere; certain" if blank_images else "all pixels were looked at",
        tuple(
            build_finding("blank", samples, image.position, note=note)
            for image, note in zip(blank_images, notes, strict=True)
        ),
        limit_exhibits(
            [
                Exhibit((build_picture(samples, image.position),), note)
                for image, note in zip(blank_images, notes, strict=True)
            ]
        ),
        advice="They teach nothing; exclude.csv leaves them out.",
    )


def describe_classes(pairs: Sequence[ClassPair], samples: Samples, predictions: OutOfFold) -> CheckResult:
    """Describe the classes that cannot be told apart, with images of one that are taken for the other."""
    classes, labels = samples.classes, samples.get_labels()
    predicted = predictions.probabilities.argmax(1)
    inseparable = [pair for pair in pairs if pair.is_inseparable]
    findings = [
        Finding(
            "similar_classes",
            label=classes[pair.first],
            other_label=classes[pair.second],
            score=1 - pair.separation,
            note=_describe_pair(pair),
        )
        for pair in pairs
    ]
    counts = f"{len(inseparable)} of them not told apart at all" if inseparable else "mixed more than others"
    return CheckResult(
        "similar_classes",
        "Classes that are hard to tell apart",
        f"{format_count(len(pairs), 'pair')}, {counts}" if pairs else NOTHING,
        f"{classes[pairs[0].first]} and {classes[pairs[0].second]}: {_describe_pair(pairs[0])}"
        if pairs
        else "every two classes are told apart by the features",
        tuple(findings),
        limit_exhibits([_show_pair(pair, samples, labels, predicted) for pair in pairs]),
        advice="By these features; a network that is fine-tuned may tell them apart. If people cannot, merge them.",
    )


def _describe_pair(pair: ClassPair) -> str:
    low, high = pair.separation_ci95
    return (
        f"{pair.num_mixed} of {pair.num_images} images are taken for the other class; of an image of each, the right "
        f"one is preferred in {pair.separation:.2f} of cases ({low:.2f} to {high:.2f}; chance is 0.50)"
    )


def _show_pair(pair: ClassPair, samples: Samples, labels: np.ndarray, predicted: np.ndarray) -> Exhibit:
    pictures: list[Picture] = []
    for label, other in ((pair.first, pair.second), (pair.second, pair.first)):
        of_class = np.flatnonzero(labels == label)
        order = np.argsort(predicted[of_class] != other, kind="stable")  # those that are taken for the other come first
        pictures += [build_picture(samples, int(position)) for position in of_class[order][:NUM_EXAMPLES]]
    names = f"{samples.classes[pair.first]} and {samples.classes[pair.second]}"
    return Exhibit(tuple(pictures), f"{names}: {_describe_pair(pair)}")
