"""The result of a probe, as Python code and notebooks use it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from thaw.probing.trial import ProbeTrial, select_most_accurate
from thaw.runs.run import Run
from thaw.system.tables import build_data_frame

BEST_COLUMNS = ("classifier", "best setting", "tried", "val accuracy", "val loss", "remark")


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
        return [(select_most_accurate(trials), len(trials)) for trials in trials_by_method.values()]

    def to_frame(self) -> Any:
        """Return one row per trial: method, setting, val_accuracy, val_loss, seconds, can_be_a_head, chosen, remark. A
        pandas data frame if pandas is installed, otherwise a list of dicts."""
        rows = [
            {
                "method": trial.method,
                "setting": trial.format_setting(),
                "val_accuracy": trial.accuracy,
                "val_loss": trial.loss,
                "seconds": trial.seconds,
                "can_be_a_head": trial.linear is not None,
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
        loss = "" if trial.linear is None else f"{trial.loss:.3f}"
        remark = "; ".join(filter(None, ["chosen" if trial is self.winner else "", trial.remark]))
        return [trial.method, trial.format_setting(), str(num_trials), f"{trial.accuracy:.3f}", loss, remark]


def _render_row(cells: list[str], is_bold: bool) -> str:
    tags = ("<b>", "</b>") if is_bold else ("", "")
    return "<tr>" + "".join(f"<td>{tags[0]}{html.escape(cell)}{tags[1]}</td>" for cell in cells) + "</tr>"
