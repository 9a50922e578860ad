"""Plot the validation accuracy of a probe's trials by method and setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thaw.probing.trial import KNN_METHOD, LINEAR_HEAD_METHOD, ProbeTrial
from thaw.visualization.plots.training import TRAIN_COLOR

WINNER_COLOR = "#c22020"


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
