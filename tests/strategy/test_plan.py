from pathlib import Path
from typing import Any

import pytest
import yaml

from thaw.config.faults import UserFault
from thaw.config.schema import Strategy
from thaw.strategy.plan import PhasePlan, Plan, planned

CONF = Path(__file__).resolve().parents[2] / "conf" / "strategy"
PARTS = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
RATE, DECAY = 0.01, 1e-4


def shipped(name: str) -> Strategy:
    return Strategy.model_validate(yaml.safe_load((CONF / f"{name}.yaml").read_text()))


def strategy_of(**phases: dict[str, Any]) -> Strategy:
    """Phases that train everything, but for what is said."""
    usual = {"train": ["all"], "learning_rate": {"all": 1.0}}
    return Strategy.model_validate(
        {"name": "mine", "start": "source", "phases": {name: {**usual, **phase} for name, phase in phases.items()}}
    )


def plan_of(strategy: Strategy, epochs: int = 10) -> Plan:
    return planned(strategy, PARTS, epochs, RATE, DECAY)


def only_phase(name: str) -> PhasePlan:
    (phase,) = plan_of(shipped(name)).phases
    return phase


def spans(plan: Plan) -> list[tuple[int, int]]:
    return [(phase.start, phase.end) for phase in plan.phases]


def test_scratch_trains_every_part_at_the_same_rate() -> None:
    assert [part.learning_rate for part in only_phase("scratch").parts] == [RATE] * len(PARTS)
    assert shipped("scratch").start == "random"


def test_finetune_trains_every_part_and_the_head_ten_times_as_fast() -> None:
    assert [part.learning_rate for part in only_phase("finetune").parts] == [RATE] * 5 + [pytest.approx(10 * RATE)]
    assert shipped("finetune").start == "source"


def test_fixed_trains_the_head_alone() -> None:
    phase = only_phase("fixed")
    assert [part.name for part in phase.parts if part.trainable] == ["head"]
    assert [part.learning_rate for part in phase.parts[:-1]] == [0.0] * 5
    assert shipped("fixed").start == "source"


@pytest.mark.parametrize(("name", "frozen"), [("scratch", 0), ("finetune", 0), ("fixed", 5)])
def test_the_frontier_counts_the_leading_frozen_stages(name: str, frozen: int) -> None:
    assert only_phase(name).frontier == frozen


def test_stages_frozen_behind_a_trained_one_are_not_before_the_frontier() -> None:
    plan = plan_of(strategy_of(one={"train": ["layer1", "head"]}))
    assert plan.phases[0].frontier == 1


@pytest.mark.parametrize("name", ["scratch", "finetune", "fixed"])
def test_batchnorm_and_weight_decay_rest_where_weights_do(name: str) -> None:
    for part in only_phase(name).parts:
        assert part.batchnorm == ("train" if part.trainable else "eval")
        assert part.weight_decay == (DECAY if part.trainable else 0.0)


def test_of_several_rates_for_a_part_the_last_one_counts() -> None:
    rates = {"all": 1.0, "layer*": 0.1, "layer4": 0.5}
    (phase,) = plan_of(strategy_of(one={"learning_rate": rates})).phases
    assert [part.learning_rate / RATE for part in phase.parts] == pytest.approx([1.0, 0.1, 0.1, 0.1, 0.5, 1.0])


def test_a_rate_of_zero_freezes_a_part_that_is_to_be_trained() -> None:
    (phase,) = plan_of(strategy_of(one={"learning_rate": {"all": 1.0, "stem": 0.0}})).phases
    assert not phase.parts[0].trainable
    assert phase.frontier == 1


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ({"a": {}}, [(0, 10)]),
        ({"a": {"epochs": 3}, "b": {}}, [(0, 3), (3, 10)]),
        ({"a": {}, "b": {"epochs": 3}}, [(0, 7), (7, 10)]),
        ({"a": {"share": 0.3}, "b": {}}, [(0, 3), (3, 10)]),
        ({"a": {"share": 0.01}, "b": {}}, [(0, 1), (1, 10)]),  # a phase lasts an epoch at least
        ({"a": {"epochs": 2}, "b": {}, "c": {"share": 0.2}}, [(0, 2), (2, 8), (8, 10)]),
        ({"a": {"share": 0.33}, "b": {"share": 0.33}, "c": {"share": 0.34}}, [(0, 3), (3, 6), (6, 10)]),
        ({"a": {"epochs": 4}}, [(0, 10)]),  # nobody else takes what is left
    ],
)
def test_phases_follow_each_other_and_fill_all_epochs(phases: Any, expected: list[tuple[int, int]]) -> None:
    assert spans(plan_of(strategy_of(**phases))) == expected


def test_phases_that_exceed_the_epochs_are_refused_with_the_epochs_they_need() -> None:
    strategy = strategy_of(a={"epochs": 6}, b={"epochs": 6}, c={})
    with pytest.raises(UserFault, match=r"trainer\.epochs=13") as told:
        plan_of(strategy)
    assert "phase c has no epoch left of 10" in told.value.faults[0].subject
    assert spans(plan_of(strategy, epochs=13))[-1] == (12, 13)


def test_the_epoch_alone_says_the_phase() -> None:
    plan = plan_of(strategy_of(a={"epochs": 3}, b={"epochs": 5}, c={}))
    forwards = [plan.at(epoch).name for epoch in range(12)]
    backwards = [plan.at(epoch).name for epoch in reversed(range(12))]
    assert "".join(forwards) == "aaabbbbbcccc"  # the last phase goes on where training does
    assert backwards == forwards[::-1]


def test_what_is_ever_trained_is_gathered_over_the_phases() -> None:
    plan = plan_of(strategy_of(a={"train": ["head"], "epochs": 3}, b={"train": ["last:1", "head"]}))
    assert plan.ever_trained() == {"layer4", "head"}


def test_a_phase_that_trains_nothing_is_refused() -> None:
    with pytest.raises(UserFault, match="phase one: all learning rates are 0"):
        plan_of(strategy_of(one={"train": ["head"], "learning_rate": {"all": 1.0, "head": 0.0}}))


def test_a_trained_part_without_a_rate_is_refused_and_named() -> None:
    with pytest.raises(UserFault, match="phase one trains layer4 and gives it no learning rate") as told:
        plan_of(strategy_of(one={"train": ["last:1", "head"], "learning_rate": {"head": 1.0}}))
    assert told.value.faults[0].fix == "strategy.phases.one.learning_rate.all=1.0"


@pytest.mark.parametrize("phase", [{"train": ["layer9"]}, {"learning_rate": {"all": 1.0, "layer9": 2.0}}])
def test_a_stage_that_the_backbone_does_not_have_is_refused(phase: dict[str, Any]) -> None:
    with pytest.raises(UserFault, match="'layer9' selects no stage"):
        plan_of(strategy_of(one=phase))


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_strategy_becomes_a_plan_that_yaml_can_hold(file: Path) -> None:
    plan = plan_of(shipped(file.stem), epochs=30)
    assert yaml.safe_load(yaml.safe_dump(plan.plain())) == plan.plain()
    assert plan.phases[-1].end == 30
