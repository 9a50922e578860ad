"""The results of a comparison: the reference, what is tested, what limits it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.comparison.records import HARDWARE, build_correct, write_failed_run, write_run
from thaw.comparison.comparison import build_comparison
from thaw.comparison.records import extract_reason
from thaw.comparison.results import ComparisonResults
from thaw.config.errors import UserError

SCRATCH, FIXED, FINETUNE = "strategy=scratch", "strategy=fixed", "strategy=finetune"
DATA = {"fingerprint": "of seed 0", "classes": 2, "images": {"train": 40}}
PHASE = {"name": "all", "start": 0, "end": 4, "parts": []}


def compare_runs(directory: Path) -> ComparisonResults:
    return build_comparison(directory).results


def get_labels(results: ComparisonResults) -> list[str]:
    return [configuration.label for configuration in results.configurations]


def test_rows_are_sorted_by_test_accuracy_and_the_reference_is_best_on_validation(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(
            tmp_path / f"a{seed}", FIXED, seed=seed, correct=build_correct(40, range(8 + seed)), val_accuracy=0.95
        )
        correct = build_correct(40, range(4 + seed % 2))
        write_run(tmp_path / f"b{seed}", FINETUNE, seed=seed, correct=correct, val_accuracy=0.9)
        write_run(tmp_path / f"c{seed}", SCRATCH, seed=seed, correct=build_correct(40, range(30)), val_accuracy=0.4)
    results = compare_runs(tmp_path)
    assert (results.keys, get_labels(results)) == (("strategy",), ["finetune", "fixed", "scratch"])
    assert results.reference.label == "fixed"
    finetune, fixed, scratch = results.configurations
    assert fixed.paired_test is None
    assert finetune.paired_test is not None
    assert scratch.paired_test is not None
    assert finetune.seeds == [0, 1, 2]
    assert finetune.paired_test.sampling_unit == "seeds"
    assert finetune.paired_test.difference == pytest.approx((4 + 4 + 6) / 3 / 40)
    p_value = max(finetune.paired_test.p_value, 2 * scratch.paired_test.p_value)
    assert finetune.paired_test.adjusted_p_value == pytest.approx(p_value)
    assert results.caveats == ()
    assert any("test images choose nothing" in note for note in results.notes)


def test_without_validation_images_the_reference_is_best_on_test_and_a_caveat_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "a", FIXED, val_accuracy=None, correct=build_correct(20, [1]))
    write_run(tmp_path / "b", SCRATCH, correct=build_correct(20, range(9)))
    results = compare_runs(tmp_path)
    assert results.reference.label == "fixed"
    assert any("best on the test images" in caveat for caveat in results.caveats)
    assert any("There is one seed" in caveat for caveat in results.caveats)


@pytest.mark.parametrize(
    ("paths", "record", "caveat_start"),
    [
        ([f"other/{index}" for index in range(20)], {}, "Test images differ: [fixed] against [scratch]"),
        (
            None,
            {"data": {**DATA, "fingerprint": "other"}},
            "Train or validation images differ",
        ),
        (
            None,
            {"data": {**DATA, "images": {"train": 9}}},
            "Train images differ: 40 in [fixed]; 9 in",
        ),
        (
            None,
            {"plan": [{**PHASE, "end": 50}]},
            "Epochs differ: 4 in [fixed]; 50 in [scratch]",
        ),
        (None, {"hardware": {**HARDWARE, "cores": 64}}, "Hardware, threads or workers differ"),
        (None, {"versions": {"torch": "2.6.0"}}, "Versions differ: torch 2.15.0, 2.6.0"),
        (None, {"git": {"commit": "fedcba98765432", "changed": False}}, "thaw's commit 0123456789, fedcba9876"),
        (None, {"resumed": ["later"]}, "The times of resumed runs are counted since they were resumed: b"),
        (None, {"probe": {"method": "k-NN"}}, "Probes are compared with trainings"),
        (None, {"seed": 1}, "Runs are missing: fixed lacks seed 1; scratch lacks seed 0"),
    ],
)
def test_a_caveat_names_what_is_not_comparable(
    paths: list[str] | None, record: dict, caveat_start: str, tmp_path: Path
) -> None:
    write_run(tmp_path / "a", FIXED)
    write_run(tmp_path / "b", SCRATCH, paths=paths, record=record)
    results = compare_runs(tmp_path)
    assert [caveat for caveat in results.caveats if caveat_start in caveat]
    num_tests = sum(configuration.paired_test is not None for configuration in results.configurations)
    assert num_tests == ("Test images" not in caveat_start and "Runs" not in caveat_start)


def test_runs_with_other_threads_are_one_configuration_with_a_caveat(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "trainer.threads=1")
    write_run(tmp_path / "b", "trainer.threads=2", seed=1)
    results = compare_runs(tmp_path)
    assert get_labels(results) == ["finetune"]
    assert [caveat for caveat in results.caveats if "threads" in caveat]


def test_images_are_compared_within_a_seed(tmp_path: Path) -> None:
    for name, strategy in (("a", FIXED), ("b", SCRATCH)):
        for seed in (0, 1):
            paths = [f"split by {seed}/{index}" for index in range(20)]
            write_run(tmp_path / f"{name}{seed}", strategy, seed=seed, paths=paths)
    results = compare_runs(tmp_path)
    assert results.caveats == ()
    paired_tests = [configuration.paired_test for configuration in results.configurations]
    assert [paired_test.sample.num_splits for paired_test in paired_tests if paired_test] == [2]


def test_a_repeated_seed_adds_no_seed(tmp_path: Path) -> None:
    for name, num_wrong in (("a", 9), ("b", 1)):
        write_run(tmp_path / name, correct=build_correct(20, range(num_wrong)))
    results = compare_runs(tmp_path)
    assert results.configurations[0].test_accuracy.mean == 0.95
    assert any("these are left out: a" in caveat for caveat in results.caveats)


def test_runs_that_are_not_done_are_listed_with_their_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "a", FIXED)
    write_run(tmp_path / "b", FINETUNE, record={"status": "interrupted"})
    write_run(tmp_path / "c", SCRATCH, record={"status": "running"})
    write_failed_run(tmp_path / "d", 'Traceback:\n  File "x"\n    here\nRuntimeError: no room\nfor this tensor\n')
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "run.json").write_text("{")
    (write_run(tmp_path / "f") / "metrics.json").unlink()
    results = compare_runs(tmp_path)
    assert get_labels(results) == ["fixed"]
    unfinished_runs = {run.name: (run.status, run.label, run.reason) for run in results.unfinished_runs}
    fix = f"can be continued: python train.py resume={tmp_path / 'b'}"
    assert unfinished_runs["b"] == ("interrupted", "finetune", fix)
    assert unfinished_runs["c"][:2] == ("running", "scratch")
    assert unfinished_runs["d"] == ("failed", "", "RuntimeError: no room")
    assert unfinished_runs["e"][0] == "damaged"
    assert unfinished_runs["e"][2].startswith("run.json: it is cut off: Expecting")
    assert unfinished_runs["f"] == (
        "damaged",
        "",
        f"metrics.json: no such file; `thaw resume {tmp_path / 'f'}` computes it again",
    )
    (caveat,) = [caveat for caveat in results.caveats if "not done" in caveat]
    assert all(words in caveat for words in ("1 interrupted", "1 running", "1 failed", "2 damaged"))


def test_the_reason_of_a_message_of_thaw_is_its_first_two_lines() -> None:
    assert extract_reason(str(UserError("no GPU.", []))) == "no GPU."
    assert extract_reason("the disk is full.\n  outputs/a\n      fix:   free some\n") == "the disk is full. outputs/a"
    assert extract_reason("") == ""


def test_if_no_run_is_done_each_is_named_with_its_reason(tmp_path: Path) -> None:
    write_failed_run(tmp_path / "a", "no GPU.")
    with pytest.raises(UserError, match=r"no run is done(.|\n)*a\n      got:   failed: no GPU."):
        compare_runs(tmp_path)
