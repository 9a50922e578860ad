"""Where features are cached, and the reason where they are not."""

from __future__ import annotations

from typing import Any

import pytest

from thaw.config.errors import UserError
from thaw.config.schema import FeatureCacheConfig, StrategyConfig
from thaw.data.augmentation import Augmentation
from thaw.features.cache_policy import Prefix, decide_caching, describe_decisions
from thaw.strategy.plan import Plan, build_plan
from thaw.strategy.selection import Part

PARTS = [Part(name, 10, 10) for name in ("stem", "layer1", "layer2", "head")]
PREFIXES = [
    Prefix(depth, name, 1000, 10**6 * depth) for depth, name in enumerate(("stem", "layer1", "layer2"), start=1)
]
HEAD = {"train": ["head"], "learning_rate": {"all": 1.0}}
UPPER = {"train": ["layer2", "head"], "learning_rate": {"all": 1.0}}
FIRST = {"train": ["stem", "head"], "learning_rate": {"all": 1.0}}


def plan(epochs: int = 6, **phases: dict[str, Any]) -> Plan:
    strategy = StrategyConfig.model_validate({"name": "test", "init": "pretrained", "phases": phases})
    return build_plan(strategy, PARTS, epochs, 0.1, 0.0)


def decided(
    of: Plan, mode: str = "auto", views: int | None = None, gib: float = 1.0, rows: int = 100, **more: Any
) -> dict[str, tuple[int, str]]:
    cache = FeatureCacheConfig.model_validate({"mode": mode, "views": views, "gib": gib})
    augmentation = more.get("augmentation", Augmentation())
    prefixes = more.get("prefixes", PREFIXES)
    found = decide_caching(of, prefixes, cache, augmentation, rows, more.get("averages", False))
    return {name: (one.depth, one.why) for name, one in found.items()}


def test_the_whole_frozen_prefix_is_cached() -> None:
    assert decided(plan(head=HEAD)) == {"head": (3, "")}
    assert decided(plan(upper=UPPER)) == {"upper": (2, "")}
    assert decided(plan(head={**HEAD, "epochs": 2}, upper=UPPER)) == {"head": (3, ""), "upper": (2, "")}


def test_it_ends_where_batchnorm_follows_the_batches() -> None:
    assert decided(plan(head={**HEAD, "batchnorm": {"layer2": "statistics"}}))["head"] == (2, "")
    depth, why = decided(plan(head={**HEAD, "batchnorm": {"stem": "statistics"}}))["head"]
    assert (depth, why) == (0, "BatchNorm of stem, though frozen, follows the batches")


@pytest.mark.parametrize(
    ("of", "settings", "why"),
    [
        (plan(head=HEAD), {"mode": "off"}, "feature_cache=off"),
        (plan(first=FIRST), {}, "nothing before the first trained stage is frozen"),
        (plan(head=HEAD), {"augmentation": Augmentation(rotation=5.0)}, "feature_cache.views=8"),
        (plan(head=HEAD), {"augmentation": Augmentation(mixup=0.2), "views": 8}, "mixup and CutMix"),
        (plan(head=HEAD), {"rows": 2 * 10**6}, "would take 1.86 GiB, more than feature_cache.gib=1"),
        (plan(1, head=HEAD), {}, "1 view of each image, 1 epoch: nothing would be saved"),
        (plan(2, head=HEAD), {"augmentation": Augmentation(flip=0.5)}, "2 views of each image, 2 epochs"),
        (plan(6, head=HEAD), {"augmentation": Augmentation(shift=True), "views": 6}, "6 views of each image, 6 epochs"),
        (plan(head=HEAD), {"prefixes": [Prefix(3, "layer2", 1000, 10_000)] * 3}, "as long as computing it"),
    ],
)
def test_what_cannot_or_need_not_be_cached_has_its_reason(of: Plan, settings: dict[str, Any], why: str) -> None:
    ((depth, told_why),) = decided(of, **settings).values()
    assert depth == 0
    assert why in told_why


def test_mirror_images_and_counted_views_are_cached() -> None:
    assert decided(plan(head=HEAD), augmentation=Augmentation(flip=0.5))["head"] == (3, "")
    assert decided(plan(head=HEAD), augmentation=Augmentation(shift=True), views=5)["head"] == (3, "")


def test_stages_that_an_earlier_phase_trained_are_cached_unless_their_averages_are_validated() -> None:
    of = plan(first={**FIRST, "epochs": 2}, head=HEAD)
    assert decided(of)["head"] == (3, "")
    depth, why = decided(of, averages=True)["head"]
    assert depth == 0
    assert "averaged weights" in why
    assert decided(plan(head=HEAD), averages=True)["head"] == (3, "")


def test_require_caches_what_auto_would_not_find_worth_it() -> None:
    assert decided(plan(1, head=HEAD), mode="require") == {"head": (3, "")}


def test_require_refuses_with_all_reasons_at_once() -> None:
    of = plan(head={**HEAD, "epochs": 2}, all={"train": ["all"], "learning_rate": {"all": 1.0}})
    with pytest.raises(UserError) as caught:
        decided(of, mode="require", augmentation=Augmentation(rotation=5.0))
    said = str(caught.value)
    assert "phase head" in said
    assert "phase all" in said
    assert "feature_cache=auto" in said


def test_phases_alike_are_told_in_one_line() -> None:
    of = plan(head={**HEAD, "epochs": 2}, upper=UPPER)
    cache = FeatureCacheConfig(mode="auto", views=None, gib=1.0)
    found = decide_caching(of, PREFIXES, cache, Augmentation(), 2**20, False)
    assert list(describe_decisions(found, PREFIXES, 2**20, Augmentation(), None)) == [
        "features in phase head: up to layer2, the 3 stages run once per image, not once per epoch (1,000.0 MiB)",
        "features in phase upper: up to layer1, the 2 stages run once per image, not once per epoch (1,000.0 MiB)",
    ]
    off = decide_caching(of, PREFIXES, FeatureCacheConfig(mode="off", views=None, gib=1.0), Augmentation(), 10, False)
    assert list(describe_decisions(off, PREFIXES, 10, Augmentation(), None)) == [
        "features: not cached: feature_cache=off"
    ]
