"""`thaw evaluate`: the numbers of a run from its checkpoint alone, and what stands behind them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from tests.conftest import TINY, get_only_run, run_thaw
from tests.images import write_image_folder
from thaw.cli.train import launch

FILES = ["confusion_matrix.png", "metrics.json", "per_class.csv", "predictions.csv", "reliability.png", "worst.jpg"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A fine-tuned network, one on features that were kept, and one beside it on images: for an epoch none are."""
    recipes = {
        "finetune": ["strategy=finetune"],
        "images": ["strategy=fixed", "trainer.epochs=1"],
        "fixed": ["strategy=fixed"],
    }
    outputs = {name: tmp_path_factory.mktemp(name) for name in recipes}
    for name, folder in outputs.items():
        assert launch([*TINY, *recipes[name], f"output_dir={folder}"]) == 0
    return {name: get_only_run(folder) for name, folder in outputs.items()}


def read_metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


@pytest.mark.parametrize("name", ["finetune", "images", "fixed"])
def test_a_checkpoint_alone_gives_exactly_the_numbers_of_its_run(
    name: str, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(runs[name] / "checkpoints" / "best.ckpt", "best.ckpt")
    assert run_thaw(monkeypatch, "evaluate", "best.ckpt", "out=evaluation") == 0
    recorded_metrics, metrics = read_metrics(runs[name]), read_metrics(tmp_path / "evaluation")
    for split in ("val", "test"):
        assert {key: metrics[split][key] for key in recorded_metrics[split]} == recorded_metrics[split]
        assert {"ece_ci95"} == metrics[split].keys() - recorded_metrics[split].keys()
    assert sorted(path.name for path in (tmp_path / "evaluation").iterdir()) == FILES
    assert (tmp_path / "evaluation" / "predictions.csv").read_text() == (runs[name] / "predictions.csv").read_text()


def test_without_cached_features_the_numbers_differ_only_by_rounding(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        run_thaw(
            monkeypatch, "evaluate", str(runs["fixed"]), "feature_cache.mode=off", f"out={tmp_path / 'evaluation'}"
        )
        == 0
    )
    recorded_metrics, metrics = read_metrics(runs["fixed"])["test"], read_metrics(tmp_path / "evaluation")["test"]
    assert metrics["accuracy"] == recorded_metrics["accuracy"]
    assert metrics["loss"] == pytest.approx(recorded_metrics["loss"], rel=1e-4)


def test_written_metrics_agree_with_scikit_learn_and_with_the_run(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "evaluate", str(runs["finetune"]), f"out={tmp_path}") == 0
    output = capsys.readouterr().out
    assert "compared with the run's own metrics.json: the same numbers" in output
    assert "test: most confused" in output
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (tmp_path / "per_class.csv").open(newline="") as stream:
        class_rows = list(csv.DictReader(stream))
    expected = precision_recall_fscore_support(
        [row["label"] for row in rows], [row["prediction"] for row in rows], labels=list("ABCD"), zero_division=0
    )
    for index, row in enumerate(class_rows):
        assert row["class"] == "ABCD"[index]
        numbers = [float(row[name]) for name in ("precision", "recall", "f1", "count")]
        assert numbers == pytest.approx([float(values[index]) for values in expected], abs=1e-5)
        assert float(row["recall_low"]) <= float(row["recall"]) <= float(row["recall_high"])
    assert Image.open(tmp_path / "worst.jpg").size[0] > 8 * 176


def test_another_data_set_of_the_same_classes_is_evaluated(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_image_folder(tmp_path / "own", {"train": 2, "test": 1}, classes=tuple("ABCD"))
    overrides = ["dataset=folder", f"dataset.root={root}", "split=all"]
    assert run_thaw(monkeypatch, "evaluate", str(runs["finetune"]), *overrides) == 0
    assert "all, 12 images" in capsys.readouterr().out


def test_a_preset_of_the_user_names_the_data(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_image_folder(tmp_path / "own", {"train": 2, "test": 1}, classes=tuple("ABCD"))
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    preset = f"defaults: [folder]\nname: own\nroot: {root}\n"
    (tmp_path / "mine" / "dataset" / "own.yaml").write_text(preset)
    arguments = ["dataset=own", "split=all", "--config-dir", str(tmp_path / "mine")]
    assert run_thaw(monkeypatch, "evaluate", str(runs["finetune"]), *arguments) == 0
    assert "all, 12 images" in capsys.readouterr().out


def test_data_of_other_classes_are_rejected_with_both_lists(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_image_folder(tmp_path / "own", {"train": 2, "test": 1}, classes=("A", "bees"))
    assert run_thaw(monkeypatch, "evaluate", str(runs["finetune"]), "dataset=folder", f"dataset.root={root}") == 2
    message = capsys.readouterr().err
    assert "unknown to the network: bees" in message
    assert "not in the data set: B, C, D" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datset.side=32", "fix:   dataset.side=32"),
        ("dataset.sid=32", "fix:   dataset.side=32"),
        ("dataset.side=small", "valid: integer"),
        ("optimizer.name=adam", "no effect on a trained model"),
        ("dataset=captch", "fix:   dataset=captcha"),
        ("split=tst", "fix:   split=test"),
        ("dataset.side", "a key without a value"),
        ("--config-dr=mine", "fix:   --config-dir=mine"),
    ],
)
def test_wrong_overrides_end_with_2_and_show_the_fix(
    override: str,
    message: str,
    runs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_thaw(monkeypatch, "evaluate", str(runs["finetune"]), override) == 2
    assert message in capsys.readouterr().err
