"""What a probe leaves in its run directory: all that was tried, and the winner as a network like any other."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from thaw.models.cost import compute_stage_costs
from thaw.probing.linear_heads import Grid
from thaw.probing.plot import save_probe_plot
from thaw.probing.trial import ProbeTrial
from thaw.runs.run import Run
from thaw.system.devices import describe_hardware
from thaw.training.callbacks.checkpointing import AtomicCheckpointIO, build_checkpoint_metadata
from thaw.training.evaluation import SplitPredictions, save_plots, write_report
from thaw.training.extraction import ExtractedFeatures
from thaw.training.tensorboard import log_results

COLUMNS = ("method", "setting", "val_accuracy", "val_loss", "seconds", "can_be_a_head", "chosen", "remark")


def write_probe(
    run: Run,
    extraction: ExtractedFeatures,
    grid: Grid,
    trials: Sequence[ProbeTrial],
    winner: ProbeTrial,
    predictions: SplitPredictions,
    metrics: dict[str, Any],
) -> None:
    """`probe.csv` and plots/probe.png in the place of a history and its curves, and of a run's files all others;
    `found.network` has the winner for its head. There is no last.ckpt: nothing is left to resume."""
    _update_record(run, extraction, grid, winner)
    run.write_probe_trials(format_csv(trials, winner))
    recipe, plots_directory = run.recipe, run.plots_directory
    save_probe_plot(
        trials, winner, f"{recipe.dataset.name}, {recipe.backbone.name}: validation", plots_directory / "probe.png"
    )
    _save_network(run, extraction)
    run.write_predictions(extraction.samples, *predictions["test"])
    save_plots(run, extraction.samples, extraction.images, predictions)
    run.write_metrics(metrics)
    log_results(run, extraction.samples, predictions["test"], metrics)
    costs = compute_stage_costs(extraction.network, extraction.preprocessing.size)
    write_report(run, extraction.network, extraction.samples, extraction.images, extraction.preprocessing, costs)


def format_csv(trials: Sequence[ProbeTrial], winner: ProbeTrial) -> str:
    """A row a trial; COLUMNS. `val_loss` is empty where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for trial in trials:
        is_head = trial.linear is not None
        loss = f"{trial.loss:.6g}" if is_head else ""
        flags = ["yes" if flag else "no" for flag in (is_head, trial is winner)]
        writer.writerow(
            [
                trial.method,
                trial.format_setting(),
                f"{trial.accuracy:.6g}",
                loss,
                f"{trial.seconds:.4g}",
                *flags,
                trial.remark,
            ]
        )
    return buffer.getvalue()


def _update_record(run: Run, extraction: ExtractedFeatures, grid: Grid, winner: ProbeTrial) -> None:
    parameter_counts = [
        sum(parameter.numel() for parameter in module.parameters())
        for module in (extraction.network, extraction.network.head)
    ]
    run.update(
        **extraction.run_entries,
        parameters={"total": parameter_counts[0], "trainable": parameter_counts[1]},
        probe={"method": winner.method, "setting": dict(winner.setting), "grid": asdict(grid)},
        hardware=describe_hardware(),
    )


def _save_network(run: Run, extraction: ExtractedFeatures) -> None:
    metadata = build_checkpoint_metadata(
        run.recipe.to_dict(),
        extraction.samples.classes,
        extraction.preprocessing,
        extraction.stages,
        [len(extraction.network.stages)],
    )
    state = {f"network.{name}": value for name, value in extraction.network.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"state_dict": state, "thaw": metadata}, run.best_checkpoint)
