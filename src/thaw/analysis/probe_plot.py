"""The picture of a probe: validation accuracy by method and setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thaw.analysis.plots import TRAIN
from thaw.features.trial import HEAD, NEIGHBOURS, Trial

CHOSEN = "#c22020"


def save_probe(trials: Sequence[Trial], winner: Trial, title: str, file: Path) -> None:
    """Three pictures on one scale: k-NN by k; what has an inverse regularisation strength C by it, what has no setting
    as a level; linear heads by learning rate, a line a weight decay, the mean over seeds within their range. `winner`
    is marked."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    near, strengths, heads = figure.subplots(1, 3, sharey=True)
    _lines(near, [one for one in trials if one.method == NEIGHBOURS], "k", winner)
    _lines(strengths, [one for one in trials if "C" in one.setting], "C", winner)
    for one in (one for one in trials if not one.setting):
        _level(strengths, one, winner)
    _heads(heads, [one for one in trials if one.method == HEAD], winner)
    near.set_ylabel("validation accuracy")
    for axes, label in ((near, "neighbours k"), (strengths, "C: regularisation is weaker to the right")):
        _framed(axes, label)
    _framed(heads, "learning rate")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.savefig(file, dpi=110)


def _lines(axes: Axes, trials: Iterable[Trial], key: str, winner: Trial) -> None:
    by_method: dict[str, list[Trial]] = {}
    for one in trials:
        by_method.setdefault(one.method, []).append(one)
    for method, members in by_method.items():
        places = [one.setting[key] for one in members]
        axes.plot(places, [one.accuracy for one in members], marker="o", markersize=3, label=method)
        if winner.method == method:
            _mark(axes, winner.setting[key], winner)
    axes.set_xscale("log")


def _level(axes: Axes, trial: Trial, winner: Trial) -> None:
    axes.axhline(trial.accuracy, color=TRAIN, linewidth=1, label=trial.method)
    if trial is winner:
        _mark(axes, axes.get_xlim()[0], winner)


def _heads(axes: Axes, trials: Sequence[Trial], winner: Trial) -> None:
    decays = sorted({one.setting["weight decay"] for one in trials})
    for number, decay in enumerate(decays):
        members = [one for one in trials if one.setting["weight decay"] == decay]
        rates = sorted({one.setting["learning rate"] for one in members})
        found = [[one.accuracy for one in members if one.setting["learning rate"] == rate] for rate in rates]
        colour = f"C{number}"
        label = f"weight decay {decay:g}"
        axes.plot(rates, [sum(each) / len(each) for each in found], "o-", color=colour, markersize=3, label=label)
        axes.fill_between(rates, list(map(min, found)), list(map(max, found)), color=colour, alpha=0.12, linewidth=0)
    if winner.method == HEAD:
        _mark(axes, winner.setting["learning rate"], winner)
    axes.set_xscale("log")


def _mark(axes: Axes, place: float, winner: Trial) -> None:
    axes.plot(place, winner.accuracy, "o", color=CHOSEN, markersize=8, fillstyle="none", label="chosen")


def _framed(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
