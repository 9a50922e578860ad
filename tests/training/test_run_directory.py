"""The files of a small run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import thaw
from tests.conftest import TINY, get_only_run
from thaw.cli.train import launch
from thaw.config.schema import Recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    assert launch([*TINY, f"output_dir={outputs}"]) == 0
    return get_only_run(outputs)


def test_the_directory_has_the_documented_files(run: Path) -> None:
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if "tfevents" not in path.name}
    assert names == {
        *("config.yaml", "run.json", "metrics.json", "history.csv", "predictions.csv", "report.html"),
        *("checkpoints", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "tensorboard", "tensorboard/hparams.yaml"),
        *("plots", "plots/curves.png", "plots/confusion_matrix.png", "plots/samples.jpg", "plots/worst.jpg"),
    }


def test_the_recipe_is_written_resolved_and_can_be_read_back(run: Path) -> None:
    recipe = Recipe.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    assert recipe.trainer.epochs == 2
    assert recipe.strategy.name == "finetune"


def test_the_record_describes_data_weights_and_plan(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "done"
    assert record["data"]["images"] == {"train": 36, "val": 16, "test": 20}
    assert len(record["source"]["hash"]) == 64
    assert record["parameters"]["total"] == record["parameters"]["trainable"] > 3_000_000
    assert [phase["name"] for phase in record["plan"]] == ["all"]
    assert {"command", "seed", "versions", "hardware", "git", "started", "ended"} <= record.keys()
    assert record["versions"]["thaw"] == thaw.__version__


def test_metrics_agree_with_the_predictions(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    with (run / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    num_correct = sum(row["label"] == row["prediction"] for row in rows)
    assert metrics["test"]["accuracy"] == num_correct / len(rows)
    assert metrics["test"]["count"] == len(rows) == 20
    assert metrics["val"]["count"] == 16
    low, high = metrics["test"]["accuracy_ci95"]
    assert low < metrics["test"]["accuracy"] < high
    assert {"wall_s", "train_s", "images_per_s", "cache_s"} == metrics["timing"].keys()


def test_the_validation_metrics_are_those_of_the_best_epoch(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    with (run / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert metrics["val"]["accuracy"] == pytest.approx(float(best["val_accuracy"]))
    assert metrics["val"]["loss"] == pytest.approx(float(best["val_loss"]), rel=1e-5)


def test_the_history_has_a_row_per_epoch_with_the_rate_of_each_part(run: Path) -> None:
    with (run / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["lr_head"]) == pytest.approx(10 * float(rows[0]["lr_stem"]))


def test_checkpoints_are_plain_data_with_metadata(run: Path) -> None:
    for name in ("best", "last"):
        checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        metadata = checkpoint["thaw"]
        assert metadata["classes"] == ["A", "B", "C", "D"]
        assert metadata["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
        assert metadata["stages"][-1] == {"name": "head", "shape": [4], "parameters": 1280 * 4 + 4}
        assert metadata["recipe"]["strategy"]["name"] == "finetune"
    assert "optimizer_states" not in torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


def test_tensorboard_has_scalars_and_the_final_metrics(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/loss", "val/accuracy", "lr/head", "lr/stem", "final/test_accuracy"} <= set(tags)
    assert [event.step for event in events.Scalars("val/accuracy")] == [1, 2]
    metrics = json.loads((run / "metrics.json").read_text())
    assert events.Scalars("final/test_accuracy")[-1].value == pytest.approx(metrics["test"]["accuracy"])
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert "_hparams_/experiment" not in events.summary_metadata  # TensorBoard would use the first run's for all runs


def test_tensorboard_has_the_norms_of_trained_parts_once_per_epoch(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    parts = {tag.removeprefix("lr/") for tag in events.Tags()["scalars"] if tag.startswith("lr/")}
    for kind in ("grad_norm", "weight_norm"):
        assert {tag for tag in events.Tags()["scalars"] if tag.startswith(kind)} == {f"{kind}/{part}" for part in parts}
        for part in parts:
            assert [event.step for event in events.Scalars(f"{kind}/{part}")] == [1, 2]
            assert all(event.value > 0 for event in events.Scalars(f"{kind}/{part}"))


def test_tensorboard_has_results_on_the_test_images(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"test/confusion_matrix", "test/worst"} <= set(events.Tags()["images"])
    curves = {
        tag for tag, metadata in events.summary_metadata.items() if metadata.plugin_data.plugin_name == "pr_curves"
    }
    assert curves == {f"test/{name}" for name in "ABCD"}
    for tag in curves:
        (event,) = events.Tensors(tag)
        counts = tensor_util.make_ndarray(event.tensor_proto)[:4, 0]  # at threshold 0 every image is positive
        assert counts.tolist() == [5, 15, 0, 0]


def test_plots_are_images_with_content(run: Path) -> None:
    from PIL import Image

    for file in (run / "plots").iterdir():
        with Image.open(file) as image:
            assert min(image.size) > 200
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 8
