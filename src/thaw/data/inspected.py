"""A data set looked through: what can be used of it, decoded, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thaw.config.faults import Fault, UserFault, listing
from thaw.data.live import Live, bytes_of_store, live
from thaw.data.lookalike import difference_hashes
from thaw.data.preprocessing import Preprocessing
from thaw.data.problems import Problem, printable, problems_in
from thaw.data.samples import Samples
from thaw.data.store import Store, store_of


@dataclass(frozen=True)
class Inspected:
    """`samples` and `store` without the images that cannot be decoded; those are `skipped`: path -> why."""

    samples: Samples
    store: Store | Live
    skipped: dict[str, str]
    problems: list[Problem]


def inspected(
    samples: Samples,
    preprocessing: Preprocessing,
    cache: Path,
    skip_broken: bool,
    near_duplicates: bool,
    most_bytes: float = float("inf"),
) -> Inspected:
    """Every image is decoded once, unless a store of it is there; all else is found in the store. Where the store would
    take more than `most_bytes`, images are decoded anew at every access.

    Raises:
        UserFault: naming the images that cannot be decoded; with `skip_broken` only where too little is left.
    """
    keeps = bytes_of_store(samples, preprocessing) <= most_bytes
    found = store_of(samples, preprocessing, cache, skip_broken) if keeps else live(samples, preprocessing, skip_broken)
    usable, store, skipped = without_broken(samples, found)
    looks = difference_hashes(store[position] for position in range(len(usable.samples))) if near_duplicates else None
    return Inspected(usable, store, skipped, problems_in(usable, store.sizes, looks))


def without_broken(samples: Samples, store: Store | Live) -> tuple[Samples, Store | Live, dict[str, str]]:
    """Both without the broken images, and those: path -> why.

    Raises:
        UserFault: where a class has no train image any more, or no test image is left.
    """
    if not store.broken:
        return samples, store, {}
    kept = [position for position in range(len(samples.samples)) if position not in store.broken]
    skipped = {printable(samples.samples[position].path): why for position, why in store.broken.items()}
    remaining = samples.only(kept)
    _check_remaining(remaining)
    return remaining, store.only(kept), skipped


def _check_remaining(samples: Samples) -> None:
    learnt = {sample.label for sample in samples.samples if sample.split == "train"}
    lost = [f"train images of {name}" for label, name in enumerate(samples.classes) if label not in learnt]
    lost += [] if samples.counts()["test"] else ["test images"]
    if lost:
        fix = "mend the images; data.broken=error names them"
        fault = Fault("data.broken=skip", f"no {listing(lost)} left", fix=fix)
        raise UserFault("too little is left without the broken images.", [fault])
