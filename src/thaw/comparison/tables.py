"""A comparison as rows: of text for people, of numbers for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thaw.comparison.compared import Comparison
from thaw.comparison.configurations import Configuration
from thaw.comparison.significance import Over


@dataclass(frozen=True)
class Cell:
    """`order` sorts where the text would not."""

    text: str
    order: float | str


def headings(comparison: Comparison) -> list[str]:
    several = ["difference", "p"] if len(comparison.configurations) > 1 else []
    return [
        *comparison.keys,
        *("seeds", "test accuracy", "95 % interval", "val accuracy"),
        *several,
        *("seconds", "images/s", "trainable"),
    ]


def cells(comparison: Comparison, one: Configuration) -> list[Cell]:
    """In the order of `headings`; a star marks what speaks of images, not seeds."""
    spread = one.accuracy
    return [
        *(Cell(value, _number_or_text(value)) for value in one.values),
        Cell(str(len(one.runs)), len(one.runs)),
        Cell(accuracy_text(one), spread.mean),
        Cell(f"{spread.low:.3f} to {spread.high:.3f}{_star(spread.over)}", spread.low),
        _number(one.mean("val", "accuracy"), ".3f"),
        *(_test_cells(one) if len(comparison.configurations) > 1 else []),
        _number(seconds := one.median("wall_s"), ".1f" if seconds < 100 else ",.0f"),
        _number(one.median("images_per_s") or math.nan, ",.0f"),
        _number(one.trainable, ","),
    ]


def accuracy_text(one: Configuration) -> str:
    spread = one.accuracy
    return f"{spread.mean:.3f}" + (f" ± {spread.deviation:.3f}" if len(one.runs) > 1 else "")


def _test_cells(one: Configuration) -> list[Cell]:
    if one.is_reference:
        return [Cell("reference", 0.0), Cell("", 2.0)]
    if one.test is None:
        return [Cell("not tested", math.nan), Cell("-", math.nan)]
    p = one.test.adjusted
    text = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [_number(one.test.difference, "+.3f"), Cell(f"{text}{_star(one.test.over)}", p)]


def _star(over: Over) -> str:
    return "*" if over == "images" else ""


def _number(value: float, form: str) -> Cell:
    return Cell("-", math.nan) if math.isnan(value) else Cell(f"{value:{form}}", value)


def _number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def as_csv(comparison: Comparison) -> str:
    """A row a configuration, numbers in full; empty where there is none. `interval_over` and `p_over` say what kind of
    chance they speak of; `p_adjusted` is Holm's."""
    rows = [_numbers(comparison.keys, one) for one in comparison.configurations]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if _is_nan(value) else value for key, value in row.items()} for row in rows)
    return text.getvalue()


def _numbers(keys: Sequence[str], one: Configuration) -> dict[str, object]:
    spread, test = one.accuracy, one.test
    return {
        **dict(zip(keys, one.values, strict=True)),
        "seeds": " ".join(map(str, one.seeds)),
        "test_accuracy": spread.mean,
        "test_accuracy_sd": spread.deviation,
        "test_accuracy_low": spread.low,
        "test_accuracy_high": spread.high,
        "interval_over": spread.over,
        **{f"{split}_{metric}": one.mean(split, metric) for split, metric in _MEANS},
        "is_reference": one.is_reference,
        "difference": test.difference if test else "",
        "p": test.p if test else "",
        "p_adjusted": test.adjusted if test else "",
        "p_over": test.over if test else "",
        "shared_seeds": test.seeds if test else "",
        **{name: one.median(name) for name in ("wall_s", "train_s", "cache_s", "images_per_s")},
        "trainable_parameters": one.trainable,
        "runs": " ".join(run.directory.name for run in one.runs),
    }


_MEANS = (
    *(("test", "macro_accuracy"), ("test", "macro_f1"), ("test", "loss")),
    *(("val", "accuracy"), ("val", "loss")),
)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def as_markdown(comparison: Comparison, pictures: Mapping[str, str]) -> str:
    """`pictures`: file by what it shows."""
    names = headings(comparison)
    numbers = len(names) - len(comparison.keys)
    rows = [[cell.text for cell in cells(comparison, one)] for one in comparison.configurations]
    lines = [f"# Comparison: {comparison.subject}", ""]
    lines += [f"> **Caution.** {_escaped(one)}\n" for one in comparison.caveats]
    lines += [_line(names), _line(["---"] * len(comparison.keys) + ["---:"] * numbers)]
    lines += [*map(_line, rows), "", *(f"- {_escaped(one)}" for one in comparison.notes), ""]
    lines += [f"![{title}]({file})" for title, file in pictures.items()]
    if comparison.unfinished:
        lines += ["", "## Not done", ""]
        lines += [f"- `{one.name}`: {one.status}. {_escaped(one.reason)}" for one in comparison.unfinished]
    return "\n".join(lines) + "\n"


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, texts))} |"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
