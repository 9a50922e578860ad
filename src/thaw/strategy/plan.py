"""Build the plan of a strategy (per phase and stage: what trains, how fast, BatchNorm mode) and check that it fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import PhaseConfig, StrategyConfig
from thaw.strategy.selection import (
    Part,
    build_selector_problem,
    describe_uneven_stages,
    map_to_parts,
    resolve_selectors,
    resolve_trained_kinds,
    select_parts,
)

LIST_FIELDS = ("train", "unfreeze")
MAPPING_FIELDS = ("learning_rate", "weight_decay", "batchnorm", "parameters")
Spans = dict[str, tuple[int, int]]


def check_strategy(
    strategy: StrategyConfig,
    parts: Sequence[Part],
    phase_spans: Spans,
    schedule_spans: Spans,
    epochs: int,
    schedule_epochs: float,
) -> Iterator[Problem]:
    """Yield all problems of a strategy.

    `phase_spans` and `schedule_spans` map each phase to the first epoch and the end of the phase, and of the schedule
    that it belongs to. `schedule_epochs` is the number of epochs that warmup and milestones take.
    """
    if not strategy.allow_uneven and (reason := describe_uneven_stages(parts)):
        yield from _check_depth_selectors(strategy, parts, reason)
    for name, phase in strategy.phases.items():
        selector_problems = list(_check_selectors(f"strategy.phases.{name}", phase, [part.name for part in parts]))
        yield from selector_problems or _unused_settings(f"strategy.phases.{name}", name, phase, parts)
    for name, (start, end) in phase_spans.items():
        if end <= start:
            fix = f"trainer.epochs={epochs + 1 - (end - start)}, or shorter phases"
            yield Problem(f"phase {name} has no epoch left of {epochs}", fix=fix)
    for start, end in sorted(set(schedule_spans.values())):
        if schedule_epochs and schedule_epochs >= end - start > 0:
            needed_epochs = f"the schedule needs {schedule_epochs:g} epochs for warmup and milestones"
            subject = f"{needed_epochs}, but runs over epochs {start + 1} to {end}"
            fix = "scheduler.warmup_epochs=0 and earlier milestones, more epochs, or no restart of the scheduler"
            yield Problem(subject, valid=f"less than {end - start}", fix=fix)


def _check_depth_selectors(strategy: StrategyConfig, parts: Sequence[Part], reason: str) -> Iterator[Problem]:
    """Yield a problem for each phase that counts stages of a backbone whose stages are no measure of depth."""
    for name, phase in strategy.phases.items():
        counts = [selector for selector in (*phase.train, *phase.unfreeze) if selector.startswith(("first:", "last:"))]
        counts += [f"unfreeze: {selector}" for selector in phase.unfreeze if selector in ("all", "backbone")]
        if counts:
            subject = f"phase {name} of strategy={strategy.name} counts stages ({format_names(counts)})"
            valid = f"stages by name: {format_names(part.name for part in parts)}"
            fix = "strategy=finetune, strategy=fixed, or strategy.allow_uneven=true if that is what you want"
            yield Problem(subject, reason, valid, fix)


def _check_selectors(key: str, phase: PhaseConfig, part_names: Sequence[str]) -> Iterator[Problem]:
    for field in (*LIST_FIELDS, *MAPPING_FIELDS):
        selectors = list(getattr(phase, field))
        for selector in selectors:
            try:
                select_parts(selector, part_names)
            except UserError:
                problem = build_selector_problem(selector, part_names)
                corrected_selectors = [problem.fix if other == selector else other for other in selectors]
                fix = f"{key}.{field}=[{','.join(corrected_selectors)}]"
                if field in MAPPING_FIELDS:
                    fix = f"{problem.fix} instead of {selector}"
                yield Problem(f"{key}.{field}: {problem.subject}", selector, problem.valid, fix if problem.fix else "")


def _unused_settings(key: str, name: str, phase: PhaseConfig, parts: Sequence[Part]) -> Iterator[Problem]:
    """Yield settings without effect: parts without a learning rate, kinds that no stage has, nothing to train."""
    trained_kinds, rates = resolve_trained_kinds(phase, parts), map_to_parts(phase.learning_rate, parts)
    valid_stages = f"stages: {format_names([part.name for part in parts], 40)}"
    for selector, kind in phase.parameters.items():
        if not any(part.has_parameters(kind) for part in parts if part.name in resolve_selectors([selector], parts)):
            matching_parts = format_names(part.name for part in parts if part.has_parameters(kind))
            subject = f"phase {name} trains the {kind} of {selector!r}, which has none"
            valid = f"{matching_parts or 'none of the stages'} with {kind}"
            yield Problem(subject, valid=valid, fix=f"{key}.parameters.{selector}=all")
    if parts_without_rate := [part_name for part_name in trained_kinds if part_name not in rates]:
        subject = f"phase {name} trains {parts_without_rate[0]} without a learning rate"
        yield Problem(subject, valid=valid_stages, fix=f"{key}.learning_rate.all=1.0")
    elif trained_kinds and not any(rates[part_name] for part_name in trained_kinds):
        subject = f"phase {name}: all learning rates are 0, so it trains nothing"
        yield Problem(subject, valid=valid_stages, fix=f"{key}.learning_rate.{phase.train[0]}=1.0")
    if phase.unfreeze and resolve_selectors(phase.unfreeze, parts) <= resolve_selectors(phase.train, parts):
        subject = f"phase {name} unfreezes {format_names(phase.unfreeze)}, which it trains from the start"
        yield Problem(subject, valid=valid_stages, fix=f"{key}.train=[head]")


@dataclass(frozen=True)
class PartPlan:
    """One stage, or the head, in one phase.

    Attributes:
        name: the stage, or `head`.
        trainable: whether any of its parameters train.
        learning_rate: before the schedule; 0 if frozen.
        weight_decay: 0 if frozen.
        batchnorm: `train`, `statistics` or `eval`, as in a recipe.
        parameters: which parameters train: `all`, `norms` or `biases`.
    """

    name: str
    trainable: bool
    learning_rate: float
    weight_decay: float
    batchnorm: str
    parameters: str = "all"


@dataclass(frozen=True)
class PhasePlan:
    """The epochs `start` to `end` - 1, counted from 0. Its schedule runs over the epochs `schedule` (start, end)."""

    name: str
    start: int
    end: int
    parts: tuple[PartPlan, ...]
    schedule: tuple[int, int]
    restarts_optimizer: bool = False

    @property
    def num_frozen_stages(self) -> int:
        """The number of leading frozen stages; the head does not count."""
        is_trainable = [part.trainable for part in self.parts[:-1]]
        return is_trainable.index(True) if True in is_trainable else len(is_trainable)

    @property
    def active_parts(self) -> tuple[PartPlan, ...]:
        """The parts that train or whose BatchNorm is not in evaluation mode."""
        return tuple(part for part in self.parts if part.trainable or part.batchnorm != "eval")

    @property
    def num_static_stages(self) -> int:
        """The number of leading stages whose output for an image is the same in every epoch: frozen, and with
        BatchNorm in evaluation mode."""
        is_static = [not part.trainable and part.batchnorm == "eval" for part in self.parts[:-1]]
        return is_static.index(False) if False in is_static else len(is_static)


@dataclass(frozen=True)
class Plan:
    """The phases of a training, in order."""

    phases: tuple[PhasePlan, ...]

    @property
    def num_static_stages(self) -> int:
        """The number of leading stages that are static in every phase."""
        return min(phase.num_static_stages for phase in self.phases)

    def get_phase(self, epoch: int) -> PhasePlan:
        """Return the phase of `epoch`, or the last phase for any later epoch."""
        return next((phase for phase in self.phases if epoch < phase.end), self.phases[-1])

    def is_pretrained_until(self, depth: int, until: PhasePlan) -> bool:
        """Return whether the leading `depth` stages still have the pretrained weights when the phase `until` starts."""
        return all(phase.num_static_stages >= depth for phase in self.phases if phase.start < until.start)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the phases as plain data for `run.json`."""
        phase_dicts = [dataclasses.asdict(phase) for phase in self.phases]
        return [
            {**phase_dict, "parts": list(phase_dict["parts"]), "schedule": list(phase_dict["schedule"])}
            for phase_dict in phase_dicts
        ]


def build_plan_from_dicts(phase_dicts: Sequence[Mapping[str, Any]]) -> Plan:
    """Rebuild the plan from the plain data that `Plan.to_dicts` returned, as `run.json` contains it."""
    phases = []
    for phase_dict in phase_dicts:
        parts = tuple(PartPlan(**part) for part in phase_dict["parts"])
        phases.append(PhasePlan(**{**phase_dict, "parts": parts, "schedule": tuple(phase_dict["schedule"])}))
    return Plan(tuple(phases))


def build_plan(
    strategy: StrategyConfig,
    parts: Sequence[Part],
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    schedule_epochs: float = 0.0,
) -> Plan:
    """Build the plan of `epochs` epochs for `parts`: the stages from input to output, then the head.

    The learning rate of a part is `learning_rate` times the multiplier of the last entry of the phase's `learning_rate`
    that selects it. With L2-SP, stages have no weight decay. `schedule_epochs` is the number of epochs that warmup and
    milestones take.

    Raises:
        UserError: with all selectors that select no stage, phases that train nothing, and phases and schedules that do
            not fit the epochs.
    """
    phase_spans = _compute_phase_spans(strategy.phases, epochs)
    schedule_spans = _compute_schedule_spans(strategy.phases, phase_spans, epochs)
    problems = list(check_strategy(strategy, parts, phase_spans, schedule_spans, epochs, schedule_epochs))
    if problems:
        raise UserError("the strategy does not fit the backbone or the number of epochs.", problems)
    weight_decays = {part.name: 0.0 if strategy.l2_sp else weight_decay for part in parts[:-1]}
    weight_decays[parts[-1].name] = weight_decay
    build_part = partial(_build_part_plan, parts=parts, learning_rate=learning_rate, weight_decays=weight_decays)
    return Plan(
        tuple(
            PhasePlan(
                name=step.name,
                start=step.start,
                end=step.end,
                parts=tuple(build_part(phase, step.frozen_parts, part_index=index) for index in range(len(parts))),
                schedule=schedule_spans[name],
                restarts_optimizer="optimizer" in phase.restart and step.start == phase_spans[name][0],
            )
            for name, phase in strategy.phases.items()
            for step in _split_phase(name, phase, parts, *phase_spans[name])
        )
    )


@dataclass(frozen=True)
class _Step:
    """Epochs of a phase with the same trainable parts; `frozen_parts` are unfrozen in a later step."""

    name: str
    start: int
    end: int
    frozen_parts: set[str]


def _split_phase(name: str, phase: PhaseConfig, parts: Sequence[Part], start: int, end: int) -> Iterator[_Step]:
    """Yield one step, or one for each stage to unfreeze; with fewer epochs than stages, several stages per step."""
    parts_to_unfreeze = resolve_selectors(phase.unfreeze, parts) - resolve_selectors(phase.train, parts)
    unfreeze_order = [part.name for part in reversed(parts) if part.name in parts_to_unfreeze]
    if not unfreeze_order:
        yield _Step(name, start, end, set())
        return
    unfrozen_counts = [-(-(epoch + 1) * len(unfreeze_order) // (end - start)) for epoch in range(end - start)]
    for count in dict.fromkeys(unfrozen_counts):
        first_epoch, num_epochs = start + unfrozen_counts.index(count), unfrozen_counts.count(count)
        step_name = f"{name}-{unfreeze_order[count - 1]}"
        yield _Step(step_name, first_epoch, first_epoch + num_epochs, set(unfreeze_order[count:]))


def _build_part_plan(
    phase: PhaseConfig,
    frozen_parts: set[str],
    parts: Sequence[Part],
    part_index: int,
    learning_rate: float,
    weight_decays: Mapping[str, float],
) -> PartPlan:
    name, kind = parts[part_index].name, resolve_trained_kinds(phase, parts).get(parts[part_index].name)
    rate = 0.0
    if kind and name not in frozen_parts:
        distance_to_head = len(parts) - 1 - part_index
        rate = learning_rate * map_to_parts(phase.learning_rate, parts)[name] * phase.layer_decay**distance_to_head
    decay = weight_decays[name] * map_to_parts(phase.weight_decay, parts).get(name, 1.0) if rate else 0.0
    batchnorm = map_to_parts(phase.batchnorm, parts).get(name, "train" if rate else "eval")
    return PartPlan(name, rate > 0, rate, decay, batchnorm, kind if kind and rate else "all")


def _compute_phase_spans(phases: Mapping[str, PhaseConfig], epochs: int) -> Spans:
    """Return start and end of each phase; the one without epochs and fraction, else the last, takes the remaining."""
    lengths = {name: phase.epochs or max(1, round((phase.fraction or 0) * epochs)) for name, phase in phases.items()}
    open_ended_phases = [name for name, phase in phases.items() if not phase.epochs and not phase.fraction]
    filler_phase = open_ended_phases[0] if open_ended_phases else list(phases)[-1]
    lengths[filler_phase] = epochs - sum(length for name, length in lengths.items() if name != filler_phase)
    spans, start = {}, 0
    for name, length in lengths.items():
        spans[name] = (start, start + length)
        start += length
    return spans


def _compute_schedule_spans(phases: Mapping[str, PhaseConfig], spans: Spans, epochs: int) -> Spans:
    """Return start and end of the schedule of each phase: from one restart to the next."""
    restart_epochs = [spans[name][0] for name, phase in phases.items() if "scheduler" in phase.restart]
    edges = sorted({0, *restart_epochs, epochs})
    return {
        name: (
            max((edge for edge in edges if edge <= start), default=0),
            min((edge for edge in edges if edge > start), default=epochs),
        )
        for name, (start, _) in spans.items()
    }
