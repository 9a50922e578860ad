"""What a comparison says of runs: who is the reference, what is tested, what is not comparable."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.comparison.records import HARDWARE, rights, write_failed, write_run
from thaw.comparison.comparison import Comparison, build_comparison, extract_reason
from thaw.comparison.records import find_runs, read_runs
from thaw.config.errors import UserError

SCRATCH, FIXED, FINETUNE = "strategy=scratch", "strategy=fixed", "strategy=finetune"


def comparison_of(folder: Path) -> Comparison:
    return build_comparison(read_runs(find_runs([folder])), folder)


def labels(comparison: Comparison) -> list[str]:
    return [one.label for one in comparison.configurations]


def test_a_row_a_configuration_ordered_by_test_accuracy_the_reference_best_on_validation(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", FIXED, seed=seed, right=rights(40, range(8 + seed)), val=0.95)
        write_run(tmp_path / f"b{seed}", FINETUNE, seed=seed, right=rights(40, range(4 + seed % 2)), val=0.9)
        write_run(tmp_path / f"c{seed}", SCRATCH, seed=seed, right=rights(40, range(30)), val=0.4)
    found = comparison_of(tmp_path)
    assert (found.keys, labels(found)) == (("strategy",), ["finetune", "fixed", "scratch"])
    assert found.reference.label == "fixed"
    finetune, fixed, scratch = found.configurations
    assert fixed.paired_test is None
    assert finetune.paired_test is not None
    assert scratch.paired_test is not None
    assert finetune.seeds == [0, 1, 2]
    assert (finetune.paired_test.sampling_unit, finetune.paired_test.difference) == (
        "seeds",
        pytest.approx((4 + 4 + 6) / 3 / 40),
    )
    assert finetune.paired_test.adjusted_p_value == pytest.approx(
        max(finetune.paired_test.p_value, 2 * scratch.paired_test.p_value)
    )
    assert found.caveats == ()
    assert any("test images choose nothing" in note for note in found.notes)


def test_without_validation_images_the_reference_is_the_best_on_test_and_that_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", FIXED, val=None, right=rights(20, [1]))
    write_run(tmp_path / "b", SCRATCH, right=rights(20, range(9)))
    found = comparison_of(tmp_path)
    assert found.reference.label == "fixed"
    assert any("best on the test images" in one for one in found.caveats)
    assert any("One seed" in one for one in found.caveats)


@pytest.mark.parametrize(
    ("paths", "about", "said"),
    [
        ([f"other/{place}" for place in range(20)], {}, "Test images differ: [fixed] against [scratch]"),
        (None, {"data": {"fingerprint": "other", "images": {"train": 40}}}, "Train or validation images differ"),
        (
            None,
            {"data": {"fingerprint": "of seed 0", "images": {"train": 9}}},
            "Train images differ: 40 in [fixed]; 9 in",
        ),
        (None, {"plan": [{"start": 0, "end": 50}]}, "Epochs differ: 4 in [fixed]; 50 in [scratch]"),
        (None, {"hardware": {**HARDWARE, "cores": 64}}, "Hardware, threads or workers differ"),
        (None, {"versions": {"torch": "2.6.0"}}, "Versions differ: torch 2.15.0, 2.6.0"),
        (None, {"git": {"commit": "fedcba98765432", "changed": False}}, "thaw's commit 0123456789, fedcba9876"),
        (None, {"resumed": ["later"]}, "Times of resumed runs are those since they went on: b"),
        (None, {"probe": {}}, "Probes beside trainings"),
        (None, {"seed": 1}, "Seeds are missing: fixed lacks seed 1; scratch lacks seed 0"),
    ],
)
def test_what_is_not_comparable_is_said(paths: list[str] | None, about: dict, said: str, tmp_path: Path) -> None:
    write_run(tmp_path / "a", FIXED)
    write_run(tmp_path / "b", SCRATCH, paths=paths, about=about)
    found = comparison_of(tmp_path)
    assert [one for one in found.caveats if said in one]
    tested = [one.paired_test is not None for one in found.configurations]
    assert tested.count(True) == ("Test images" not in said and "Seeds" not in said)


def test_other_hands_are_said_though_they_make_no_configuration(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "trainer.threads=1")
    write_run(tmp_path / "b", "trainer.threads=2", seed=1)
    found = comparison_of(tmp_path)
    assert labels(found) == ["all runs"]
    assert [one for one in found.caveats if "threads" in one]


def test_images_that_each_seed_cuts_are_compared_within_a_seed(tmp_path: Path) -> None:
    for name, strategy in (("a", FIXED), ("b", SCRATCH)):
        for seed in (0, 1):
            paths = [f"cut by {seed}/{place}" for place in range(20)]
            write_run(tmp_path / f"{name}{seed}", strategy, seed=seed, paths=paths)
    found = comparison_of(tmp_path)
    assert found.caveats == ()
    assert [one.paired_test.num_seeds for one in found.configurations if one.paired_test] == [2]


def test_a_repeated_seed_adds_no_seed(tmp_path: Path) -> None:
    for name, wrong in (("a", 9), ("b", 1)):
        write_run(tmp_path / name, right=rights(20, range(wrong)))
    found = comparison_of(tmp_path)
    assert found.configurations[0].test_accuracy.mean == 0.95
    assert any("left out are a" in one for one in found.caveats)


def test_runs_that_are_not_done_are_listed_with_their_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "a", FIXED)
    write_run(tmp_path / "b", FINETUNE, about={"status": "interrupted"})
    write_run(tmp_path / "c", SCRATCH, about={"status": "running"})
    write_failed(tmp_path / "d", 'Traceback:\n  File "x"\n    here\nRuntimeError: no room\nfor this tensor\n')
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "run.json").write_text("{")
    found = comparison_of(tmp_path)
    assert labels(found) == ["fixed"]
    told = {one.name: (one.status, one.label, one.reason) for one in found.unfinished_runs}
    assert told["b"] == ("interrupted", "finetune", f"can be continued: python train.py resume={tmp_path / 'b'}")
    assert told["c"][:2] == ("running", "scratch")
    assert told["d"] == ("failed", "", "RuntimeError: no room")
    assert told["e"][0] == "unreadable"
    (caveat,) = [one for one in found.caveats if "not done" in one]
    assert all(word in caveat for word in ("1 interrupted", "1 running", "1 failed", "1 unreadable"))


def test_the_reason_of_a_message_of_ours_is_how_it_begins() -> None:
    fault = UserError("no GPU.", [])
    assert extract_reason(str(fault)) == "no GPU."
    assert extract_reason("the disk is full.\n  outputs/a\n      fix:   free some\n") == "the disk is full. outputs/a"
    assert extract_reason("") == ""


def test_where_no_run_is_done_each_is_named_with_its_reason(tmp_path: Path) -> None:
    write_failed(tmp_path / "a", "no GPU.")
    with pytest.raises(UserError, match=r"no run is done(.|\n)*a\n      got:   failed: no GPU."):
        comparison_of(tmp_path)
