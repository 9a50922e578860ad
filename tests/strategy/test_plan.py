"""Plans of the shipped strategies and of every setting of a phase."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from thaw.config.compose import compose_recipe
from thaw.config.errors import Problem, UserError
from thaw.config.schema import StrategyConfig
from thaw.strategy.plan import PhasePlan, Plan, build_plan
from thaw.strategy.selection import Part

CONF = Path(__file__).resolve().parents[2] / "conf" / "strategy"
NAMES = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
PARTS = [Part(name, num_norm_parameters=8 * (name != "head"), num_bias_parameters=4) for name in NAMES]
RATE, DECAY = 0.01, 1e-4


def load_shipped_strategy(name: str) -> StrategyConfig:
    return StrategyConfig.model_validate(yaml.safe_load((CONF / f"{name}.yaml").read_text()))


def make_strategy(**phases: dict[str, Any]) -> StrategyConfig:
    """Make phases that train everything, with the given settings changed."""
    defaults = {"train": ["all"], "learning_rate": {"all": 1.0}}
    return StrategyConfig.model_validate(
        {
            "name": "mine",
            "init": "pretrained",
            "phases": {name: {**defaults, **phase} for name, phase in phases.items()},
        }
    )


def make_plan(strategy: StrategyConfig, epochs: int = 10, warmup: float = 0.0) -> Plan:
    return build_plan(strategy, PARTS, epochs, RATE, DECAY, warmup)


def find_problems(strategy: StrategyConfig, epochs: int = 10, warmup: float = 0.0) -> list[Problem]:
    with pytest.raises(UserError) as error_info:
        make_plan(strategy, epochs, warmup)
    return list(error_info.value.problems)


def plan_only_phase(name: str) -> PhasePlan:
    (phase,) = make_plan(load_shipped_strategy(name)).phases
    return phase


def get_spans(plan: Plan) -> list[tuple[int, int]]:
    return [(phase.start, phase.end) for phase in plan.phases]


def test_scratch_trains_every_part_at_the_same_rate() -> None:
    assert [part.learning_rate for part in plan_only_phase("scratch").parts] == [RATE] * len(PARTS)
    assert load_shipped_strategy("scratch").init == "random"


def test_finetune_trains_every_part_and_the_head_at_ten_times_the_rate() -> None:
    assert [part.learning_rate for part in plan_only_phase("finetune").parts] == [RATE] * 5 + [pytest.approx(10 * RATE)]
    assert load_shipped_strategy("finetune").init == "pretrained"


def test_fixed_trains_only_the_head() -> None:
    phase = plan_only_phase("fixed")
    assert [part.name for part in phase.parts if part.trainable] == ["head"]
    assert [part.learning_rate for part in phase.parts[:-1]] == [0.0] * 5
    assert load_shipped_strategy("fixed").init == "pretrained"


@pytest.mark.parametrize(("name", "frozen"), [("scratch", 0), ("finetune", 0), ("fixed", 5)])
def test_leading_frozen_stages_are_counted(name: str, frozen: int) -> None:
    assert plan_only_phase(name).num_frozen_stages == frozen


def test_frozen_stages_after_a_trained_one_do_not_count() -> None:
    plan = make_plan(make_strategy(only={"train": ["layer1", "head"]}))
    assert plan.phases[0].num_frozen_stages == 1


@pytest.mark.parametrize("name", ["scratch", "finetune", "fixed"])
def test_frozen_parts_have_no_weight_decay_and_batchnorm_in_evaluation_mode(name: str) -> None:
    for part in plan_only_phase(name).parts:
        assert part.batchnorm == ("train" if part.trainable else "eval")
        assert part.weight_decay == (DECAY if part.trainable else 0.0)


def test_the_last_learning_rate_that_selects_a_part_applies() -> None:
    rates = {"all": 1.0, "layer*": 0.1, "layer4": 0.5}
    (phase,) = make_plan(make_strategy(only={"learning_rate": rates})).phases
    assert [part.learning_rate / RATE for part in phase.parts] == pytest.approx([1.0, 0.1, 0.1, 0.1, 0.5, 1.0])


def test_a_learning_rate_of_zero_freezes_a_part() -> None:
    (phase,) = make_plan(make_strategy(only={"learning_rate": {"all": 1.0, "stem": 0.0}})).phases
    assert not phase.parts[0].trainable
    assert phase.num_frozen_stages == 1


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ({"a": {}}, [(0, 10)]),
        ({"a": {"epochs": 3}, "b": {}}, [(0, 3), (3, 10)]),
        ({"a": {}, "b": {"epochs": 3}}, [(0, 7), (7, 10)]),
        ({"a": {"fraction": 0.3}, "b": {}}, [(0, 3), (3, 10)]),
        ({"a": {"fraction": 0.01}, "b": {}}, [(0, 1), (1, 10)]),  # a phase has at least one epoch
        ({"a": {"epochs": 2}, "b": {}, "c": {"fraction": 0.2}}, [(0, 2), (2, 8), (8, 10)]),
        ({"a": {"fraction": 0.33}, "b": {"fraction": 0.33}, "c": {"fraction": 0.34}}, [(0, 3), (3, 6), (6, 10)]),
        ({"a": {"epochs": 4}}, [(0, 10)]),  # no other phase takes the remaining epochs
    ],
)
def test_phases_follow_each_other_and_fill_all_epochs(phases: Any, expected: list[tuple[int, int]]) -> None:
    assert get_spans(make_plan(make_strategy(**phases))) == expected


def test_phases_that_exceed_the_epochs_are_rejected_with_the_required_epochs() -> None:
    strategy = make_strategy(a={"epochs": 6}, b={"epochs": 6}, c={})
    (problem,) = find_problems(strategy)
    assert "phase c has no epoch left of 10" in problem.subject
    assert "trainer.epochs=13" in problem.fix
    assert get_spans(make_plan(strategy, epochs=13))[-1] == (12, 13)


def test_the_phase_depends_only_on_the_epoch() -> None:
    plan = make_plan(make_strategy(a={"epochs": 3}, b={"epochs": 5}, c={}))
    forwards = [plan.get_phase(epoch).name for epoch in range(12)]
    backwards = [plan.get_phase(epoch).name for epoch in reversed(range(12))]
    assert "".join(forwards) == "aaabbbbbcccc"  # the last phase continues with training
    assert backwards == forwards[::-1]


def test_a_phase_that_trains_nothing_is_rejected() -> None:
    with pytest.raises(UserError, match="phase only: all learning rates are 0"):
        make_plan(make_strategy(only={"train": ["head"], "learning_rate": {"all": 1.0, "head": 0.0}}))


def test_a_trained_part_without_a_learning_rate_is_named() -> None:
    with pytest.raises(UserError, match="phase only trains layer4 without a learning rate") as error_info:
        make_plan(make_strategy(only={"train": ["last:1", "head"], "learning_rate": {"head": 1.0}}))
    assert error_info.value.problems[0].fix == "strategy.phases.only.learning_rate.all=1.0"


@pytest.mark.parametrize("phase", [{"train": ["layer9"]}, {"learning_rate": {"all": 1.0, "layer9": 2.0}}])
def test_an_unknown_stage_is_rejected(phase: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="'layer9' selects no stage"):
        make_plan(make_strategy(only=phase))


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_plan_of_every_shipped_strategy_can_be_written_as_yaml(file: Path) -> None:
    plan = make_plan(load_shipped_strategy(file.stem), epochs=30)
    assert yaml.safe_load(yaml.safe_dump(plan.to_dicts())) == plan.to_dicts()
    assert plan.phases[-1].end == 30


def count_trained_by_epoch(plan: Plan, epochs: int) -> list[int]:
    return [sum(part.trainable for part in plan.get_phase(epoch).parts) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (6, [1, 2, 3, 4, 5, 6]),  # one stage per epoch
        (11, [1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]),
        (8, [1, 2, 3, 4, 4, 5, 6, 6]),  # as evenly as possible
        (4, [1, 3, 5, 6]),  # fewer epochs than stages: several per epoch
        (2, [1, 6]),
    ],
)
def test_stages_are_unfrozen_one_after_another_from_the_output(epochs: int, expected: list[int]) -> None:
    plan = make_plan(
        make_strategy(head={"train": ["head"], "epochs": 1}, up={"train": ["head"], "unfreeze": ["backbone"]}), epochs
    )
    assert count_trained_by_epoch(plan, epochs) == expected
    num_frozen = [plan.get_phase(epoch).num_frozen_stages for epoch in range(epochs)]
    assert num_frozen == [6 - count for count in expected]
    assert plan.phases[-1].name == "up-stem"


def test_only_the_selected_stages_are_unfrozen() -> None:
    plan = make_plan(make_strategy(up={"train": ["head"], "unfreeze": ["last:2"]}), epochs=2)
    assert [phase.name for phase in plan.phases] == ["up-layer4", "up-layer3"]
    assert plan.phases[-1].num_frozen_stages == 3


def test_layer_decay_lowers_the_rate_with_the_distance_from_the_head() -> None:
    (phase,) = make_plan(make_strategy(only={"layer_decay": 0.5, "learning_rate": {"all": 1.0, "head": 10.0}})).phases
    expected = [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5, 10.0]
    assert [part.learning_rate / RATE for part in phase.parts] == pytest.approx(expected)


def test_weight_decay_has_a_multiplier_per_part() -> None:
    (phase,) = make_plan(make_strategy(only={"weight_decay": {"backbone": 0.1, "layer4": 0.0}})).phases
    assert [part.weight_decay / DECAY for part in phase.parts] == pytest.approx([0.1] * 4 + [0.0, 1.0])


def test_a_phase_that_trains_only_norms_freezes_parts_without_norms() -> None:
    strategy = make_strategy(only={"parameters": {"all": "norms"}})
    (phase,) = make_plan(strategy).phases
    assert [part.parameters for part in phase.parts[:-1]] == ["norms"] * 5
    assert not phase.parts[-1].trainable


def test_batchnorm_follows_its_stage_unless_the_phase_overrides_it() -> None:
    (phase,) = make_plan(
        make_strategy(only={"train": ["last:1", "head"], "batchnorm": {"first:2": "statistics", "layer4": "eval"}})
    ).phases
    assert [part.batchnorm for part in phase.parts] == ["statistics", "statistics", "eval", "eval", "eval", "train"]
    assert [part.trainable for part in phase.parts] == [False, False, False, False, True, True]


def test_batchnorm_can_train_alone_in_a_frozen_stage() -> None:
    (phase,) = make_plan(make_strategy(only={"train": ["head"], "batchnorm": {"layer4": "train"}})).phases
    (layer4,) = [part for part in phase.parts if part.name == "layer4"]
    assert (layer4.trainable, layer4.parameters, layer4.batchnorm) == (True, "norms", "train")
    assert phase.num_frozen_stages == 4


def test_schedules_continue_unless_a_phase_restarts_them() -> None:
    phases = {"a": {"epochs": 2}, "b": {"epochs": 3, "restart": ["scheduler"]}, "c": {"epochs": 2}, "d": {}}
    plan = make_plan(make_strategy(**phases))
    assert [phase.schedule for phase in plan.phases] == [(0, 2), (2, 10), (2, 10), (2, 10)]
    assert not any(phase.restarts_optimizer for phase in plan.phases)


def test_an_optimizer_restarts_once_when_its_phase_starts() -> None:
    phases = {
        "a": {"train": ["head"], "epochs": 2},
        "b": {"train": ["head"], "unfreeze": ["backbone"], "restart": ["optimizer", "scheduler"]},
    }
    plan = make_plan(make_strategy(**phases))
    assert [phase.start for phase in plan.phases if phase.restarts_optimizer] == [2]
    assert {phase.schedule for phase in plan.phases} == {(0, 2), (2, 10)}


def test_a_schedule_without_epochs_after_warmup_is_rejected() -> None:
    strategy = make_strategy(a={"epochs": 1}, b={"restart": ["scheduler"]})
    (problem,) = find_problems(strategy, warmup=1.0)
    assert "needs 1 epochs for warmup and milestones, but runs over epochs 1 to 1" in problem.subject
    assert make_plan(strategy, warmup=0.5)


def test_training_norms_of_stages_without_norms_is_rejected() -> None:
    parts = [Part(name, num_norm_parameters=8 * (name == "layer2"), num_bias_parameters=4) for name in NAMES]
    strategy = make_strategy(only={"parameters": {"last:2": "norms"}})
    with pytest.raises(UserError, match="trains the norms of 'last:2', which has none") as error_info:
        build_plan(strategy, parts, 10, RATE, DECAY)
    assert "layer2 with norms" in error_info.value.problems[0].valid


def test_unfreezing_a_trained_stage_is_rejected() -> None:
    (problem,) = find_problems(make_strategy(only={"train": ["all"], "unfreeze": ["layer4"]}))
    assert "unfreezes layer4, which it trains from the start" in problem.subject
    assert "stem, layer1" in problem.valid
    assert problem.fix == "strategy.phases.only.train=[head]"


def test_all_unknown_selectors_are_reported_together_with_fixes() -> None:
    strategy = make_strategy(
        a={"train": ["layr4", "head"], "batchnorm": {"backbon": "eval"}, "epochs": 3},
        b={"learning_rate": {"all": 1.0, "from:layer9": 2.0}},
        c={"train": ["head"], "learning_rate": {"head": 0.0}},
    )
    problems = find_problems(strategy)
    assert [problem.got for problem in problems] == ["layr4", "backbon", "from:layer9", ""]
    assert all("stem, layer1, layer2, layer3, layer4, head" in problem.valid for problem in problems)
    assert problems[0].fix == "strategy.phases.a.train=[layer4,head]"
    assert problems[3].fix == "strategy.phases.c.learning_rate.head=1.0"


UNEVEN_PARTS = [Part("stem", 8, 4, 50), Part("norm", 8, 4, 1), Part("head", 0, 4, 1)]
DOMINATED_PARTS = [*(Part(name, 8, 4, 3) for name in ("stem", "layer1", "layer2")), Part("layer3", 8, 4, 60), PARTS[-1]]


@pytest.mark.parametrize("parts", [UNEVEN_PARTS, DOMINATED_PARTS], ids=["two stages", "one stage has most layers"])
@pytest.mark.parametrize("name", ["partial", "first_layers", "gradual"])
def test_counting_stages_is_refused_where_they_are_no_measure_of_depth(name: str, parts: list[Part]) -> None:
    strategy = compose_recipe([f"strategy={name}"]).strategy
    with pytest.raises(UserError, match=r"counts stages(.|\n)*of its \d+ layers(.|\n)*strategy.allow_uneven=true"):
        build_plan(strategy, parts, 4, 0.1, 0.0)
    allowed = compose_recipe([f"strategy={name}", "strategy.allow_uneven=true"]).strategy
    assert build_plan(allowed, parts, 4, 0.1, 0.0).phases


@pytest.mark.parametrize("name", ["finetune", "fixed", "discriminative", "lp_ft", "norm_only"])
def test_strategies_that_count_no_stages_take_any_backbone(name: str) -> None:
    assert build_plan(compose_recipe([f"strategy={name}"]).strategy, UNEVEN_PARTS, 4, 0.1, 0.0).phases
