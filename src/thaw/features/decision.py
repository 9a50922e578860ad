"""Where in each phase the network is cut, so that what lies before runs once per image and not once per epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Cache
from thaw.data.augmentation import Augmentation
from thaw.strategy.plan import PhasePlan, Plan

# Below this many multiply-adds of a frozen prefix for each byte of its output, computing the output is cheap beside
# keeping it: Lite0's stem and first block, with maps of 0.8 to 1.6 MB an image, lie below 64, all behind them above.
WORTH_KEEPING = 64


@dataclass(frozen=True)
class Prefix:
    """The leading `depth` stages: bytes of their output for an image, multiply-adds that they take."""

    depth: int
    stage: str
    bytes_an_image: int
    multiply_adds: int


@dataclass(frozen=True)
class Decision:
    """For a phase: the `depth` at which features are cached, 0 for none, and `why` none or why no more."""

    phase: str
    depth: int
    why: str = ""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def decisions(
    plan: Plan,
    prefixes: Sequence[Prefix],
    cache: Cache,
    augmentation: Augmentation,
    rows: int,
    averages: bool,
    against: str = "",
) -> dict[str, Decision]:
    """By phase. `prefixes` has one of each depth from 1; `rows` is how many images, with their views, are to be cached;
    `averages`: weights are averaged, and validated as averages. `against` is a reason of the run's for none at all.

    Raises:
        UserFault: with cache=require, naming the phases that cannot be cached and why.
    """
    found = {
        phase.name: Decision(phase.name, 0, against)
        if against and phase.frontier
        else _decision(plan, phase, prefixes, cache, augmentation, rows, averages)
        for phase in plan.phases
    }
    refused = [one for one in found.values() if not one.depth]
    if cache.mode == "require" and refused:
        faults = [Fault(f"cache=require, phase {one.phase}", one.why, fix="cache=auto") for one in refused]
        raise UserFault("features cannot be cached.", faults)
    return found


def _decision(
    plan: Plan,
    phase: PhasePlan,
    prefixes: Sequence[Prefix],
    cache: Cache,
    augmentation: Augmentation,
    rows: int,
    averages: bool,
) -> Decision:
    depth = phase.still_stages
    why = _impossible(plan, phase, cache, augmentation, averages)
    if not why and rows * prefixes[depth - 1].bytes_an_image > cache.gib * 2**30:
        size = rows * prefixes[depth - 1].bytes_an_image / 2**30
        why = f"the output of {prefixes[depth - 1].stage} would take {size:.3g} GiB, more than cache.gib={cache.gib:g}"
    if not why and cache.mode == "auto":
        why = _unworthy(plan, phase, prefixes[depth - 1], cache, augmentation)
    return Decision(phase.name, 0 if why else depth, why)


def _impossible(plan: Plan, phase: PhasePlan, cache: Cache, augmentation: Augmentation, averages: bool) -> str:
    depth = phase.still_stages
    if cache.mode == "off":
        return "cache=off"
    if not phase.frontier:
        return "nothing before the first trained stage is frozen"
    if not depth:
        return f"BatchNorm of {phase.parts[0].name}, though frozen, follows the batches"
    if augmentation.mixes:
        return "mixup and CutMix mix images anew in every epoch"
    if not augmentation.is_empty and cache.views is None and not augmentation.flips_alone:
        return "augmentation changes images anew in every epoch; cache.views=8 trains on 8 views of each instead"
    if averages and not plan.untouched(depth, phase):
        return "validation sees averaged weights of its frozen stages, training others"
    return ""


def _unworthy(plan: Plan, phase: PhasePlan, prefix: Prefix, cache: Cache, augmentation: Augmentation) -> str:
    views = 1 if augmentation.is_empty else 2 if augmentation.flips_alone else cache.views or 1
    epochs = sum(one.end - one.start for one in plan.phases if one.still_stages == prefix.depth)
    if epochs <= views:
        counted = "1 view" if views == 1 else f"{views} views"
        return f"{counted} of each image, {epochs} epoch{'s' if epochs > 1 else ''}: nothing would be saved"
    if prefix.multiply_adds < WORTH_KEEPING * prefix.bytes_an_image:
        return f"reading the output of {prefix.stage} would take as long as computing it"
    return ""


def told(
    decided: Mapping[str, Decision],
    prefixes: Sequence[Prefix],
    rows: int,
    augmentation: Augmentation,
    views: int | None,
) -> Iterator[str]:
    """A line for each depth, and for each reason of not caching; `rows` are images with their views."""
    alike: dict[tuple[int, str], list[str]] = {}
    for one in decided.values():
        alike.setdefault((one.depth, one.why), []).append(one.phase)
    for (depth, why), phases in alike.items():
        what = f"not cached: {why}" if why else _kept(prefixes[depth - 1], rows, augmentation, views)
        yield f"features{_where(phases) if len(alike) > 1 else ''}: {what}"


def _where(phases: Sequence[str]) -> str:
    return f" in phase{'s' * (len(phases) > 1)} {', '.join(phases)}"


def _kept(prefix: Prefix, rows: int, augmentation: Augmentation, views: int | None) -> str:
    stages = "1 stage runs" if prefix.depth == 1 else f"{prefix.depth} stages run"
    size = rows * prefix.bytes_an_image / 2**20
    if augmentation.is_empty:
        how = "image, not once per epoch"
    elif augmentation.flips_alone:
        how = "image and mirror image, not once per epoch"
    else:
        how = f"image in {views} views; an approximation, as every epoch would draw anew"
    return f"up to {prefix.stage}, the {stages} once per {how} ({size:,.1f} MiB)"
