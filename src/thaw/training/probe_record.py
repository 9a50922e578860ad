"""What a probe leaves in its run directory: all that was tried, and the winner as a network like any other."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from thaw.analysis.probe_plot import save_probe
from thaw.features.heads import Grid
from thaw.features.trial import Trial
from thaw.network.cost import stage_costs
from thaw.training.board import show_results
from thaw.training.checkpoint import AtomicCheckpointIO, description
from thaw.training.extraction import Extracted
from thaw.training.files import write_json, write_text
from thaw.training.hardware import hardware
from thaw.training.outcome import Predicted, draw
from thaw.training.page import write_page
from thaw.training.predictions_file import write_predictions
from thaw.training.run import Run

COLUMNS = ("method", "setting", "val_accuracy", "val_loss", "seconds", "can_be_a_head", "chosen", "remark")


def write_probe(
    run: Run,
    found: Extracted,
    grid: Grid,
    trials: Sequence[Trial],
    winner: Trial,
    predictions: Predicted,
    metrics: dict[str, Any],
) -> None:
    """`probe.csv` and plots/probe.png in the place of a history and its curves, and of a run's files all others;
    `found.network` has the winner for its head. There is no last.ckpt: nothing is left to resume."""
    _note(run, found, grid, winner)
    write_text(run.directory / "probe.csv", as_csv(trials, winner))
    recipe, plots = run.recipe, run.directory / "plots"
    save_probe(trials, winner, f"{recipe.dataset.name}, {recipe.backbone.name}: validation", plots / "probe.png")
    _save_network(run, found)
    write_predictions(run.directory / "predictions.csv", found.samples, *predictions["test"])
    draw(run, found.samples, found.images, predictions)
    write_json(run.directory / "metrics.json", metrics)
    show_results(run, found.samples, predictions["test"], metrics)
    costs = stage_costs(found.network, found.preprocessing.size)
    write_page(run, found.network, found.samples, found.images, found.preprocessing, costs)


def as_csv(trials: Sequence[Trial], winner: Trial) -> str:
    """A row a trial; COLUMNS. `val_loss` is empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in trials:
        is_head = one.linear is not None
        loss = f"{one.loss:.6g}" if is_head else ""
        marks = ["yes" if mark else "no" for mark in (is_head, one is winner)]
        writer.writerow([one.method, one.told(), f"{one.accuracy:.6g}", loss, f"{one.seconds:.4g}", *marks, one.remark])
    return text.getvalue()


def _note(run: Run, found: Extracted, grid: Grid, winner: Trial) -> None:
    sizes = [sum(one.numel() for one in module.parameters()) for module in (found.network, found.network.head)]
    run.note(
        **found.recorded,
        parameters={"total": sizes[0], "trainable": sizes[1]},
        probe={"method": winner.method, "setting": dict(winner.setting), "grid": asdict(grid)},
        hardware=hardware(),
    )


def _save_network(run: Run, found: Extracted) -> None:
    about = description(
        run.recipe.plain(), found.samples.classes, found.preprocessing, found.stages, [len(found.network.stages)]
    )
    state = {f"network.{name}": value for name, value in found.network.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"state_dict": state, "thaw": about}, run.best)
