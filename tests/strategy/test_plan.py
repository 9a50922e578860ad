from pathlib import Path
from typing import Any

import pytest
import yaml

from thaw.config.errors import Problem, UserError
from thaw.config.schema import StrategyConfig
from thaw.strategy.plan import PhasePlan, Plan, build_plan
from thaw.strategy.selection import Part

CONF = Path(__file__).resolve().parents[2] / "conf" / "strategy"
NAMES = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
PARTS = [Part(name, num_norm_parameters=8 * (name != "head"), num_bias_parameters=4) for name in NAMES]
RATE, DECAY = 0.01, 1e-4


def shipped(name: str) -> StrategyConfig:
    return StrategyConfig.model_validate(yaml.safe_load((CONF / f"{name}.yaml").read_text()))


def strategy_of(**phases: dict[str, Any]) -> StrategyConfig:
    """Phases that train everything, but for what is said."""
    usual = {"train": ["all"], "learning_rate": {"all": 1.0}}
    return StrategyConfig.model_validate(
        {"name": "mine", "init": "pretrained", "phases": {name: {**usual, **phase} for name, phase in phases.items()}}
    )


def plan_of(strategy: StrategyConfig, epochs: int = 10, warmup: float = 0.0) -> Plan:
    return build_plan(strategy, PARTS, epochs, RATE, DECAY, warmup)


def faults_of(strategy: StrategyConfig, epochs: int = 10, warmup: float = 0.0) -> list[Problem]:
    with pytest.raises(UserError) as told:
        plan_of(strategy, epochs, warmup)
    return list(told.value.problems)


def only_phase(name: str) -> PhasePlan:
    (phase,) = plan_of(shipped(name)).phases
    return phase


def spans(plan: Plan) -> list[tuple[int, int]]:
    return [(phase.start, phase.end) for phase in plan.phases]


def test_scratch_trains_every_part_at_the_same_rate() -> None:
    assert [part.learning_rate for part in only_phase("scratch").parts] == [RATE] * len(PARTS)
    assert shipped("scratch").init == "random"


def test_finetune_trains_every_part_and_the_head_ten_times_as_fast() -> None:
    assert [part.learning_rate for part in only_phase("finetune").parts] == [RATE] * 5 + [pytest.approx(10 * RATE)]
    assert shipped("finetune").init == "pretrained"


def test_fixed_trains_the_head_alone() -> None:
    phase = only_phase("fixed")
    assert [part.name for part in phase.parts if part.trainable] == ["head"]
    assert [part.learning_rate for part in phase.parts[:-1]] == [0.0] * 5
    assert shipped("fixed").init == "pretrained"


@pytest.mark.parametrize(("name", "frozen"), [("scratch", 0), ("finetune", 0), ("fixed", 5)])
def test_the_frontier_counts_the_leading_frozen_stages(name: str, frozen: int) -> None:
    assert only_phase(name).num_frozen_stages == frozen


def test_stages_frozen_behind_a_trained_one_are_not_before_the_frontier() -> None:
    plan = plan_of(strategy_of(one={"train": ["layer1", "head"]}))
    assert plan.phases[0].num_frozen_stages == 1


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
    assert phase.num_frozen_stages == 1


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ({"a": {}}, [(0, 10)]),
        ({"a": {"epochs": 3}, "b": {}}, [(0, 3), (3, 10)]),
        ({"a": {}, "b": {"epochs": 3}}, [(0, 7), (7, 10)]),
        ({"a": {"fraction": 0.3}, "b": {}}, [(0, 3), (3, 10)]),
        ({"a": {"fraction": 0.01}, "b": {}}, [(0, 1), (1, 10)]),  # a phase lasts an epoch at least
        ({"a": {"epochs": 2}, "b": {}, "c": {"fraction": 0.2}}, [(0, 2), (2, 8), (8, 10)]),
        ({"a": {"fraction": 0.33}, "b": {"fraction": 0.33}, "c": {"fraction": 0.34}}, [(0, 3), (3, 6), (6, 10)]),
        ({"a": {"epochs": 4}}, [(0, 10)]),  # nobody else takes what is left
    ],
)
def test_phases_follow_each_other_and_fill_all_epochs(phases: Any, expected: list[tuple[int, int]]) -> None:
    assert spans(plan_of(strategy_of(**phases))) == expected


def test_phases_that_exceed_the_epochs_are_refused_with_the_epochs_they_need() -> None:
    strategy = strategy_of(a={"epochs": 6}, b={"epochs": 6}, c={})
    (fault,) = faults_of(strategy)
    assert "phase c has no epoch left of 10" in fault.subject
    assert "trainer.epochs=13" in fault.fix
    assert spans(plan_of(strategy, epochs=13))[-1] == (12, 13)


def test_the_epoch_alone_says_the_phase() -> None:
    plan = plan_of(strategy_of(a={"epochs": 3}, b={"epochs": 5}, c={}))
    forwards = [plan.get_phase(epoch).name for epoch in range(12)]
    backwards = [plan.get_phase(epoch).name for epoch in reversed(range(12))]
    assert "".join(forwards) == "aaabbbbbcccc"  # the last phase goes on where training does
    assert backwards == forwards[::-1]


def test_a_phase_that_trains_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="phase one: all learning rates are 0"):
        plan_of(strategy_of(one={"train": ["head"], "learning_rate": {"all": 1.0, "head": 0.0}}))


def test_a_trained_part_without_a_rate_is_refused_and_named() -> None:
    with pytest.raises(UserError, match="phase one trains layer4 and gives it no learning rate") as told:
        plan_of(strategy_of(one={"train": ["last:1", "head"], "learning_rate": {"head": 1.0}}))
    assert told.value.problems[0].fix == "strategy.phases.one.learning_rate.all=1.0"


@pytest.mark.parametrize("phase", [{"train": ["layer9"]}, {"learning_rate": {"all": 1.0, "layer9": 2.0}}])
def test_a_stage_that_the_backbone_does_not_have_is_refused(phase: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="'layer9' selects no stage"):
        plan_of(strategy_of(one=phase))


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_strategy_becomes_a_plan_that_yaml_can_hold(file: Path) -> None:
    plan = plan_of(shipped(file.stem), epochs=30)
    assert yaml.safe_load(yaml.safe_dump(plan.to_dicts())) == plan.to_dicts()
    assert plan.phases[-1].end == 30


def trained_by_epoch(plan: Plan, epochs: int) -> list[int]:
    return [sum(part.trainable for part in plan.get_phase(epoch).parts) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (6, [1, 2, 3, 4, 5, 6]),  # a stage an epoch
        (11, [1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]),
        (8, [1, 2, 3, 4, 4, 5, 6, 6]),  # evenly, as far as it goes
        (4, [1, 3, 5, 6]),  # fewer epochs than stages: several join together
        (2, [1, 6]),
    ],
)
def test_stages_join_one_after_another_from_the_output(epochs: int, expected: list[int]) -> None:
    plan = plan_of(
        strategy_of(head={"train": ["head"], "epochs": 1}, up={"train": ["head"], "unfreeze": ["backbone"]}), epochs
    )
    assert trained_by_epoch(plan, epochs) == expected
    frontiers = [plan.get_phase(epoch).num_frozen_stages for epoch in range(epochs)]
    assert frontiers == [6 - count for count in expected]
    assert plan.phases[-1].name == "up-stem"


def test_only_the_stages_meant_join() -> None:
    plan = plan_of(strategy_of(up={"train": ["head"], "unfreeze": ["last:2"]}), epochs=2)
    assert [phase.name for phase in plan.phases] == ["up-layer4", "up-layer3"]
    assert plan.phases[-1].num_frozen_stages == 3


def test_layer_decay_falls_with_the_distance_from_the_head() -> None:
    (phase,) = plan_of(strategy_of(one={"layer_decay": 0.5, "learning_rate": {"all": 1.0, "head": 10.0}})).phases
    expected = [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5, 10.0]
    assert [part.learning_rate / RATE for part in phase.parts] == pytest.approx(expected)


def test_weight_decay_is_multiplied_by_part() -> None:
    (phase,) = plan_of(strategy_of(one={"weight_decay": {"backbone": 0.1, "layer4": 0.0}})).phases
    assert [part.weight_decay / DECAY for part in phase.parts] == pytest.approx([0.1] * 4 + [0.0, 1.0])


def test_a_phase_can_train_norms_alone_and_freezes_stages_without_any() -> None:
    strategy = strategy_of(one={"parameters": {"all": "norms"}})
    (phase,) = plan_of(strategy).phases
    assert [part.parameters for part in phase.parts[:-1]] == ["norms"] * 5
    assert not phase.parts[-1].trainable


def test_batchnorm_follows_its_stage_unless_the_phase_says_otherwise() -> None:
    (phase,) = plan_of(
        strategy_of(one={"train": ["last:1", "head"], "batchnorm": {"first:2": "statistics", "layer4": "eval"}})
    ).phases
    assert [part.batchnorm for part in phase.parts] == ["statistics", "statistics", "eval", "eval", "eval", "train"]
    assert [part.trainable for part in phase.parts] == [False, False, False, False, True, True]


def test_batchnorm_that_trains_in_a_frozen_stage_trains_nothing_else_there() -> None:
    (phase,) = plan_of(strategy_of(one={"train": ["head"], "batchnorm": {"layer4": "train"}})).phases
    (layer4,) = [part for part in phase.parts if part.name == "layer4"]
    assert (layer4.trainable, layer4.parameters, layer4.batchnorm) == (True, "norms", "train")
    assert phase.num_frozen_stages == 4


def test_schedules_run_on_unless_a_phase_restarts_them() -> None:
    phases = {"a": {"epochs": 2}, "b": {"epochs": 3, "restart": ["scheduler"]}, "c": {"epochs": 2}, "d": {}}
    plan = plan_of(strategy_of(**phases))
    assert [phase.schedule for phase in plan.phases] == [(0, 2), (2, 10), (2, 10), (2, 10)]
    assert not any(phase.restarts_optimizer for phase in plan.phases)


def test_an_optimizer_restarts_once_where_its_phase_begins() -> None:
    phases = {
        "a": {"train": ["head"], "epochs": 2},
        "b": {"train": ["head"], "unfreeze": ["backbone"], "restart": ["optimizer", "scheduler"]},
    }
    plan = plan_of(strategy_of(**phases))
    assert [phase.start for phase in plan.phases if phase.restarts_optimizer] == [2]
    assert {phase.schedule for phase in plan.phases} == {(0, 2), (2, 10)}


def test_a_restart_that_warms_up_for_all_its_epochs_is_refused() -> None:
    strategy = strategy_of(a={"epochs": 1}, b={"restart": ["scheduler"]})
    (fault,) = faults_of(strategy, warmup=1.0)
    assert "takes 1 epochs to its last change, and has epochs 1 to 1" in fault.subject
    assert plan_of(strategy, warmup=0.5)


def test_norms_of_a_backbone_without_any_are_refused_with_the_stages_that_have_some() -> None:
    bare = [Part(name, num_norm_parameters=8 * (name == "layer2"), num_bias_parameters=4) for name in NAMES]
    strategy = strategy_of(one={"parameters": {"last:2": "norms"}})
    with pytest.raises(UserError, match="trains the norms of 'last:2', which has none") as told:
        build_plan(strategy, bare, 10, RATE, DECAY)
    assert "layer2 with norms" in told.value.problems[0].valid


def test_unfreezing_what_trains_already_is_refused() -> None:
    (fault,) = faults_of(strategy_of(one={"train": ["all"], "unfreeze": ["layer4"]}))
    assert "unfreezes layer4, which it trains from its start" in fault.subject
    assert "stem, layer1" in fault.valid
    assert fault.fix == "strategy.phases.one.train=[head]"


def test_all_words_that_mean_nothing_are_told_together_with_what_to_type() -> None:
    strategy = strategy_of(
        a={"train": ["layr4", "head"], "batchnorm": {"backbon": "eval"}, "epochs": 3},
        b={"learning_rate": {"all": 1.0, "from:layer9": 2.0}},
        c={"train": ["head"], "learning_rate": {"head": 0.0}},
    )
    faults = faults_of(strategy)
    assert [fault.got for fault in faults] == ["layr4", "backbon", "from:layer9", ""]
    assert all("stem, layer1, layer2, layer3, layer4, head" in fault.valid for fault in faults)
    assert faults[0].fix == "strategy.phases.a.train=[layer4,head]"
    assert faults[3].fix == "strategy.phases.c.learning_rate.head=1.0"
