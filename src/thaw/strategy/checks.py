"""Check that a strategy fits the backbone's stages and the number of epochs, and report all problems together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import PhaseConfig, StrategyConfig
from thaw.strategy.selection import (
    Part,
    build_selector_problem,
    map_to_parts,
    resolve_selectors,
    resolve_trained_kinds,
    select_parts,
)

LIST_FIELDS = ("train", "unfreeze")
MAPPING_FIELDS = ("learning_rate", "weight_decay", "batchnorm", "parameters")
Spans = Mapping[str, tuple[int, int]]


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
