"""The table of a comparison: as text for people, as numbers for programs."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thaw.comparison.configurations import Configuration
from thaw.comparison.metric_table import METRIC_TITLES, build_metric_table, estimate_metric
from thaw.comparison.needed import estimate_needed_sample
from thaw.comparison.results import ComparisonResults
from thaw.comparison.settings import shorten_keys
from thaw.comparison.significance import PairedTest, SamplingUnit
from thaw.config.errors import format_names
from thaw.system.csv_files import format_rows
from thaw.system.reporter import Reporter

MAX_LISTED_RUNS = 4  # that are not done
DEFAULT_WIDTH = 160  # columns if there is no terminal
OPTIONAL_COLUMNS = ("images/s", "trainable", "seconds", "val accuracy", "95 % interval")  # dropped if it is narrow


@dataclass(frozen=True)
class Cell:
    """A cell of the table. `sort_key` sorts the rows of a page; the text would not."""

    text: str
    sort_key: float | str


def build_headings(comparison: ComparisonResults) -> list[str]:
    """Return the column headings: the differing keys, then the numbers."""
    test_headings = ["difference", "p"] if len(comparison.configurations) > 1 else []
    return [
        *comparison.keys,
        *("seeds", *(["splits"] if _has_splits(comparison) else [])),
        *("test accuracy", "95 % interval", "val accuracy"),
        *test_headings,
        *("seconds", "images/s", "trainable"),
    ]


def build_cells(comparison: ComparisonResults, configuration: Configuration) -> list[Cell]:
    """Return the cells of a row in the order of the headings. A star marks statistics over images or groups."""
    estimate = configuration.test_accuracy
    return [
        *(Cell(value, _parse_number_or_text(value)) for value in configuration.values),
        Cell(str(len(configuration.seeds)), len(configuration.seeds)),
        *([Cell(_format_splits(configuration), configuration.num_splits)] if _has_splits(comparison) else []),
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
    """Return the mean test accuracy, with the standard deviation over runs if there are several."""
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
    return "*" if sampling_unit in ("images", "groups") else ""


def _has_splits(comparison: ComparisonResults) -> bool:
    return any(configuration.num_splits > 1 for configuration in comparison.configurations)


def _format_splits(configuration: Configuration) -> str:
    return f"{configuration.num_splits} folds" if configuration.design == "folds" else str(configuration.num_splits)


def _build_number_cell(value: float, format_spec: str) -> Cell:
    return Cell("-", math.nan) if math.isnan(value) else Cell(f"{value:{format_spec}}", value)


def _parse_number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def format_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Return `rows` as CSV; missing numbers are empty."""
    return format_rows([rows[0], *(["" if _is_nan(value) else value for value in row.values()] for row in rows)])


def join_rows(
    groups: Sequence[ComparisonResults], build_rows: Callable[[ComparisonResults], list[dict[str, object]]]
) -> list[dict[str, object]]:
    """Return the rows of all data sets, each with all columns. If there are several, the first column names them."""
    if len(groups) == 1:
        return build_rows(groups[0])
    rows: list[dict[str, object]] = [{"dataset": group.dataset, **row} for group in groups for row in build_rows(group)]
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column, "") for column in columns} for row in rows]


def build_configuration_rows(comparison: ComparisonResults) -> list[dict[str, object]]:
    """Return one row per configuration with its numbers in full. `interval_over` and `p_over` are the sampling units
    (`seeds`, `splits`, `images` or `groups`); `p_adjusted` is corrected by Holm's method, as `p_equivalent` is."""
    return [_build_configuration_row(comparison.keys, configuration) for configuration in comparison.configurations]


def _build_configuration_row(keys: Sequence[str], configuration: Configuration) -> dict[str, object]:
    estimate, paired_test = configuration.test_accuracy, configuration.paired_test
    return {
        **dict(zip(keys, configuration.values, strict=True)),
        "seeds": " ".join(map(str, configuration.seeds)),
        "splits": configuration.num_splits,
        "design": configuration.design,
        "test_accuracy": estimate.mean,
        "test_accuracy_sd": estimate.std,
        "test_accuracy_low": estimate.low,
        "test_accuracy_high": estimate.high,
        "interval_over": estimate.sampling_unit,
        **_build_metric_entries(configuration),
        **{f"{split}_{metric}": configuration.compute_mean(split, metric) for split, metric in _MEAN_METRICS},
        "is_reference": configuration.is_reference,
        **_build_test_entries(paired_test),
        **{name: configuration.compute_median(name) for name in _TIMES},
        "trainable_parameters": configuration.num_trainable_parameters,
        "runs": " ".join(run.name for run in configuration.runs),
    }


def _build_metric_entries(configuration: Configuration) -> dict[str, object]:
    entries: dict[str, object] = {}
    for metric in METRIC_TITLES:
        estimate = estimate_metric(configuration, metric)
        entries |= {f"test_{metric}": estimate.mean}
        entries |= {f"test_{metric}_low": estimate.low, f"test_{metric}_high": estimate.high}
    return entries


def _build_test_entries(paired_test: PairedTest | None) -> dict[str, object]:
    """Return the numbers of a test; empty texts without one."""
    if paired_test is None:
        return dict.fromkeys(_TEST_COLUMNS, "")
    needed = estimate_needed_sample(paired_test)
    values = [
        *(paired_test.difference, paired_test.low, paired_test.high),
        *(paired_test.p_value, paired_test.adjusted_p_value, paired_test.adjusted_equivalence_p_value),
        *(paired_test.sampling_unit, paired_test.method, paired_test.sample.num_seeds, paired_test.sample.num_images),
        needed.describe() if needed else "",
    ]
    return dict(zip(_TEST_COLUMNS, values, strict=True))


_TEST_COLUMNS = (
    *("difference", "difference_low", "difference_high", "p", "p_adjusted", "p_equivalent", "p_over", "method"),
    *("shared_seeds", "shared_images", "would_decide"),
)
_TIMES = ("wall_s", "train_s", "cache_s", "images_per_s")
_MEAN_METRICS = (("test", "loss"), ("val", "accuracy"), ("val", "loss"))
_RUN_METRICS = (("test", "accuracy"), *(("test", metric) for metric in METRIC_TITLES), *_MEAN_METRICS)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def build_run_rows(comparison: ComparisonResults) -> list[dict[str, object]]:
    """Return one row per run: done ones with their numbers, then those that are not done with their reason."""
    done_rows: list[dict[str, object]] = [
        {
            "run": run.name,
            "configuration": configuration.label,
            "status": run.status,
            "seed": run.seed,
            "split_seed": "" if run.replicate.split_seed is None else run.replicate.split_seed,
            "fold": "" if run.replicate.fold is None else run.replicate.fold,
            **{f"{split}_{metric}": run.get_score(split, metric) for split, metric in _RUN_METRICS},
            **{name: run.get_score("timing", name) for name in _TIMES},
            "reason": "",
            "directory": str(run.directory),
        }
        for configuration in comparison.configurations
        for run in configuration.runs
    ]
    missing_values: dict[str, object] = dict.fromkeys(done_rows[0])
    unfinished_rows = [
        {
            **missing_values,
            **{"run": run.name, "configuration": run.label, "status": run.status, "reason": run.reason},
            "directory": str(run.directory),
        }
        for run in comparison.unfinished_runs
    ]
    return [*done_rows, *unfinished_rows]


def build_class_rows(comparison: ComparisonResults) -> list[dict[str, object]]:
    """Return one row per configuration and class: the fraction of its test images that are predicted correctly, and the
    difference to the reference (None if the reference does not have the class)."""
    reference_accuracies = comparison.reference.class_accuracies
    return [
        {
            "configuration": configuration.label,
            "class": name,
            "accuracy": accuracy,
            "difference": accuracy - reference_accuracies[name] if name in reference_accuracies else None,
        }
        for configuration in comparison.configurations
        for name, accuracy in configuration.class_accuracies.items()
    ]


def format_markdown(comparison: ComparisonResults, figures: Mapping[str, str]) -> str:
    """Return the comparison as Markdown. `figures` are paths of images by title."""
    headings = build_headings(comparison)
    num_keys = len(comparison.keys)
    rows = [[cell.text for cell in build_cells(comparison, row)] for row in comparison.configurations]
    lines = [f"# Comparison: {comparison.subject}", "", f"{_escape_markdown(comparison.verdict)}\n"]
    lines += [f"> **Caution.** {_escape_markdown(caveat)}\n" for caveat in comparison.caveats]
    lines += [
        _format_table_row(headings),
        _format_table_row(["---"] * num_keys + ["---:"] * (len(headings) - num_keys)),
    ]
    lines += [*map(_format_table_row, rows), "", *(f"- {_escape_markdown(note)}" for note in comparison.notes), ""]
    lines += _format_metric_table(comparison)
    lines += [f"![{title}]({file})" for title, file in figures.items()]
    if comparison.unfinished_runs:
        lines += ["", "## Not done", ""]
        lines += [f"- `{run.name}`: {run.status}. {_escape_markdown(run.reason)}" for run in comparison.unfinished_runs]
    return "\n".join(lines) + "\n"


def _format_metric_table(comparison: ComparisonResults) -> list[str]:
    table = build_metric_table(comparison.configurations)
    if table is None:
        return []
    labelled_rows = zip((row.label for row in comparison.configurations), table.rows, strict=True)
    return [
        "## More metrics of the test images",
        "",
        _format_table_row(["", *table.titles]),
        _format_table_row(["---", *("---:" for _ in table.titles)]),
        *(_format_table_row([label, *(cell.format() for cell in row)]) for label, row in labelled_rows),
        "",
        f"{_escape_markdown(table.note)}\n",
    ]


def _format_table_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape_markdown, texts))} |"


def _escape_markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def report_comparison(groups: Sequence[ComparisonResults], page_path: Path, reporter: Reporter) -> None:
    """Show for each data set the verdict, table, caveats, runs that are not done and notes; then the path of the
    page."""

    def print_all(console: Console) -> None:
        hidden_columns = dict.fromkeys(column for group in groups for column in _print_comparison(group, console))
        hidden_note = f", with {', '.join(hidden_columns)}" if hidden_columns else ""
        console.print(Text(f"everything is in {page_path}{hidden_note}"), soft_wrap=True)

    reporter.draw(print_all)


def format_text(groups: Sequence[ComparisonResults]) -> str:
    """Return what `report_comparison` shows, but for the path, as plain text."""
    console = Console(file=io.StringIO(), highlight=False, markup=False, width=DEFAULT_WIDTH, no_color=True)
    with console.capture() as capture:
        for group in groups:
            _print_comparison(group, console)
    return capture.get().strip("\n")


def _print_comparison(comparison: ComparisonResults, console: Console) -> list[str]:
    """Print to `console` and return the headings of the columns that it is too narrow for."""
    table, hidden_columns = _build_fitting_table(console, comparison)
    console.print(Text(f"\n{comparison.subject}", style="bold"))
    console.print(Text(comparison.verdict))
    console.print()
    console.print(table)
    console.print()
    for caveat in comparison.caveats:
        console.print(Text("caution: ", style="yellow").append(caveat, style="default"))
    if comparison.unfinished_runs:
        texts = [f"{run.name}: {run.status}: {run.reason}" for run in comparison.unfinished_runs]
        console.print(Text("left out: ", style="red").append(format_names(texts, MAX_LISTED_RUNS), style="default"))
    for note in comparison.notes:
        console.print(Text(note, style="dim"))
    return hidden_columns


def _build_fitting_table(console: Console, comparison: ComparisonResults) -> tuple[Table, list[str]]:
    """Return the table without the optional columns that do not fit, and the headings of those."""
    for num_hidden in range(len(OPTIONAL_COLUMNS)):
        table = _build_table(comparison, OPTIONAL_COLUMNS[:num_hidden])
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            return table, list(OPTIONAL_COLUMNS[:num_hidden])
    return _build_table(comparison, OPTIONAL_COLUMNS), list(OPTIONAL_COLUMNS)


def _build_table(comparison: ComparisonResults, hidden_columns: Collection[str]) -> Table:
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
