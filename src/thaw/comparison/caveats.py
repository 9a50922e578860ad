"""What stands in the way of comparing: other images, other budgets, other machines, missing runs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from thaw.comparison.configurations import Configuration
from thaw.comparison.runs import Record
from thaw.config.faults import listing

MOST_NAMED = 4
Of = Callable[[Record], Hashable]


def caveats(
    configurations: Sequence[Configuration],
    unfinished: Sequence[Record],
    superseded: Sequence[Record],
    judged_on: str,
) -> Iterator[str]:
    """A sentence or two each, the gravest first. `judged_on` is the split that the reference was chosen on."""
    yield from _of_data(configurations)
    yield from _of_budget(configurations)
    yield from _of_runs(configurations, unfinished, superseded)
    if judged_on == "test":
        yield (
            "Not all runs have validation images, so the reference is the best on the test images: its accuracy is "
            "too high by what choosing it gains, and so are the differences to it."
        )
    yield from _of_times(configurations)


def _of_data(configurations: Sequence[Configuration]) -> Iterator[str]:
    """Images are compared between runs of one seed, as a seed may cut its own."""
    checks: list[tuple[str, Of]] = [
        ("Classes differ: {}. These are different problems.", lambda run: run.predictions.classes),
        ("Test images differ: {}. Their accuracies are not comparable, and no test is made between them.", _test_set),
        (
            "Train or validation images differ (data fingerprints of the same seed): {}. "
            "A difference may come from the images alone.",
            lambda run: run.about["data"]["fingerprint"],
        ),
    ]
    for sentence, of in checks:
        if found := _by_seed(configurations, of):
            yield sentence.format(found)
            return  # what is graver includes the rest


def _test_set(run: Record) -> Hashable:
    return run.predictions.identity


def _by_seed(configurations: Sequence[Configuration], of: Of) -> str:
    """Of the first seed whose runs differ: who goes with whom. Empty where no seed's do."""
    for seed in sorted({seed for one in configurations for seed in one.seeds}):
        runs = {one.label: run for one in configurations for run in one.runs if run.seed == seed}
        groups = _grouped({label: of(run) for label, run in runs.items()})
        if len(groups) > 1:
            return _told([names for _, names in groups])
    return ""


def _grouped(values: Mapping[str, Hashable]) -> list[tuple[Hashable, list[str]]]:
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for label, value in values.items():
        groups[value].append(label)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _told(groups: Sequence[Sequence[str]]) -> str:
    return " against ".join(f"[{listing(names, MOST_NAMED)}]" for names in groups)


def _of_budget(configurations: Sequence[Configuration]) -> Iterator[str]:
    measures: list[tuple[str, Of]] = [
        ("Epochs", _epochs),
        ("Train images", lambda run: run.about["data"]["images"]["train"]),
    ]
    for name, of in measures:
        values = {one.label: of(one.runs[0]) for one in configurations if not one.runs[0].is_probe}
        groups = _grouped(values)
        if len(groups) > 1:
            told = "; ".join(f"{value} in [{listing(names, MOST_NAMED)}]" for value, names in groups)
            yield f"{name} differ: {told}. More of them alone may explain a difference."
    probes = [one.label for one in configurations if one.runs[0].is_probe]
    if probes and len(probes) < len(configurations):
        yield (
            f"Probes beside trainings: [{listing(probes, MOST_NAMED)}]. A probe tries many classifiers and keeps "
            "the best on validation images; a training is one try."
        )


def _epochs(run: Record) -> int:
    """As planned, so that stopping early is no other budget."""
    return int(run.about["plan"][-1]["end"])


def _of_runs(
    configurations: Sequence[Configuration], unfinished: Sequence[Record], superseded: Sequence[Record]
) -> Iterator[str]:
    if unfinished:
        counts = Counter(run.status for run in unfinished)
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        yield f"Runs that are not done, and count for nothing here: {told}. They are listed below."
    everyone = {seed for one in configurations for seed in one.seeds}
    lacking = {one.label: sorted(everyone - set(one.seeds)) for one in configurations}
    if told := "; ".join(f"{label} lacks {_seeds(seeds)}" for label, seeds in lacking.items() if seeds):
        yield f"Seeds are missing: {told}. Means are over other seeds; tests are over shared ones."
    if superseded:
        yield (
            "A seed of the same configuration is repeated, which adds nothing, and the run started last counts: left "
            f"out are {listing([run.directory.name for run in superseded], MOST_NAMED)}."
        )
    if len(everyone) == 1:
        yield "One seed: how much another seed would change is not known. Intervals and tests speak of the test images."


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {listing(map(str, seeds), MOST_NAMED)}"


def _of_times(configurations: Sequence[Configuration]) -> Iterator[str]:
    runs = [run for one in configurations for run in one.runs]
    if len({json.dumps([run.about.get("hardware"), *_hands(run)], sort_keys=True) for run in runs}) > 1:
        yield "Hardware, threads or workers differ: times are not comparable."
    versions = {json.dumps([run.about.get("versions"), _revision(run)], sort_keys=True) for run in runs}
    if len(versions) > 1:
        yield f"Versions differ: {_differing_versions(runs)}. Times are not comparable, and results may differ for it."
    resumed = [run.directory.name for run in runs if run.about.get("resumed")]
    if resumed:
        yield f"Times of resumed runs are those since they went on: {listing(resumed, MOST_NAMED)}."


def _hands(run: Record) -> list[object]:
    trainer = run.recipe.get("trainer", {})
    return [trainer.get("threads"), trainer.get("workers")]


def _revision(run: Record) -> object:
    return run.about.get("git")


def _differing_versions(runs: Sequence[Record]) -> str:
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, version in (run.about.get("versions") or {}).items():
            found[name].add(version)
        found["thaw's commit"].add(str((_revision(run) or {}).get("commit", "unknown"))[:10])  # type: ignore[attr-defined]
    differing = [f"{name} {', '.join(sorted(versions))}" for name, versions in found.items() if len(versions) > 1]
    return "; ".join(differing) or "thaw with and without changes since its commit"
