"""Write the run directory of a probe: all trials, and the winner as a network like any other."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from thaw.probing.linear_heads import HeadGrid
from thaw.probing.plot import save_probe_plot
from thaw.probing.result import ProbeResult
from thaw.probing.trial import ProbeTrial
from thaw.runs.run import Run
from thaw.system.devices import describe_hardware
from thaw.training.callbacks.checkpointing import AtomicCheckpointIO, build_checkpoint_metadata
from thaw.training.evaluation import SplitPredictions, save_plots, write_report
from thaw.training.extraction import Extraction
from thaw.training.tensorboard import log_results

COLUMNS = ("method", "setting", "val_accuracy", "val_loss", "seconds", "can_be_a_head", "chosen", "remark")


def write_probe(result: ProbeResult, extraction: Extraction, grid: HeadGrid, predictions: SplitPredictions) -> None:
    """Write the files of a run, with `probe.csv` and plots/probe.png instead of a history and its curves.

    The network of `extraction` has the winner as its head. There is no last.ckpt, as nothing can be resumed.
    """
    run, samples = result.run, extraction.samples
    _update_record(run, extraction, grid, result.winner)
    run.write_probe_trials(format_csv(result))
    title = f"{run.recipe.dataset.name}, {run.recipe.backbone.name}: validation"
    save_probe_plot(result.trials, result.winner, title, run.plots_directory / "probe.png")
    _save_network(run, extraction)
    run.write_predictions(samples, *predictions["test"])
    save_plots(run, extraction.components.data, predictions)
    run.write_metrics(result.metrics)
    log_results(run, samples, predictions["test"], result.metrics)
    write_report(run, extraction.components.data, extraction.components.model)


def format_csv(result: ProbeResult) -> str:
    """Return the trials as CSV, one row each, with COLUMNS. `val_loss` is empty for a trial that has none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*_iter_cells(trial, trial is result.winner)] for trial in result.trials)
    return buffer.getvalue()


def _iter_cells(trial: ProbeTrial, is_winner: bool) -> Iterator[str]:
    is_head = trial.linear is not None
    yield from (trial.method, trial.format_setting(), f"{trial.accuracy:.6g}")
    yield from (f"{trial.loss:.6g}" if is_head else "", f"{trial.seconds:.4g}")
    yield from ("yes" if is_head else "no", "yes" if is_winner else "no", trial.remark)


def _update_record(run: Run, extraction: Extraction, grid: HeadGrid, winner: ProbeTrial) -> None:
    total, trainable = (
        sum(parameter.numel() for parameter in module.parameters())
        for module in (extraction.network, extraction.network.head)
    )
    run.update(
        **extraction.run_entries,
        parameters={"total": total, "trainable": trainable},
        probe={"method": winner.method, "setting": dict(winner.setting), "grid": asdict(grid)},
        hardware=describe_hardware(),
    )


def _save_network(run: Run, extraction: Extraction) -> None:
    metadata = build_checkpoint_metadata(
        run.recipe.to_dict(),
        extraction.classes,
        extraction.preprocessing,
        extraction.stages,
        [len(extraction.network.stages)],
    )
    state: dict[str, Any] = {f"network.{name}": value for name, value in extraction.network.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"state_dict": state, "thaw": metadata}, run.best_checkpoint)
