"""What of a strategy does not fit the backbone's stages or the epochs, all of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from thaw.config.faults import Fault, UserFault, listing
from thaw.config.schema import Phase, Strategy
from thaw.strategy.parts import Part, by_part, kinds, meant
from thaw.strategy.selection import means_nothing, selected

LISTS = ("train", "unfreeze")
MAPPINGS = ("learning_rate", "weight_decay", "batchnorm", "parameters")
Spans = Mapping[str, tuple[int, int]]


def misfits(
    strategy: Strategy, parts: Sequence[Part], spans: Spans, schedules: Spans, epochs: int, schedule_epochs: float
) -> Iterator[Fault]:
    """`spans` and `schedules`: first epoch and end of each phase, and of the schedule that it is in. `schedule_epochs`:
    what a schedule needs for its warm-up and milestones."""
    for name, phase in strategy.phases.items():
        unknown = list(_unknown_words(f"strategy.phases.{name}", phase, [part.name for part in parts]))
        yield from unknown or _idle(f"strategy.phases.{name}", name, phase, parts)
    for name, (start, end) in spans.items():
        if end <= start:
            fix = f"trainer.epochs={epochs + 1 - (end - start)}, or shorter phases"
            yield Fault(f"phase {name} has no epoch left of {epochs}", fix=fix)
    for start, end in sorted(set(schedules.values())):
        if schedule_epochs and schedule_epochs >= end - start > 0:
            subject = (
                f"the schedule takes {schedule_epochs:g} epochs to its last change, and has epochs {start + 1} to {end}"
            )
            fix = "scheduler.warmup_epochs=0 and earlier milestones, more epochs, or no restart of the scheduler"
            yield Fault(subject, valid=f"less than {end - start}", fix=fix)


def _unknown_words(key: str, phase: Phase, names: Sequence[str]) -> Iterator[Fault]:
    for field in (*LISTS, *MAPPINGS):
        words = list(getattr(phase, field))
        for word in words:
            try:
                selected(word, names)
            except UserFault:
                fault = means_nothing(word, names)
                right = [fault.fix if one == word else one for one in words]
                fix = f"{key}.{field}=[{','.join(right)}]" if field in LISTS else f"{fault.fix} in place of {word}"
                yield Fault(f"{key}.{field}: {fault.subject}", word, fault.valid, fix if fault.fix else "")


def _idle(key: str, name: str, phase: Phase, parts: Sequence[Part]) -> Iterator[Fault]:
    """What a phase says in vain: parts without a rate, kinds that no stage has, nothing to train or to unfreeze."""
    trained, rates = kinds(phase, parts), by_part(phase.learning_rate, parts)
    stages = f"stages: {listing([part.name for part in parts], 40)}"
    for word, kind in phase.parameters.items():
        if not any(part.has(kind) for part in parts if part.name in meant([word], parts)):
            having = listing(part.name for part in parts if part.has(kind))
            subject = f"phase {name} trains the {kind} of {word!r}, which has none"
            yield Fault(
                subject, valid=f"{having or 'none of the stages'} with {kind}", fix=f"{key}.parameters.{word}=all"
            )
    if unrated := [one for one in trained if one not in rates]:
        subject = f"phase {name} trains {unrated[0]} and gives it no learning rate"
        yield Fault(subject, valid=stages, fix=f"{key}.learning_rate.all=1.0")
    elif trained and not any(rates[one] for one in trained):
        subject = f"phase {name}: all learning rates are 0: it trains nothing"
        yield Fault(subject, valid=stages, fix=f"{key}.learning_rate.{phase.train[0]}=1.0")
    if phase.unfreeze and meant(phase.unfreeze, parts) <= meant(phase.train, parts):
        subject = f"phase {name} unfreezes {listing(phase.unfreeze)}, which it trains from its start"
        yield Fault(subject, valid=stages, fix=f"{key}.train=[head]")
