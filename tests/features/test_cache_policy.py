"""Where features are cached, and the reason if they are not."""

from __future__ import annotations

from typing import Any

import pytest

from thaw.config.errors import UserError
from thaw.config.schema import FeatureCacheConfig, StrategyConfig
from thaw.data.augmentation import Augmentation
from thaw.features.cache_policy import CachingConditions, Prefix, decide_caching, describe_decisions
from thaw.strategy.plan import Plan, build_plan
from thaw.strategy.selection import Part

PARTS = [Part(name, 10, 10) for name in ("stem", "layer1", "layer2", "head")]
PREFIXES = [
    Prefix(depth, name, 1000, 10**6 * depth) for depth, name in enumerate(("stem", "layer1", "layer2"), start=1)
]
HEAD = {"train": ["head"], "learning_rate": {"all": 1.0}}
UPPER = {"train": ["layer2", "head"], "learning_rate": {"all": 1.0}}
FIRST = {"train": ["stem", "head"], "learning_rate": {"all": 1.0}}


def plan_phases(epochs: int = 6, **phases: dict[str, Any]) -> Plan:
    strategy = StrategyConfig.model_validate({"name": "test", "init": "pretrained", "phases": phases})
    return build_plan(strategy, PARTS, epochs, 0.1, 0.0)


def build_conditions(
    mode: str = "auto", views: int | None = None, augmentation: Augmentation | None = None, **conditions: Any
) -> CachingConditions:
    config = FeatureCacheConfig.model_validate({"mode": mode, "views": views, "gib": 1.0})
    return CachingConditions(config, augmentation or Augmentation(), **{"num_rows": 100, **conditions})


def decide(plan: Plan, prefixes: list[Prefix] = PREFIXES, **conditions: Any) -> dict[str, tuple[int, str]]:
    """Return the depth and the reason for each phase."""
    decisions = decide_caching(plan, prefixes, build_conditions(**conditions))
    return {phase: (decision.depth, decision.why) for phase, decision in decisions.items()}


def test_all_leading_frozen_stages_are_cached() -> None:
    assert decide(plan_phases(head=HEAD)) == {"head": (3, "")}
    assert decide(plan_phases(upper=UPPER)) == {"upper": (2, "")}
    assert decide(plan_phases(head={**HEAD, "epochs": 2}, upper=UPPER)) == {"head": (3, ""), "upper": (2, "")}


def test_the_cached_stages_end_before_batchnorm_that_follows_the_batches() -> None:
    assert decide(plan_phases(head={**HEAD, "batchnorm": {"layer2": "statistics"}}))["head"] == (2, "")
    depth, reason = decide(plan_phases(head={**HEAD, "batchnorm": {"stem": "statistics"}}))["head"]
    assert (depth, reason) == (0, "BatchNorm of stem, though frozen, follows the batches")


@pytest.mark.parametrize(
    ("plan", "conditions", "expected_reason"),
    [
        (plan_phases(head=HEAD), {"mode": "off"}, "feature_cache=off"),
        (plan_phases(head=HEAD), {"blocker": "the weights are sharded"}, "the weights are sharded"),
        (plan_phases(first=FIRST), {}, "nothing before the first trained stage is frozen"),
        (plan_phases(head=HEAD), {"augmentation": Augmentation(rotation=5.0)}, "feature_cache.views=8"),
        (plan_phases(head=HEAD), {"augmentation": Augmentation(mixup=0.2), "views": 8}, "mixup and CutMix"),
        (plan_phases(head=HEAD), {"num_rows": 2 * 10**6}, "would take 1.86 GiB, more than feature_cache.gib=1"),
        (plan_phases(1, head=HEAD), {}, "1 view of each image, 1 epoch: nothing would be saved"),
        (plan_phases(2, head=HEAD), {"augmentation": Augmentation(flip=0.5)}, "2 views of each image, 2 epochs"),
        (
            plan_phases(head=HEAD),
            {"augmentation": Augmentation(shift=True), "views": 6},
            "6 views of each image, 6 epoch",
        ),
        (plan_phases(head=HEAD), {"prefixes": [Prefix(3, "layer2", 1000, 10_000)] * 3}, "as long as computing it"),
    ],
)
def test_a_phase_that_is_not_cached_has_a_reason(plan: Plan, conditions: dict[str, Any], expected_reason: str) -> None:
    ((depth, reason),) = decide(plan, **conditions).values()
    assert depth == 0
    assert expected_reason in reason


def test_mirror_images_and_a_number_of_views_are_cached() -> None:
    assert decide(plan_phases(head=HEAD), augmentation=Augmentation(flip=0.5))["head"] == (3, "")
    assert decide(plan_phases(head=HEAD), augmentation=Augmentation(shift=True), views=5)["head"] == (3, "")


def test_stages_that_an_earlier_phase_trained_are_cached_unless_their_averages_are_validated() -> None:
    plan = plan_phases(first={**FIRST, "epochs": 2}, head=HEAD)
    assert decide(plan)["head"] == (3, "")
    depth, reason = decide(plan, has_weight_averaging=True)["head"]
    assert depth == 0
    assert "averaged weights" in reason
    assert decide(plan_phases(head=HEAD), has_weight_averaging=True)["head"] == (3, "")


def test_require_caches_what_auto_finds_not_worthwhile() -> None:
    assert decide(plan_phases(1, head=HEAD), mode="require") == {"head": (3, "")}


def test_require_raises_one_error_with_all_reasons() -> None:
    plan = plan_phases(head={**HEAD, "epochs": 2}, all={"train": ["all"], "learning_rate": {"all": 1.0}})
    with pytest.raises(UserError) as error_info:
        decide(plan, mode="require", augmentation=Augmentation(rotation=5.0))
    message = str(error_info.value)
    assert "phase head" in message
    assert "phase all" in message
    assert "feature_cache=auto" in message


def test_phases_with_equal_decisions_share_a_line() -> None:
    plan = plan_phases(head={**HEAD, "epochs": 2}, upper=UPPER)
    conditions = build_conditions(num_rows=2**20)
    assert list(describe_decisions(decide_caching(plan, PREFIXES, conditions), PREFIXES, conditions)) == [
        "features in phase head: up to layer2, the 3 stages run once per image, not once per epoch (1,000.0 MiB)",
        "features in phase upper: up to layer1, the 2 stages run once per image, not once per epoch (1,000.0 MiB)",
    ]
    conditions = build_conditions(mode="off")
    assert list(describe_decisions(decide_caching(plan, PREFIXES, conditions), PREFIXES, conditions)) == [
        "features: not cached: feature_cache=off"
    ]


@pytest.mark.parametrize(
    ("augmentation", "views", "text"),
    [
        (Augmentation(flip=0.5), None, "once per image and mirror image, not once per epoch"),
        (Augmentation(shift=True), 3, "once per image in 3 views; an approximation"),
    ],
)
def test_the_cached_views_are_described(augmentation: Augmentation, views: int | None, text: str) -> None:
    conditions = build_conditions(views=views, augmentation=augmentation)
    decisions = decide_caching(plan_phases(head=HEAD), PREFIXES, conditions)
    assert text in next(describe_decisions(decisions, PREFIXES, conditions))
