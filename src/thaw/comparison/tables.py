"""A comparison as rows: of text for people, of numbers for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thaw.comparison.comparison import Comparison
from thaw.comparison.configurations import Configuration
from thaw.comparison.settings import shorten_keys
from thaw.comparison.significance import SamplingUnit


@dataclass(frozen=True)
class Cell:
    """`order` sorts where the text would not."""

    text: str
    sort_key: float | str


def build_headings(comparison: Comparison) -> list[str]:
    test_headings = ["difference", "p"] if len(comparison.configurations) > 1 else []
    return [
        *comparison.keys,
        *("seeds", "test accuracy", "95 % interval", "val accuracy"),
        *test_headings,
        *("seconds", "images/s", "trainable"),
    ]


def build_cells(comparison: Comparison, configuration: Configuration) -> list[Cell]:
    """In the order of `headings`; a star marks what speaks of images, not seeds."""
    estimate = configuration.test_accuracy
    return [
        *(Cell(value, _parse_number_or_text(value)) for value in configuration.values),
        Cell(str(len(configuration.runs)), len(configuration.runs)),
        Cell(format_accuracy(configuration), estimate.mean),
        Cell(
            f"{estimate.low:.3f} to {estimate.high:.3f}{_format_sampling_marker(estimate.sampling_unit)}", estimate.low
        ),
        _build_number_cell(configuration.compute_mean("val", "accuracy"), ".3f"),
        *(_build_test_cells(configuration) if len(comparison.configurations) > 1 else []),
        _build_number_cell(seconds := configuration.compute_median("wall_s"), ".1f" if seconds < 100 else ",.0f"),
        _build_number_cell(configuration.compute_median("images_per_s") or math.nan, ",.0f"),
        _build_number_cell(configuration.num_trainable_parameters, ","),
    ]


def format_accuracy(configuration: Configuration) -> str:
    estimate = configuration.test_accuracy
    return f"{estimate.mean:.3f}" + (f" ± {estimate.std:.3f}" if len(configuration.runs) > 1 else "")


def _build_test_cells(configuration: Configuration) -> list[Cell]:
    if configuration.is_reference:
        return [Cell("reference", 0.0), Cell("", 2.0)]
    if configuration.paired_test is None:
        return [Cell("not tested", math.nan), Cell("-", math.nan)]
    p_value = configuration.paired_test.adjusted_p_value
    text = "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
    return [
        _build_number_cell(configuration.paired_test.difference, "+.3f"),
        Cell(f"{text}{_format_sampling_marker(configuration.paired_test.sampling_unit)}", p_value),
    ]


def _format_sampling_marker(sampling_unit: SamplingUnit) -> str:
    return "*" if sampling_unit == "images" else ""


def _build_number_cell(value: float, format_spec: str) -> Cell:
    return Cell("-", math.nan) if math.isnan(value) else Cell(f"{value:{format_spec}}", value)


def _parse_number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def format_csv(comparison: Comparison) -> str:
    """A row a configuration, numbers in full; empty where there is none. `interval_over` and `p_over` say what kind of
    chance they speak of; `p_adjusted` is Holm's."""
    rows = [_build_csv_row(comparison.keys, configuration) for configuration in comparison.configurations]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if _is_nan(value) else value for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _build_csv_row(keys: Sequence[str], configuration: Configuration) -> dict[str, object]:
    estimate, paired_test = configuration.test_accuracy, configuration.paired_test
    return {
        **dict(zip(keys, configuration.values, strict=True)),
        "seeds": " ".join(map(str, configuration.seeds)),
        "test_accuracy": estimate.mean,
        "test_accuracy_sd": estimate.std,
        "test_accuracy_low": estimate.low,
        "test_accuracy_high": estimate.high,
        "interval_over": estimate.sampling_unit,
        **{f"{split}_{metric}": configuration.compute_mean(split, metric) for split, metric in _MEAN_METRICS},
        "is_reference": configuration.is_reference,
        "difference": paired_test.difference if paired_test else "",
        "p": paired_test.p_value if paired_test else "",
        "p_adjusted": paired_test.adjusted_p_value if paired_test else "",
        "p_over": paired_test.sampling_unit if paired_test else "",
        "shared_seeds": paired_test.num_seeds if paired_test else "",
        **{name: configuration.compute_median(name) for name in ("wall_s", "train_s", "cache_s", "images_per_s")},
        "trainable_parameters": configuration.num_trainable_parameters,
        "runs": " ".join(run.directory.name for run in configuration.runs),
    }


_MEAN_METRICS = (
    *(("test", "macro_accuracy"), ("test", "macro_f1"), ("test", "loss")),
    *(("val", "accuracy"), ("val", "loss")),
)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def format_markdown(comparison: Comparison, pictures: Mapping[str, str]) -> str:
    """`pictures`: file by what it shows."""
    column_headings = build_headings(comparison)
    num_numeric_columns = len(column_headings) - len(comparison.keys)
    rows = [[cell.text for cell in build_cells(comparison, item)] for item in comparison.configurations]
    lines = [f"# Comparison: {comparison.subject}", ""]
    lines += [f"> **Caution.** {_escape_markdown(item)}\n" for item in comparison.caveats]
    lines += [
        _format_table_row(column_headings),
        _format_table_row(["---"] * len(comparison.keys) + ["---:"] * num_numeric_columns),
    ]
    lines += [*map(_format_table_row, rows), "", *(f"- {_escape_markdown(item)}" for item in comparison.notes), ""]
    lines += [f"![{title}]({file})" for title, file in pictures.items()]
    if comparison.unfinished_runs:
        lines += ["", "## Not done", ""]
        lines += [
            f"- `{item.name}`: {item.status}. {_escape_markdown(item.reason)}" for item in comparison.unfinished_runs
        ]
    return "\n".join(lines) + "\n"


def _format_table_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape_markdown, texts))} |"


def _escape_markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


DEFAULT_WIDTH = 160  # columns where there is no terminal
OPTIONAL_COLUMNS = ("images/s", "trainable", "seconds", "val accuracy", "95 % interval")  # on a narrow one


def print_comparison(comparison: Comparison) -> None:
    """The table, what to beware of, what is not done, and where the page lies."""
    console = Console(highlight=False, markup=False, width=None if Console().is_terminal else DEFAULT_WIDTH)
    table, hidden_columns = _build_fitting_table(console, comparison)
    console.print(Text(f"\n{comparison.subject}", style="bold"))
    console.print(table)
    console.print()
    for caveat in comparison.caveats:
        console.print(Text("caution: ", style="yellow").append(caveat, style="default"))
    for run in comparison.unfinished_runs:
        console.print(Text(f"{run.status}: ", style="red").append(f"{run.name}: {run.reason}", style="default"))
    for note in comparison.notes:
        console.print(Text(note, style="dim"))
    hidden_note = f", with {', '.join(hidden_columns)}" if hidden_columns else ""
    console.print(Text(f"everything is in {comparison.page_path}{hidden_note}"), soft_wrap=True)


def _build_fitting_table(console: Console, comparison: Comparison) -> tuple[Table, list[str]]:
    """The table without as many columns as there is no room for, and their headings."""
    for num_hidden in range(len(OPTIONAL_COLUMNS)):
        table = _build_table(comparison, OPTIONAL_COLUMNS[:num_hidden])
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            return table, list(OPTIONAL_COLUMNS[:num_hidden])
    return _build_table(comparison, OPTIONAL_COLUMNS), list(OPTIONAL_COLUMNS)


def _build_table(comparison: Comparison, hidden_columns: Collection[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    setting_names = shorten_keys([tuple(key.split(".")) for key in comparison.keys])
    titles = [*setting_names, *build_headings(comparison)[len(setting_names) :]]
    visible_indices = [
        index for index, title in enumerate(titles) if index < len(setting_names) or title not in hidden_columns
    ]
    for index in visible_indices:
        is_setting = index < len(setting_names)
        table.add_column(
            titles[index], justify="left" if is_setting else "right", overflow="fold", no_wrap=not is_setting
        )
    for configuration in comparison.configurations:
        row = build_cells(comparison, configuration)
        table.add_row(
            *(Text(row[index].text) for index in visible_indices), style="bold" if configuration.is_reference else None
        )
    return table
