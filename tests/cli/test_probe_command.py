"""`thaw probe`, as a user types it, and the run that it leaves."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY, run_thaw
from tests.data.official import make_dog_breeds_files, write_files
from tests.images import write_image_folder
from thaw.config.compose import compose_recipe
from thaw.inference.load import load_checkpoint
from thaw.training.extraction import Extraction, extract_features

SMALL = tuple(override for override in TINY if not override.startswith("trainer.epochs"))
GRID = ("heads.learning_rates=1e-3,1e-2", "heads.weight_decays=0,0.1", "heads.seeds=2", "heads.epochs=3")
NO_VAL = ("dataset.splits.val=null", "dataset.fractions.val=0")
FOLDER = ("dataset=folder", "dataset.image_size=32", *SMALL[6:], *GRID)


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def probe_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run, and what was said."""
    run = tmp_path_factory.mktemp("outputs") / "run"
    with pytest.MonkeyPatch.context() as patch, (run.parent / "said").open("w") as output:
        patch.setattr(sys, "stdout", output)
        assert run_thaw(patch, "probe", *SMALL, *GRID, f"out={run}") == 0
    return run, (run.parent / "said").read_text()


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("head=mlp",), ("head=mlp", "leave it out")),
        (("head.dropout=0.5",), ("head.dropout=0.5", "leave it out")),
        (("strategy=finetune",), ("features are frozen",)),
        (("optimizer.learning_rate=1e-3",), ("has its own", "leave it out")),
        (("scheduler=cosine",), ("scheduler=cosine",)),
        (("augment=flip",), ("does not augment",)),
        (("trainer.epochs=9",), ("--head-epochs 9",)),
        (("trainer.averaging.kind=ema",), ("trainer.averaging.kind=ema",)),
        (("trainer.devices=2",), ("one device",)),
        (("trainer=ddp",), ("one process",)),
        (("trainer.num_nodes=2",), ("one process",)),
        (("experiment=captcha",), ("experiment=captcha",)),
        (("resume=outputs/run",), ("resume=outputs/run",)),
        (("hydra.run.dir=mine",), ("hydra.run.dir=mine",)),
        (("heads.learning_rate=1e-3",), ("heads.learning_rates=1e-3",)),
        (("heads.epochs",), ("heads.epochs=VALUE",)),
        (("heads.learning_rates=1e-3,0",), ("above 0",)),
        (("heads.learning_rates=fast",), ("above 0",)),
        (("heads.weight_decays=-1",), ("at least 0",)),
        (("heads.seeds=0",), ("at least 1",)),
        (("heads.epochs=1.5",), ("whole number",)),
        (("dataset.val=0",), ("dataset.val=10",)),
        (("dataset=folder", "dataset.root=.", *NO_VAL), ("dataset.fractions.val=0.15",)),
        (("-m", "seed=0,1"), ("one recipe",)),
        (("datset=captcha",), ("dataset=captcha",)),
        (("head=mlp", "strategy=finetune", "heads.seeds=x"), ("head=mlp", "strategy=finetune", "heads.seeds=x")),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_fix(
    arguments: tuple[str, ...],
    messages: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_thaw(monkeypatch, "probe", *arguments) == 2
    output = capsys.readouterr().err
    assert [text for text in messages if text not in output] == []


def test_missing_validation_folders_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_image_folder(tmp_path / "data", {"train": 3, "test": 2}, ("ants", "bees"))
    overrides = ("dataset.splits.val=val", "dataset.fractions.val=0", f"output_dir={tmp_path}")
    assert run_thaw(monkeypatch, "probe", *FOLDER, f"dataset.root={root}", *overrides) == 2
    output = capsys.readouterr().err
    assert "6 train, 0 val, 4 test" in output
    assert "dataset.fractions.val=0.15" in output


def test_the_run_directory_is_complete(probe_run: tuple[Path, str]) -> None:
    run, _ = probe_run
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {name for name in names if "tfevents" not in name} == {
        *(
            "config.yaml",
            "run.json",
            "metrics.json",
            "probe.csv",
            "predictions.csv",
            "report.html",
            "checkpoints/best.ckpt",
        ),
        *("plots/probe.png", "plots/confusion_matrix.png", "plots/samples.jpg", "plots/worst.jpg"),
    }
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done"
    assert record["data"]["images"] == {"train": 36, "val": 16, "test": 20}
    assert record["parameters"]["trainable"] == 1280 * 4 + 4
    with Image.open(run / "plots" / "probe.png") as picture:
        assert min(picture.size) > 300


def test_the_table_has_all_trials_and_the_rule_chooses(probe_run: tuple[Path, str]) -> None:
    run, output = probe_run
    rows = read_rows(run / "probe.csv")
    methods = ["nearest centroid", "k-NN", "logistic regression", "linear SVM", "linear head"]
    assert list(dict.fromkeys(row["method"] for row in rows)) == methods
    assert [text for text in methods if f"\n{text} " not in output] == []
    assert sum(row["method"] == "linear head" for row in rows) == 2 * 2 * 2
    candidates = [row for row in rows if row["can_be_chosen"] == "yes"]
    assert {row["method"] for row in candidates} == {"logistic regression", "linear head"}
    assert [row for row in rows if row["val_loss"]] == candidates
    losses_by_setting: dict[tuple[str, str], list[float]] = {}
    for row in candidates:
        setting = (row["method"], row["setting"].partition(", seed")[0])
        losses_by_setting.setdefault(setting, []).append(float(row["val_loss"]))
    (best,) = [row for row in rows if row["chosen"] == "yes"]
    lowest = min(losses_by_setting, key=lambda setting: float(np.mean(losses_by_setting[setting])))
    assert (best["method"], best["setting"].partition(", seed")[0]) == lowest
    assert best["setting"].endswith(", seed 0") == (best["method"] == "linear head")
    assert f"chosen on 16 validation images: {best['method']}, {best['setting']}\n" in output


@pytest.mark.parametrize("method", ["nearest centroid", "k-NN", "linear SVM"])
def test_classifiers_without_probabilities_have_the_remark(probe_run: tuple[Path, str], method: str) -> None:
    (line,) = [line for line in probe_run[1].splitlines() if line.startswith(f"{method} ")]
    assert "no probabilities" in line


def test_only_the_chosen_classifier_is_tested(probe_run: tuple[Path, str]) -> None:
    run, output = probe_run
    metrics = json.loads((run / "metrics.json").read_text())
    rows = read_rows(run / "predictions.csv")
    (best,) = [row for row in read_rows(run / "probe.csv") if row["chosen"] == "yes"]
    assert metrics["test"]["accuracy"] == sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    assert metrics["val"]["accuracy"] == pytest.approx(float(best["val_accuracy"]))
    assert metrics["val"]["loss"] == pytest.approx(float(best["val_loss"]), rel=1e-3)
    low, high = metrics["test"]["accuracy_ci95"]
    assert f"test accuracy {metrics['test']['accuracy']:.3f}   95 % interval {low:.3f} to {high:.3f}" in output
    assert output.count("test accuracy") == 1


def test_the_loaded_network_predicts_what_the_probe_predicted_from_features(
    probe_run: tuple[Path, str],
) -> None:
    run, _ = probe_run
    classifier, extraction = load_checkpoint(run), extract_features(compose_recipe([*SMALL, "strategy=fixed"]))
    positions = extraction.samples.get_positions("test")
    images = extraction.images.__getitems__([(-1, int(place)) for place in positions]).images
    best = classifier.predict_proba(images).max(1)
    rows = read_rows(run / "predictions.csv")
    assert [classifier.classes[index] for index in best.indices] == [row["prediction"] for row in rows]
    assert best.values.tolist() == pytest.approx([float(row["probability"]) for row in rows], abs=1e-3)
    assert len({row["prediction"] for row in rows}) > 1


def test_test_images_do_not_affect_the_choice(
    probe_run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With features of the test images that are all wrong, the same is chosen and the same weights are kept."""
    from thaw.probing import probe as probing

    def extract_spoiled_features(*arguments: Any, **options: Any) -> Extraction:
        extraction = extract_features(*arguments, **options)
        extraction.values[extraction.samples.get_positions("test")] = 1e3
        return extraction

    monkeypatch.setattr(probing, "extract_features", extract_spoiled_features)
    assert run_thaw(monkeypatch, "probe", *SMALL, *GRID, f"out={tmp_path / 'run'}") == 0
    runs = (probe_run[0], tmp_path / "run")
    weights, other_weights = (torch.load(run / "checkpoints/best.ckpt")["state_dict"] for run in runs)
    assert all(torch.equal(value, other_weights[name]) for name, value in weights.items())


def test_an_existing_run_is_not_overwritten(
    probe_run: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = probe_run
    before = (run / "run.json").read_text()
    assert run_thaw(monkeypatch, "probe", *SMALL, *GRID, f"out={run}") == 2
    assert "run directory is taken" in capsys.readouterr().err
    assert (run / "run.json").read_text() == before


def test_a_probe_of_dog_breeds_can_be_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_files(tmp_path / "dogs", make_dog_breeds_files(unlabelled=3))
    overrides = ("dataset=dog_breeds", f"dataset.root={root}", "dataset.image_size=32", *SMALL[6:], *GRID)
    assert run_thaw(monkeypatch, "probe", *overrides, f"out={tmp_path / 'run'}") == 0
    assert run_thaw(monkeypatch, "submit", str(tmp_path / "run"), f"out={tmp_path / 'mine.csv'}") == 0
    rows = read_rows(tmp_path / "mine.csv")
    assert len(rows) == 3
    assert np.allclose([sum(float(value) for key, value in row.items() if key != "id") for row in rows], 1, atol=1e-4)
