"""The result of a probe: in Python and notebooks, as files of a run, and as a plot."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thaw.probing.linear_heads import HeadGrid
from thaw.probing.trial import KNN_METHOD, LINEAR_HEAD_METHOD, ProbeTrial, average_over_seeds, select_best
from thaw.runs.run import Run
from thaw.system.csv_files import format_rows
from thaw.system.devices import describe_hardware
from thaw.system.reporter import SILENT, Reporter
from thaw.system.tables import build_data_frame
from thaw.training.callbacks.checkpointing import AtomicCheckpointIO, build_checkpoint_metadata
from thaw.training.evaluation import SplitPredictions, draw_results, warn_if_not_drawn
from thaw.training.extraction import Extraction
from thaw.visualization.plots.encode import save_figure
from thaw.visualization.plots.style import HIGHLIGHT_COLOR, PALETTE, TRAIN_COLOR
from thaw.visualization.plots.text import format_label

BEST_COLUMNS = ("classifier", "best setting", "tried", "val accuracy", "val loss", "remark")
COLUMNS = ("method", "setting", "val_accuracy", "val_loss", "seconds", "can_be_chosen", "chosen", "remark")


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
        accuracy, loss = average_over_seeds(trial, self.trials)
        loss_text = f"{loss:.3f}" if trial.can_be_chosen else ""
        remark = "; ".join(filter(None, ["chosen" if trial is self.winner else "", trial.remark]))
        return [trial.method, trial.format_setting(), str(num_trials), f"{accuracy:.3f}", loss_text, remark]


def _render_row(cells: list[str], is_bold: bool) -> str:
    tags = ("<b>", "</b>") if is_bold else ("", "")
    return "<tr>" + "".join(f"<td>{tags[0]}{html.escape(cell)}{tags[1]}</td>" for cell in cells) + "</tr>"


def write_probe(
    result: ProbeResult,
    extraction: Extraction,
    grid: HeadGrid,
    predictions: SplitPredictions,
    reporter: Reporter = SILENT,
) -> None:
    """Write the files of a run, with `probe.csv` and plots/probe.png instead of a history and its curves.

    The network of `extraction` has the winner as its head. There is no last.ckpt, as nothing can be resumed.
    """
    run, samples = result.run, extraction.samples
    _update_record(run, extraction, grid, result.winner)
    run.write_probe_trials(format_csv(result))
    _save_network(run, extraction)
    run.write_predictions(samples, *predictions["test"])
    run.write_metrics(result.metrics)
    with warn_if_not_drawn("probe.png", run.directory, reporter):
        title = f"{run.recipe.dataset.name}, {run.recipe.backbone.name}: validation"
        run.plots_directory.mkdir(exist_ok=True)
        save_probe_plot(result.trials, result.winner, title, run.plots_directory / "probe.png")
    components = extraction.components
    draw_results(run, components.data, components.model, predictions, result.metrics, reporter)


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
        extraction.components.record_precision(),
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
    bottom, num_below = compute_axis_bottom(trials)
    neighbor_axes.set_ylim(bottom=bottom)
    neighbor_axes.set_ylabel("validation accuracy")
    title += f" ({num_below} of {len(trials)} settings are below the axis)" * (num_below > 0)
    for axes, label in ((neighbor_axes, "neighbors k"), (strength_axes, "C: regularization is weaker to the right")):
        _style_axes(axes, label)
    _style_axes(head_axes, "learning rate")
    figure.suptitle(format_label(title, 100), x=0.01, ha="left", fontsize=11)
    save_figure(figure, file)


def compute_axis_bottom(trials: Sequence[ProbeTrial]) -> tuple[float, int]:
    """Return the lowest accuracy to show and the number of trials below it.

    The axis reaches half as far below the worst method's median as the best trial lies above it: a few settings that
    learn nothing would press all others together.
    """
    methods = {trial.method for trial in trials}
    medians = [statistics.median(trial.accuracy for trial in trials if trial.method == method) for method in methods]
    best = max(trial.accuracy for trial in trials)
    bottom = max(0.0, min(medians) - 0.5 * (best - min(medians)) - 0.01)
    return bottom, sum(trial.accuracy < bottom for trial in trials)


def _draw_lines(axes: Axes, trials: Iterable[ProbeTrial], key: str, winner: ProbeTrial) -> None:
    trials_by_method: dict[str, list[ProbeTrial]] = {}
    for trial in trials:
        trials_by_method.setdefault(trial.method, []).append(trial)
    for color, (method, method_trials) in zip(PALETTE, trials_by_method.items(), strict=False):
        values, accuracies = zip(*((trial.setting[key], trial.accuracy) for trial in method_trials), strict=True)
        axes.plot(values, accuracies, color=color, marker="o", markersize=3, label=method)
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
        color, label = PALETTE[index % len(PALETTE)], f"weight decay {decay:g}"
        axes.plot(rates, means, "o-", color=color, markersize=3, label=label)
        axes.fill_between(rates, lows, highs, color=color, alpha=0.12, linewidth=0)
    if winner.method == LINEAR_HEAD_METHOD:
        _mark_winner(axes, winner.setting["learning rate"], winner)
    axes.set_xscale("log")


def _mark_winner(axes: Axes, x: float, winner: ProbeTrial) -> None:
    axes.plot(x, winner.accuracy, "o", color=HIGHLIGHT_COLOR, markersize=8, fillstyle="none", label="chosen")


def _style_axes(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
