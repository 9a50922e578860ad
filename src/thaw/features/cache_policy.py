"""Decide for each phase which leading stages run once per image instead of once per epoch, their output cached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from thaw.config.errors import Problem, UserError
from thaw.config.schema import FeatureCacheConfig
from thaw.data.augmentation import Augmentation, CachedViews
from thaw.strategy.plan import PhasePlan, Plan

# With fewer multiply-adds per byte of output, computing the output takes no longer than reading it. The stem and first
# block of EfficientNet-Lite0, with maps of 0.8 to 1.6 MB per image, are below 64, all of its later stages above.
MIN_MULTIPLY_ADDS_PER_BYTE = 64


@dataclass(frozen=True)
class Prefix:
    """The leading `depth` stages, of which `stage` is the last: bytes of their output and multiply-adds per image."""

    depth: int
    stage: str
    bytes_per_image: int
    multiply_adds: int


@dataclass(frozen=True)
class Decision:
    """For a phase, the `depth` at which features are cached, or 0 and `why` not."""

    phase: str
    depth: int
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of this phase in `run.json`."""
        return asdict(self)


@dataclass(frozen=True)
class CachingConditions:
    """What decides whether features can be cached, apart from the plan and the network.

    Attributes:
        config: the recipe's settings.
        augmentation: how training images change from epoch to epoch.
        num_rows: the number of images with their views.
        has_weight_averaging: whether averaged weights are validated.
        blocker: a reason of the run for caching nothing; empty if there is none.
    """

    config: FeatureCacheConfig
    augmentation: Augmentation
    num_rows: int
    has_weight_averaging: bool = False
    blocker: str = ""

    @cached_property
    def cached_views(self) -> CachedViews:
        """The views of each train image that can be cached."""
        return self.augmentation.plan_cached_views(self.config.views)


def decide_caching(plan: Plan, prefixes: Sequence[Prefix], conditions: CachingConditions) -> dict[str, Decision]:
    """Return the decision for each phase, by its name. `prefixes` has one for each depth from 1.

    Raises:
        UserError: with feature_cache=require, naming the phases that cannot be cached and why.
    """
    decision_by_phase = {phase.name: _decide_phase(plan, phase, prefixes, conditions) for phase in plan.phases}
    uncached_decisions = [decision for decision in decision_by_phase.values() if not decision.depth]
    if conditions.config.mode == "require" and uncached_decisions:
        problems = [
            Problem(f"feature_cache=require, phase {decision.phase}", decision.why, fix="feature_cache=auto")
            for decision in uncached_decisions
        ]
        raise UserError("features cannot be cached.", problems)
    return decision_by_phase


def _decide_phase(plan: Plan, phase: PhasePlan, prefixes: Sequence[Prefix], conditions: CachingConditions) -> Decision:
    reason = _find_blocker(plan, phase, conditions)
    if not reason:
        prefix = prefixes[phase.num_static_stages - 1]
        reason = _find_size_problem(prefix, conditions)
        if not reason and conditions.config.mode == "auto":
            reason = _not_worthwhile(plan, prefix, conditions)
    return Decision(phase.name, 0 if reason else phase.num_static_stages, reason)


def _find_blocker(plan: Plan, phase: PhasePlan, conditions: CachingConditions) -> str:
    """Return why features of `phase` cannot be cached; empty if they can."""
    if conditions.blocker and phase.num_frozen_stages:
        return conditions.blocker
    if conditions.config.mode == "off":
        return "feature_cache=off"
    if not phase.num_frozen_stages:
        return "nothing before the first trained stage is frozen"
    if not phase.num_static_stages:
        return f"BatchNorm of {phase.parts[0].name}, though frozen, follows the batches"
    if conditions.cached_views.reason:
        return conditions.cached_views.reason
    if conditions.has_weight_averaging and not plan.is_pretrained_until(phase.num_static_stages, phase):
        return "validation sees averaged weights of its frozen stages, training others"
    return ""


def _find_size_problem(prefix: Prefix, conditions: CachingConditions) -> str:
    size_gib, max_gib = conditions.num_rows * prefix.bytes_per_image / 2**30, conditions.config.gib
    if size_gib <= max_gib:
        return ""
    return f"the output of {prefix.stage} would take {size_gib:.3g} GiB, more than feature_cache.gib={max_gib:g}"


def _not_worthwhile(plan: Plan, prefix: Prefix, conditions: CachingConditions) -> str:
    """Return why caching would save nothing; empty if it would."""
    num_views = conditions.cached_views.count
    num_epochs = sum(phase.end - phase.start for phase in plan.phases if phase.num_static_stages == prefix.depth)
    if num_epochs <= num_views:
        views_text = "1 view" if num_views == 1 else f"{num_views} views"
        return f"{views_text} of each image, {num_epochs} epoch{'s' if num_epochs > 1 else ''}: nothing would be saved"
    if prefix.multiply_adds < MIN_MULTIPLY_ADDS_PER_BYTE * prefix.bytes_per_image:
        return f"reading the output of {prefix.stage} would take as long as computing it"
    return ""


def describe_decisions(
    decision_by_phase: Mapping[str, Decision], prefixes: Sequence[Prefix], conditions: CachingConditions
) -> Iterator[str]:
    """Yield a line for each depth and for each reason for not caching."""
    phases_by_outcome: dict[tuple[int, str], list[str]] = {}
    for decision in decision_by_phase.values():
        phases_by_outcome.setdefault((decision.depth, decision.why), []).append(decision.phase)
    for (depth, reason), phases in phases_by_outcome.items():
        text = f"not cached: {reason}" if reason else _describe_cached_prefix(prefixes[depth - 1], conditions)
        yield f"features{_describe_phases(phases) if len(phases_by_outcome) > 1 else ''}: {text}"


def _describe_phases(phases: Sequence[str]) -> str:
    return f" in phase{'s' * (len(phases) > 1)} {', '.join(phases)}"


def _describe_cached_prefix(prefix: Prefix, conditions: CachingConditions) -> str:
    views = conditions.cached_views
    frequency_texts = {
        "plain": "image, not once per epoch",
        "flipped": "image and mirror image, not once per epoch",
        "sampled": f"image in {views.count} views; an approximation, as every epoch would draw anew",
    }
    stages_text = "1 stage runs" if prefix.depth == 1 else f"{prefix.depth} stages run"
    size_mib = conditions.num_rows * prefix.bytes_per_image / 2**20
    return f"up to {prefix.stage}, the {stages_text} once per {frequency_texts[views.kind]} ({size_mib:,.1f} MiB)"
