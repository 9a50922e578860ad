"""Say which copies were found: on both sides of a split, with several labels, and within a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from thaw.auditing.findings import CheckResult, Exhibit, Finding, build_finding, build_picture, limit_exhibits
from thaw.auditing.out_of_fold import merge_groups
from thaw.config.errors import format_count
from thaw.data.near_copies import CopyPair
from thaw.data.sample_table import SPLITS
from thaw.data.samples import Samples

NOTHING = "nothing found"


def group_copies(pairs: Sequence[CopyPair], num_images: int) -> np.ndarray:
    """Return groups, int64 [images], in which the images of each pair are together."""
    positions = np.array([(pair.first, pair.second) for pair in pairs], dtype=np.int64).reshape(-1, 2)
    return merge_groups(np.arange(num_images), positions)


def describe_copies(pairs: Iterable[CopyPair], samples: Samples, seconds: float) -> list[CheckResult]:
    """Describe the copies across splits, with different labels, and within a split."""
    ordered = sorted((_order_pair(pair, samples) for pair in pairs), key=lambda pair: (not pair.is_exact, -pair.score))

    def has_equal(pair: CopyPair, name: str) -> bool:
        return bool(getattr(samples.samples[pair.first], name) == getattr(samples.samples[pair.second], name))

    across = [pair for pair in ordered if not has_equal(pair, "split")]
    conflicting = [pair for pair in ordered if not has_equal(pair, "label")]
    within = [pair for pair in ordered if has_equal(pair, "split") and has_equal(pair, "label")]
    drawn = "" if "test" in samples.own_splits else "; another dataset.split_seed puts others on both sides"
    return [
        replace(
            _describe_pairs("copies_across_splits", "Copies across splits", across, samples),
            advice="An accuracy on test images that were trained on is too high. exclude.csv leaves out the train and "
            f"validation images of these pairs{drawn}.",
            seconds=seconds,
        ),
        replace(
            _describe_pairs("conflicting_labels", "Copies with different labels", conflicting, samples),
            advice="At least one label of each pair is wrong. Correct it in relabel.csv, or leave both out.",
        ),
        replace(
            _describe_pairs("copies_within_split", "Copies within a split", within, samples),
            advice="They count an image several times. exclude.csv leaves out all but one of exact copies"
            + ("." if "test" in samples.own_splits else " and, as splits are drawn anew, of near copies."),
        ),
    ]


def _order_pair(pair: CopyPair, samples: Samples) -> CopyPair:
    """Return `pair` with the image of the earlier split first."""
    splits = [SPLITS.index(samples.samples[position].split) for position in (pair.first, pair.second)]
    return pair if splits[0] <= splits[1] else replace(pair, first=pair.second, second=pair.first)


def _describe_pairs(key: str, title: str, pairs: Sequence[CopyPair], samples: Samples) -> CheckResult:
    num_exact = sum(pair.is_exact for pair in pairs)
    counts = [(num_exact, "exact"), (len(pairs) - num_exact, "near")]
    kinds = ", ".join(f"{count} {kind}" for count, kind in counts if count)
    certainty = "exact copies are certain" if num_exact else ""
    if num_exact < len(pairs):
        certainty = "; ".join(filter(None, [certainty, "near copies were confirmed by their pixels"]))
    return CheckResult(
        key,
        title,
        f"{format_count(len(pairs), 'pair')} ({kinds})" if pairs else NOTHING,
        certainty or "all images were compared",
        tuple(_iter_findings(key, pairs, samples)),
        limit_exhibits([_show_pair(pair, samples) for pair in pairs]),
        measurements={"exact": num_exact, "near": len(pairs) - num_exact},
    )


def _iter_findings(key: str, pairs: Iterable[CopyPair], samples: Samples) -> Iterator[Finding]:
    for pair in pairs:
        yield build_finding(key, samples, pair.first, pair.second, score=pair.score, note=pair.difference)


def _show_pair(pair: CopyPair, samples: Samples) -> Exhibit:
    return Exhibit((build_picture(samples, pair.first), build_picture(samples, pair.second)), pair.difference)
