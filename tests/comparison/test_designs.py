"""Comparisons of runs on the same test images, on resampled ones, on folds, on groups and on corrected data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.comparison.records import build_correct, write_run
from thaw.comparison.comparison import Comparison, build_comparison

HYMENOPTERA = "dataset=hymenoptera"
FIXED, SCRATCH = "strategy=fixed", "strategy=scratch"
STRATEGIES = {FIXED: 4, SCRATCH: 8}  # strategy -> wrong predictions of 40
NUM_IMAGES = 40


def name_images(numbers: Sequence[int]) -> list[str]:
    return [f"{number:03}.png" for number in numbers]


def write_strategies(folder: Path, name: str, numbers: Sequence[int], *overrides: str, **settings: Any) -> None:
    """Write a run of each strategy that is tested on the images `numbers`."""
    for strategy, num_wrong in STRATEGIES.items():
        seed = settings.get("seed", 0)
        num_wrong += seed * (strategy == SCRATCH)  # the difference varies over seeds
        wrong = np.random.default_rng((num_wrong, seed, numbers[0])).permutation(len(numbers))[:num_wrong]
        correct, paths = build_correct(len(numbers), wrong), name_images(numbers)
        directory = folder / f"{strategy.partition('=')[2]}_{name}"
        write_run(directory, HYMENOPTERA, strategy, *overrides, correct=correct, paths=paths, **settings)


def get_text(comparison: Comparison) -> str:
    return " ".join([*comparison.verdicts, *comparison.caveats, *comparison.notes])


def test_two_seeds_with_one_split_seed_and_with_two_have_other_captions_and_tests(tmp_path: Path) -> None:
    for seed in range(3):
        write_strategies(tmp_path / "same", str(seed), range(NUM_IMAGES), seed=seed)
        numbers = range(20 * seed, 20 * seed + NUM_IMAGES)
        write_strategies(tmp_path / "resampled", str(seed), numbers, f"dataset.split_seed={seed}", seed=seed)
    same, resampled = (build_comparison(tmp_path / name) for name in ("same", "resampled"))
    for comparison, method in ((same, "seeds"), (resampled, "splits")):
        (test,) = [row.paired_test for row in comparison.results.configurations if row.paired_test]
        assert test.method == method
        assert comparison.results.keys == ("strategy",)
        assert {len(row.runs) for row in comparison.results.configurations} == {3}
    assert "paired t-test over the shared seeds, because all runs have the same test images" in get_text(same)
    assert "3 seeds)" in same.verdicts[0]
    assert "corrected resampled t-test over the splits (Nadeau and Bengio 2003)" in get_text(resampled)
    assert "Test images differ between the runs of a configuration, because dataset.split_seed does" in get_text(
        resampled
    )
    assert "3 splits)" in resampled.verdicts[0]
    assert "seeds  splits" in repr(resampled)


def test_folds_are_pooled_and_a_missing_fold_is_named(tmp_path: Path) -> None:
    for fold in range(3):
        numbers = range(NUM_IMAGES * fold, NUM_IMAGES * (fold + 1))
        write_strategies(tmp_path, str(fold), numbers, "folds=3", f"fold={fold}")
    comparison = build_comparison(tmp_path)
    fixed, scratch = comparison.results.configurations
    assert (fixed.design, fixed.test_accuracy.mean) == ("folds", pytest.approx(1 - 12 / 120))
    assert scratch.paired_test is not None
    assert scratch.paired_test.method == "pooled images"
    assert scratch.paired_test.sample.num_images == 120
    assert "Each image is tested once, by the run whose fold it is in" in get_text(comparison)
    assert "each predicted by the fold not trained on it" in get_text(comparison)
    assert "120 images, 3 folds" in comparison.verdicts[0]
    assert "3 folds" in repr(comparison)
    assert comparison.results.keys == ("strategy",)
    for directory in tmp_path.glob("scratch_2"):
        (directory / "run.json").unlink()
    (caveat,) = [caveat for caveat in build_comparison(tmp_path).caveats if "Folds are missing" in caveat]
    assert caveat.startswith("Folds are missing: scratch lacks 2 of 3.")


def test_a_group_is_one_unit_of_intervals_and_tests(tmp_path: Path) -> None:
    groups = [f"patient {number // 4}" for number in range(NUM_IMAGES)]
    write_strategies(tmp_path, "a", range(NUM_IMAGES), groups=groups)
    comparison = build_comparison(tmp_path)
    fixed, scratch = comparison.results.configurations
    assert fixed.test_accuracy.sampling_unit == "groups"
    assert scratch.paired_test is not None
    assert (scratch.paired_test.method, scratch.paired_test.sample.num_groups) == ("groups", 10)
    assert "sign-flip test over the groups of test images" in get_text(comparison)
    assert "40 images in 10 groups" in comparison.verdicts[0]


def test_a_random_split_that_flatters_is_shown_beside_the_grouped_one(tmp_path: Path) -> None:
    groups = [f"patient {number // 4}" for number in range(NUM_IMAGES)]
    random, grouped = build_correct(NUM_IMAGES, [3]), build_correct(NUM_IMAGES, range(20))
    numbers, others = name_images(range(NUM_IMAGES)), name_images(range(100, 100 + NUM_IMAGES))
    write_run(tmp_path / "random", HYMENOPTERA, correct=random, paths=numbers)
    pattern = "dataset.group_pattern='patient (\\d+)'"
    write_run(tmp_path / "grouped", HYMENOPTERA, pattern, correct=grouped, paths=others, groups=groups)
    comparison = build_comparison(tmp_path)
    assert comparison.caveats[0].startswith("The random split flatters by 0.475 (95 % interval +0.1")
    assert (
        "0.975 with a random split, 0.500 where no group is in two splits (10 groups are tested)"
        in (comparison.caveats[0])
    )


def test_runs_with_and_without_corrections_are_paired_on_common_test_images(tmp_path: Path) -> None:
    (tmp_path / "wrong.csv").write_text("path\n")
    excluded = {"excluded": {"count": 5, "sha256": "a" * 64}, "relabeled": None}
    data = {"fingerprint": "x", "classes": 2, "images": {"train": 38, "val": 10, "test": 38}}
    write_run(tmp_path / "all", HYMENOPTERA, correct=build_correct(40, [0, 1]), paths=name_images(range(40)))
    write_run(
        tmp_path / "corrected",
        HYMENOPTERA,
        f"data.exclude={tmp_path / 'wrong.csv'}",
        correct=build_correct(38, [7]),
        paths=name_images(range(2, 40)),
        record={"data": data | excluded},
    )
    comparison = build_comparison(tmp_path)
    (test,) = [row.paired_test for row in comparison.results.configurations if row.paired_test]
    assert (test.sample.num_images, abs(test.difference)) == (38, pytest.approx(1 / 38))
    (caveat,) = [caveat for caveat in comparison.caveats if caveat.startswith("The images differ")]
    assert "5 images left out by data.exclude in [" in caveat
    assert "2 test images that not all have are left out of the tests" in caveat


def test_runs_of_version_0_2_drew_the_test_images_by_seed(tmp_path: Path) -> None:
    """Their recipes have no split_seed: it is the seed, so that another seed is another split."""
    for seed in range(3):
        write_strategies(tmp_path, str(seed), range(20 * seed, 20 * seed + NUM_IMAGES), seed=seed)
    for file in tmp_path.rglob("config.yaml"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if "split_seed" not in line))
    comparison = build_comparison(tmp_path)
    assert {row.design for row in comparison.results.configurations} == {"resamples"}
    replicates = {run.replicate for row in comparison.results.configurations for run in row.runs}
    assert {(replicate.seed, replicate.split_seed) for replicate in replicates} == {(0, 0), (1, 1), (2, 2)}


def test_folds_are_one_comparison_even_if_a_fold_lacks_a_class(tmp_path: Path) -> None:
    for fold in range(3):
        paths = name_images(range(NUM_IMAGES * fold, NUM_IMAGES * (fold + 1)))
        correct = build_correct(NUM_IMAGES)
        write_run(tmp_path / str(fold), HYMENOPTERA, "folds=3", f"fold={fold}", correct=correct, paths=paths)
    file = tmp_path / "1" / "predictions.csv"
    file.write_text(file.read_text().replace("bees", "ants"))
    comparison = build_comparison(tmp_path)
    assert len(comparison.groups) == 1
    assert len(comparison.results.configurations[0].runs) == 3


def test_missing_folds_are_those_of_each_seed(tmp_path: Path) -> None:
    for seed, fold in ((0, 0), (0, 1), (1, 0)):
        numbers = range(NUM_IMAGES * fold, NUM_IMAGES * (fold + 1))
        write_strategies(tmp_path, f"{seed}{fold}", numbers, "folds=2", f"fold={fold}", seed=seed)
    (caveat,) = [caveat for caveat in build_comparison(tmp_path).caveats if caveat.startswith("Folds are missing")]
    assert caveat.startswith("Folds are missing: seed 1 of fixed lacks 1 of 2; seed 1 of scratch lacks 1 of 2.")


def test_mixed_designs_are_said_and_only_common_test_images_are_tested(tmp_path: Path) -> None:
    for seed in range(3):
        correct = build_correct(NUM_IMAGES, range(4 + seed))
        write_run(tmp_path / f"same{seed}", FIXED, seed=seed, correct=correct, paths=name_images(range(NUM_IMAGES)))
        paths = name_images(range(20 * seed, 20 * seed + NUM_IMAGES))
        overrides = SCRATCH, f"dataset.split_seed={seed}"
        write_run(tmp_path / f"other{seed}", *overrides, seed=seed, correct=correct, paths=paths)
    comparison = build_comparison(tmp_path)
    (caveat,) = [caveat for caveat in comparison.caveats if caveat.startswith("Designs are mixed")]
    assert "one set of test images in [fixed]" in caveat
    assert "several, overlapping sets of test images in [scratch]" in caveat
    (test,) = [row.paired_test for row in comparison.results.configurations if row.paired_test]
    assert (test.method, test.sample.num_seeds) == ("images", 1)


def test_fixed_and_resampled_splits_show_how_much_seeds_and_how_much_splits_change(tmp_path: Path) -> None:
    for seed, split_seed, num_wrong in ((0, 0, 4), (1, 0, 6), (1, 1, 12), (2, 2, 2)):
        paths = name_images(range(20 * split_seed, 20 * split_seed + NUM_IMAGES))
        correct, override = build_correct(NUM_IMAGES, range(num_wrong)), f"dataset.split_seed={split_seed}"
        write_run(tmp_path / f"{seed}{split_seed}", override, seed=seed, correct=correct, paths=paths)
    (note,) = [note for note in build_comparison(tmp_path).notes if "spread by" in note]
    over_seeds, over_splits = np.std([4, 6], ddof=1) / NUM_IMAGES, np.std([5, 12, 2], ddof=1) / NUM_IMAGES
    assert f"±{over_seeds:.3f} over seeds of one split and by ±{over_splits:.3f} over splits" in note


def test_random_and_grouped_folds_are_compared_image_by_image(tmp_path: Path) -> None:
    rng, num_images = np.random.default_rng(0), 120
    groups = np.array([f"patient {number // 6}" for number in range(num_images)])
    wrong = {
        "random": rng.random(num_images) < 0.1,
        "grouped": np.isin(groups, groups[rng.permutation(num_images)[:8]]),
    }
    for name, is_wrong in wrong.items():
        pattern = ["dataset.group_pattern='(patient)'"] if name == "grouped" else []
        order = rng.permutation(num_images) if name == "random" else np.arange(num_images)
        for fold in range(3):
            part = np.sort(order[fold * 40 : fold * 40 + 40])
            settings = {"groups": groups[part]} if pattern else {}
            paths = name_images(part)
            overrides = HYMENOPTERA, "folds=3", f"fold={fold}", *pattern
            write_run(tmp_path / f"{name}{fold}", *overrides, correct=~is_wrong[part], paths=paths, **settings)
    difference = wrong["grouped"].astype(float) - wrong["random"]
    by_group = difference.reshape(20, 6).mean(1)
    half_width = stats.t.ppf(0.975, 19) * by_group.std(ddof=1) / np.sqrt(20)
    caveat = build_comparison(tmp_path).caveats[0]
    interval = f"{by_group.mean() - half_width:+.3f} to {by_group.mean() + half_width:+.3f}"
    assert caveat.startswith(f"The random split flatters by {by_group.mean():.3f} (95 % interval {interval}, both test")
