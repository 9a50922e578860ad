"""The result of a probe: in Python and notebooks, as files of a run, and as a plot."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thaw.probing.linear_heads import HeadGrid
from thaw.probing.trial import KNN_METHOD, LINEAR_HEAD_METHOD, ProbeTrial, select_best
from thaw.runs.run import Run
from thaw.system.csv_files import format_rows
from thaw.system.devices import describe_hardware
from thaw.system.tables import build_data_frame
from thaw.training.callbacks.checkpointing import AtomicCheckpointIO, build_checkpoint_metadata
from thaw.training.evaluation import SplitPredictions, save_plots, write_report
from thaw.training.extraction import Extraction
from thaw.training.tensorboard import log_results
from thaw.visualization.plots.training import TRAIN_COLOR

BEST_COLUMNS = ("classifier", "best setting", "tried", "val accuracy", "val loss", "remark")
COLUMNS = ("method", "setting", "val_accuracy", "val_loss", "seconds", "can_be_chosen", "chosen", "remark")
WINNER_COLOR = "#c22020"


@dataclass(frozen=True)
class ProbeResult:
    """What a probe tried and chose. In a notebook it shows the best trial of each method.

    Attributes:
        trials: all classifiers with all settings, in the order in which they were tried.
        winner: the trial that was chosen on the validation images; its classifier is the head of the run's network.
        metrics: the content of `metrics.json`: `val`, `test` and `timing`.
        run: the run directory.
    """

    trials: list[ProbeTrial]
    winner: ProbeTrial
    metrics: dict[str, Any]
    run: Run

    def list_best_trials(self) -> list[tuple[ProbeTrial, int]]:
        """Return the best trial of each method, and how many the method had."""
        trials_by_method: dict[str, list[ProbeTrial]] = {}
        for trial in self.trials:
            trials_by_method.setdefault(trial.method, []).append(trial)
        return [(select_best(trials), len(trials)) for trials in trials_by_method.values()]

    def to_frame(self) -> Any:
        """Return one row per trial: method, setting, val_accuracy, val_loss, seconds, can_be_chosen, chosen, remark. A
        pandas data frame if pandas is installed, otherwise a list of dicts."""
        rows = [
            {
                "method": trial.method,
                "setting": trial.format_setting(),
                "val_accuracy": trial.accuracy,
                "val_loss": trial.loss,
                "seconds": trial.seconds,
                "can_be_chosen": trial.can_be_chosen,
                "chosen": trial is self.winner,
                "remark": trial.remark,
            }
            for trial in self.trials
        ]
        return build_data_frame(rows)

    def __repr__(self) -> str:
        setting = f" ({self.winner.format_setting()})" if self.winner.setting else ""
        accuracy = f"validation accuracy {self.winner.accuracy:.3f}"
        if "test" in self.metrics:
            accuracy += f", test accuracy {self.metrics['test']['accuracy']:.3f}"
        return f"ProbeResult({self.winner.method}{setting} of {len(self.trials)} trials, {accuracy})"

    def _repr_html_(self) -> str:
        rows = "".join(
            _render_row(self._list_cells(trial, count), trial is self.winner)
            for trial, count in self.list_best_trials()
        )
        header = "".join(f"<th>{name}</th>" for name in BEST_COLUMNS)
        return f"<div>{html.escape(repr(self))}<table><tr>{header}</tr>{rows}</table></div>"

    def _list_cells(self, trial: ProbeTrial, num_trials: int) -> list[str]:
        loss = f"{trial.loss:.3f}" if trial.can_be_chosen else ""
        remark = "; ".join(filter(None, ["chosen" if trial is self.winner else "", trial.remark]))
        return [trial.method, trial.format_setting(), str(num_trials), f"{trial.accuracy:.3f}", loss, remark]


def _render_row(cells: list[str], is_bold: bool) -> str:
    tags = ("<b>", "</b>") if is_bold else ("", "")
    return "<tr>" + "".join(f"<td>{tags[0]}{html.escape(cell)}{tags[1]}</td>" for cell in cells) + "</tr>"


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
    return format_rows([COLUMNS, *(_iter_cells(trial, trial is result.winner) for trial in result.trials)])


def _iter_cells(trial: ProbeTrial, is_winner: bool) -> Iterator[str]:
    yield from (trial.method, trial.format_setting(), f"{trial.accuracy:.6g}")
    yield from (f"{trial.loss:.6g}" if trial.can_be_chosen else "", f"{trial.seconds:.4g}")
    yield from ("yes" if trial.can_be_chosen else "no", "yes" if is_winner else "no", trial.remark)


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
        extraction.components.data.identity,
    )
    state: dict[str, Any] = {f"network.{name}": value for name, value in extraction.network.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"state_dict": state, "thaw": metadata}, run.best_checkpoint)


def save_probe_plot(trials: Sequence[ProbeTrial], winner: ProbeTrial, title: str, file: Path) -> None:
    """Save three plots on one scale, with `winner` marked.

    They show k-NN by k; methods with an inverse regularization strength C by C, those without a setting as a level; and
    linear heads by learning rate, one line per weight decay: the mean over seeds and their range.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    neighbor_axes, strength_axes, head_axes = figure.subplots(1, 3, sharey=True)
    _draw_lines(neighbor_axes, [trial for trial in trials if trial.method == KNN_METHOD], "k", winner)
    _draw_lines(strength_axes, [trial for trial in trials if "C" in trial.setting], "C", winner)
    for trial in (trial for trial in trials if not trial.setting):
        _draw_level(strength_axes, trial, winner)
    _draw_heads(head_axes, [trial for trial in trials if trial.method == LINEAR_HEAD_METHOD], winner)
    neighbor_axes.set_ylabel("validation accuracy")
    for axes, label in ((neighbor_axes, "neighbors k"), (strength_axes, "C: regularization is weaker to the right")):
        _style_axes(axes, label)
    _style_axes(head_axes, "learning rate")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.savefig(file, dpi=110)


def _draw_lines(axes: Axes, trials: Iterable[ProbeTrial], key: str, winner: ProbeTrial) -> None:
    trials_by_method: dict[str, list[ProbeTrial]] = {}
    for trial in trials:
        trials_by_method.setdefault(trial.method, []).append(trial)
    for method, method_trials in trials_by_method.items():
        values = [trial.setting[key] for trial in method_trials]
        axes.plot(values, [trial.accuracy for trial in method_trials], marker="o", markersize=3, label=method)
        if winner.method == method:
            _mark_winner(axes, winner.setting[key], winner)
    axes.set_xscale("log")


def _draw_level(axes: Axes, trial: ProbeTrial, winner: ProbeTrial) -> None:
    axes.axhline(trial.accuracy, color=TRAIN_COLOR, linewidth=1, label=trial.method)
    if trial is winner:
        _mark_winner(axes, axes.get_xlim()[0], winner)


def _draw_heads(axes: Axes, trials: Sequence[ProbeTrial], winner: ProbeTrial) -> None:
    decays = sorted({trial.setting["weight decay"] for trial in trials})
    for index, decay in enumerate(decays):
        decay_trials = [trial for trial in trials if trial.setting["weight decay"] == decay]
        rates = sorted({trial.setting["learning rate"] for trial in decay_trials})
        accuracies = [
            [trial.accuracy for trial in decay_trials if trial.setting["learning rate"] == rate] for rate in rates
        ]
        means = [sum(seed_accuracies) / len(seed_accuracies) for seed_accuracies in accuracies]
        lows, highs = list(map(min, accuracies)), list(map(max, accuracies))
        color, label = f"C{index}", f"weight decay {decay:g}"
        axes.plot(rates, means, "o-", color=color, markersize=3, label=label)
        axes.fill_between(rates, lows, highs, color=color, alpha=0.12, linewidth=0)
    if winner.method == LINEAR_HEAD_METHOD:
        _mark_winner(axes, winner.setting["learning rate"], winner)
    axes.set_xscale("log")


def _mark_winner(axes: Axes, x: float, winner: ProbeTrial) -> None:
    axes.plot(x, winner.accuracy, "o", color=WINNER_COLOR, markersize=8, fillstyle="none", label="chosen")


def _style_axes(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
