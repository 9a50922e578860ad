"""Where in each phase the network is cut, so that what lies before runs once per image and not once per epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thaw.config.errors import Problem, UserError
from thaw.config.schema import FeatureCacheConfig
from thaw.data.augmentation import Augmentation
from thaw.strategy.plan import PhasePlan, Plan

# Below this many multiply-adds of a frozen prefix for each byte of its output, computing the output is cheap beside
# keeping it: Lite0's stem and first block, with maps of 0.8 to 1.6 MB an image, lie below 64, all behind them above.
MIN_MULTIPLY_ADDS_PER_BYTE = 64


@dataclass(frozen=True)
class Prefix:
    """The leading `depth` stages: bytes of their output for an image, multiply-adds that they take."""

    depth: int
    stage: str
    bytes_per_image: int
    multiply_adds: int


@dataclass(frozen=True)
class Decision:
    """For a phase: the `depth` at which features are cached, 0 for none, and `why` none or why no more."""

    phase: str
    depth: int
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def decide_caching(
    plan: Plan,
    prefixes: Sequence[Prefix],
    cache_config: FeatureCacheConfig,
    augmentation: Augmentation,
    num_rows: int,
    has_weight_averaging: bool,
    blocker: str = "",
) -> dict[str, Decision]:
    """By phase. `prefixes` has one of each depth from 1; `rows` is how many images, with their views, are to be cached;
    `averages`: weights are averaged, and validated as averages. `against` is a reason of the run's for none at all.

    Raises:
        UserFault: with feature_cache=require, naming the phases that cannot be cached and why.
    """
    decision_by_phase = {
        phase.name: Decision(phase.name, 0, blocker)
        if blocker and phase.num_frozen_stages
        else _decide_phase(plan, phase, prefixes, cache_config, augmentation, num_rows, has_weight_averaging)
        for phase in plan.phases
    }
    uncached_decisions = [decision for decision in decision_by_phase.values() if not decision.depth]
    if cache_config.mode == "require" and uncached_decisions:
        problems = [
            Problem(f"feature_cache=require, phase {decision.phase}", decision.why, fix="feature_cache=auto")
            for decision in uncached_decisions
        ]
        raise UserError("features cannot be cached.", problems)
    return decision_by_phase


def _decide_phase(
    plan: Plan,
    phase: PhasePlan,
    prefixes: Sequence[Prefix],
    cache_config: FeatureCacheConfig,
    augmentation: Augmentation,
    num_rows: int,
    has_weight_averaging: bool,
) -> Decision:
    depth = phase.num_static_stages
    reason = _find_blocker(plan, phase, cache_config, augmentation, has_weight_averaging)
    if not reason and num_rows * prefixes[depth - 1].bytes_per_image > cache_config.gib * 2**30:
        size_gib = num_rows * prefixes[depth - 1].bytes_per_image / 2**30
        reason = f"the output of {prefixes[depth - 1].stage} would take {size_gib:.3g} GiB, more than feature_cache.gib={cache_config.gib:g}"
    if not reason and cache_config.mode == "auto":
        reason = _not_worthwhile(plan, phase, prefixes[depth - 1], cache_config, augmentation)
    return Decision(phase.name, 0 if reason else depth, reason)


def _find_blocker(
    plan: Plan,
    phase: PhasePlan,
    cache_config: FeatureCacheConfig,
    augmentation: Augmentation,
    has_weight_averaging: bool,
) -> str:
    depth = phase.num_static_stages
    if cache_config.mode == "off":
        return "feature_cache=off"
    if not phase.num_frozen_stages:
        return "nothing before the first trained stage is frozen"
    if not depth:
        return f"BatchNorm of {phase.parts[0].name}, though frozen, follows the batches"
    if reason := augmentation.plan_cached_views(cache_config.views).reason:
        return reason
    if has_weight_averaging and not plan.is_pretrained_until(depth, phase):
        return "validation sees averaged weights of its frozen stages, training others"
    return ""


def _not_worthwhile(
    plan: Plan, phase: PhasePlan, prefix: Prefix, cache_config: FeatureCacheConfig, augmentation: Augmentation
) -> str:
    num_views = augmentation.plan_cached_views(cache_config.views).count
    num_epochs = sum(
        other_phase.end - other_phase.start
        for other_phase in plan.phases
        if other_phase.num_static_stages == prefix.depth
    )
    if num_epochs <= num_views:
        views_text = "1 view" if num_views == 1 else f"{num_views} views"
        return f"{views_text} of each image, {num_epochs} epoch{'s' if num_epochs > 1 else ''}: nothing would be saved"
    if prefix.multiply_adds < MIN_MULTIPLY_ADDS_PER_BYTE * prefix.bytes_per_image:
        return f"reading the output of {prefix.stage} would take as long as computing it"
    return ""


def describe_decisions(
    decision_by_phase: Mapping[str, Decision],
    prefixes: Sequence[Prefix],
    num_rows: int,
    augmentation: Augmentation,
    num_views: int | None,
) -> Iterator[str]:
    """A line for each depth, and for each reason of not caching; `rows` are images with their views."""
    phases_by_outcome: dict[tuple[int, str], list[str]] = {}
    for decision in decision_by_phase.values():
        phases_by_outcome.setdefault((decision.depth, decision.why), []).append(decision.phase)
    for (depth, reason), phases in phases_by_outcome.items():
        outcome_text = (
            f"not cached: {reason}"
            if reason
            else _describe_cached_prefix(prefixes[depth - 1], num_rows, augmentation, num_views)
        )
        yield f"features{_describe_phases(phases) if len(phases_by_outcome) > 1 else ''}: {outcome_text}"


def _describe_phases(phases: Sequence[str]) -> str:
    return f" in phase{'s' * (len(phases) > 1)} {', '.join(phases)}"


def _describe_cached_prefix(prefix: Prefix, num_rows: int, augmentation: Augmentation, num_views: int | None) -> str:
    stages_text = "1 stage runs" if prefix.depth == 1 else f"{prefix.depth} stages run"
    size_mib = num_rows * prefix.bytes_per_image / 2**20
    kind = augmentation.plan_cached_views(num_views).kind
    if kind == "plain":
        frequency_text = "image, not once per epoch"
    elif kind == "flipped":
        frequency_text = "image and mirror image, not once per epoch"
    else:
        frequency_text = f"image in {num_views} views; an approximation, as every epoch would draw anew"
    return f"up to {prefix.stage}, the {stages_text} once per {frequency_text} ({size_mib:,.1f} MiB)"
