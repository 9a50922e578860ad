"""What has to agree between a run that is resumed and the epochs that it has trained."""

from __future__ import annotations

from collections.abc import Sequence

from thaw.config.errors import Problem, UserError
from thaw.config.schema import Recipe, SWAConfig
from thaw.runs.run import Run
from thaw.strategy.plan import Plan, build_plan_from_dicts
from thaw.strategy.schedule import compute_lr_factor
from thaw.system.reporter import Reporter

STEPS_PER_EPOCH = 20  # enough to tell schedules apart


def check_continuation(run: Run, plan: Plan, reporter: Reporter) -> None:
    """Check that the epochs which a resumed run has trained are also those of `plan`, which may have another number of
    epochs. Write a line if their learning rates would be others.

    Raises:
        UserError: if they trained other stages, or their weights would be averaged in another way.
    """
    if "plan" not in run.record:
        return
    previous_plan = build_plan_from_dicts(run.record["plan"])
    num_epochs, previous_num_epochs = plan.phases[-1].end, previous_plan.phases[-1].end
    if num_epochs == previous_num_epochs:
        return
    rows = run.read_history()
    trained_epochs = range(max((int(row["epoch"]) for row in rows), default=0))
    if reason := _find_contradiction(run.recipe, plan, previous_plan, trained_epochs):
        fix = f"a new run with trainer.epochs={num_epochs}"
        raise UserError("the run cannot continue.", [Problem(f"trainer.epochs={num_epochs}", reason, fix=fix)])
    losses = [float(row["val_loss"] or "nan") for row in rows]
    factors, previous_factors = (
        _compute_factors(run.recipe, epoch_plan, trained_epochs, losses) for epoch_plan in (plan, previous_plan)
    )
    if factors != previous_factors:
        reporter.write(
            f"the first {len(trained_epochs)} epochs had the schedule of {previous_num_epochs} epochs, so the result "
            f"is not that of {num_epochs} epochs from the start"
        )


def _find_contradiction(recipe: Recipe, plan: Plan, previous_plan: Plan, trained_epochs: range) -> str:
    """Return why the trained epochs are not those of `plan`; empty if they are."""
    for epoch in trained_epochs:
        phase, previous_phase = plan.get_phase(epoch), previous_plan.get_phase(epoch)
        if (phase.name, phase.parts) != (previous_phase.name, previous_phase.parts):
            return f"epoch {epoch + 1} was trained in phase {previous_phase.name}, and would be in phase {phase.name}"
    averaging = recipe.trainer.averaging
    if isinstance(averaging, SWAConfig):
        first_epochs = [averaging.compute_first_epoch(each.phases[-1].end) for each in (plan, previous_plan)]
        if min(first_epochs) < len(trained_epochs) and first_epochs[0] != first_epochs[1]:
            return f"weights were averaged from epoch {first_epochs[1] + 1}, and would be from {first_epochs[0] + 1}"
    return ""


def _compute_factors(recipe: Recipe, plan: Plan, epochs: range, losses: Sequence[float]) -> list[float]:
    """Compute the factors of the learning rate in `epochs`, in STEPS_PER_EPOCH steps each."""
    factors = []
    for epoch in epochs:
        start, end = plan.get_phase(epoch).schedule
        first_step = (epoch - start) * STEPS_PER_EPOCH
        factors += [
            compute_lr_factor(recipe.scheduler, step, STEPS_PER_EPOCH, end - start, losses[start:epoch])
            for step in range(first_step, first_step + STEPS_PER_EPOCH)
        ]
    return factors
