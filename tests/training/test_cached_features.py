"""Training on cached features gives the same network as training on images, in a fraction of the time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import thaw.features.cache
import thaw.features.extract
from tests.conftest import TINY, get_only_run
from tests.training.killed import PROCESSES
from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.inference.load import load_checkpoint
from thaw.runs.run import Run
from thaw.training.extraction import extract_features
from thaw.training.module import ClassificationModule

# BatchNorm of single pixels in batches of 8 amplifies rounding errors: in float32 they grow to percents in an epoch,
# cached or not. So it trains in float64 here, or with fixed statistics.
STRATEGIES: dict[str, tuple[str, ...]] = {
    "fixed": ("strategy=fixed",),
    "partial": ("strategy=partial", "head.dropout=0.3", "strategy.phases.upper.batchnorm={backbone: eval}"),
    "partial with BatchNorm": ("strategy=partial", "trainer.precision=64-true", "trainer.epochs=2", "dataset.train=6"),
    "gradual": (
        "strategy=gradual",
        "strategy.phases.head.fraction=0.34",
        "strategy.phases.unfreeze.unfreeze=['last:2']",
        "trainer.epochs=6",
    ),
}
# SGD, since Adam divides by the size of a gradient and would enlarge rounding errors of gradients that should be 0.
RECIPE = (*TINY, "dataset.train=12", "optimizer=sgd", "optimizer.learning_rate=0.001", "trainer.epochs=4")
TRAINED_ON_IMAGES = "an image went through the whole network"


def train(outputs: Path, *overrides: str) -> Path:
    assert launch([*RECIPE, *overrides, f"output_dir={outputs}"]) == 0
    return get_only_run(outputs)


def read_weights(run_directory: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run_directory / "checkpoints" / "last.ckpt", weights_only=True)[
        "state_dict"
    ]
    return state


def fail_on_image(module: ClassificationModule, images: torch.Tensor) -> torch.Tensor:
    raise AssertionError(TRAINED_ON_IMAGES)


def assert_same_training(run: Path, expected_run: Path) -> None:
    weights, expected = read_weights(run), read_weights(expected_run)
    assert weights.keys() == expected.keys()
    mismatched_names = [
        name for name, value in weights.items() if not torch.allclose(value, expected[name], rtol=1e-4, atol=1e-5)
    ]
    assert mismatched_names == []
    for row, expected_row in zip(Run(run).read_history(), Run(expected_run).read_history(), strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(expected_row["train_loss"]), abs=1e-5)
        assert float(row["val_loss"]) == pytest.approx(float(expected_row["val_loss"]), abs=1e-5)
    metrics = [json.loads((directory / "metrics.json").read_text())["test"] for directory in (run, expected_run)]
    assert metrics[0]["accuracy"] == metrics[1]["accuracy"]
    assert metrics[0]["loss"] == pytest.approx(metrics[1]["loss"], abs=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_weights_equal_those_of_training_on_images(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = STRATEGIES[strategy]
    image_run = train(tmp_path / "slow", *overrides, "feature_cache=off")
    monkeypatch.setattr(ClassificationModule, "forward", fail_on_image)  # in any part of the run
    feature_run = train(tmp_path / "fast", *overrides, "feature_cache=require")
    assert_same_training(feature_run, image_run)
    decisions = json.loads((feature_run / "run.json").read_text())["features"]
    assert all(phase["depth"] > 0 for phase in decisions)


def test_mirror_images_are_cached_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_run = train(tmp_path / "slow", "strategy=fixed", "augment=flip", "feature_cache=off")
    monkeypatch.setattr(ClassificationModule, "forward", fail_on_image)
    feature_run = train(tmp_path / "fast", "strategy=fixed", "augment=flip", "feature_cache=require")
    assert_same_training(feature_run, image_run)
    plain_rows, mirrored_rows = (
        Run(directory).read_history() for directory in (train(tmp_path / "plain", "strategy=fixed"), feature_run)
    )
    assert plain_rows[-1]["train_loss"] != mirrored_rows[-1]["train_loss"]


def test_cached_views_replace_new_random_views(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClassificationModule, "forward", fail_on_image)
    train(tmp_path, "strategy=fixed", "augment=crop_flip", "feature_cache.views=3")
    output = capsys.readouterr().out
    assert "once per image in 3 views; an approximation, as every epoch would draw anew" in output


def test_balanced_sampling_is_cached_too(tmp_path: Path) -> None:
    overrides = ("strategy=fixed", "augment=flip", "trainer.class_balance=sampling")
    assert_same_training(
        train(tmp_path / "fast", *overrides, "feature_cache=require"),
        train(tmp_path / "slow", *overrides, "feature_cache=off"),
    )


def test_the_checkpoint_holds_the_complete_network(tmp_path: Path) -> None:
    directory = train(tmp_path, "strategy=fixed", "feature_cache=require")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.allclose(load_checkpoint(directory).predict_proba(images).sum(1), torch.ones(2))


def test_a_second_run_uses_and_reports_the_cached_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache_override = f"data.cache_dir={tmp_path / 'cache'}"
    first = train(tmp_path / "first", "strategy=fixed", cache_override)
    assert "images computed in" in capsys.readouterr().out
    second = train(tmp_path / "second", "strategy=fixed", cache_override, "seed=1")
    assert "images found in the cache" in capsys.readouterr().out
    cache_seconds = [
        json.loads((directory / "metrics.json").read_text())["timing"]["cache_s"] for directory in (first, second)
    ]
    assert cache_seconds[0] > 0
    assert cache_seconds[1] == 0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_an_export_and_a_run_at_the_same_precision_use_one_cache(
    precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("strategy=fixed", f"trainer.precision={precision}", f"data.cache_dir={tmp_path / 'cache'}")
    extraction = extract_features(compose_recipe([*RECIPE, *overrides]))
    assert extraction.values.shape == (4 * (12 + 4 + 5), 1280)
    assert np.isfinite(extraction.values).all()
    assert next(extraction.network.parameters()).dtype == torch.float32
    train(tmp_path / "run", *overrides)
    is_shared = precision != "64-true"  # there a run converts the weights to float64
    assert ("found in the cache" in capsys.readouterr().out) == is_shared


def test_a_full_disk_is_reported_and_training_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thaw.features.extract, "VALUES_FILE", "/dev/full")  # every write to it fails with ENOSPC
    cache_override = f"data.cache_dir={tmp_path / 'cache'}"
    full_disk_run = train(tmp_path / "full", "strategy=fixed", cache_override)
    output = capsys.readouterr().out
    assert "phase head computes its frozen stages in every epoch: the cache cannot be written" in output
    assert "No space left on device" in output
    assert_same_training(full_disk_run, train(tmp_path / "slow", "strategy=fixed", cache_override, "feature_cache=off"))
    assert (
        launch(
            [*RECIPE, "strategy=fixed", cache_override, "feature_cache=require", f"output_dir={tmp_path / 'rejected'}"]
        )
        == 2
    )
    assert "No space left on device" in capsys.readouterr().err


def test_two_runs_that_start_together_compute_features_once(tmp_path: Path) -> None:
    barrier = PROCESSES.Barrier(2)
    output_files = [tmp_path / "one.txt", tmp_path / "other.txt"]
    processes = [PROCESSES.Process(target=_run_with_output, args=(barrier, tmp_path, file)) for file in output_files]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    has_computed = sorted("computed in" in file.read_text() for file in output_files)
    assert has_computed == [False, True]


def _run_with_output(barrier: Any, folder: Path, output_file: Path) -> None:
    with output_file.open("w") as stream, contextlib.redirect_stdout(stream):
        barrier.wait()
        arguments = [
            *RECIPE,
            "strategy=fixed",
            f"data.cache_dir={folder / 'cache'}",
            f"output_dir={folder / output_file.stem}",
        ]
        raise SystemExit(launch(arguments))


def test_a_run_killed_while_computing_leaves_no_features_that_look_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = PROCESSES.Process(target=_run_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    features_folder = tmp_path / "cache" / "features"
    (partial_folder,) = [path for path in features_folder.iterdir() if ".partial-" in path.name]
    assert [path.name for path in partial_folder.iterdir()] == ["values.bin"]

    assert launch([f"resume={get_only_run(tmp_path / 'killed')}"]) == 0
    assert "images computed in" in capsys.readouterr().out
    assert not partial_folder.exists()
    expected_run = train(tmp_path / "whole", "strategy=fixed", "feature_cache=off")
    assert_same_training(get_only_run(tmp_path / "killed"), expected_run)


def _run_and_die(folder: Path) -> None:
    iter_stage_outputs = thaw.features.extract.iter_stage_outputs

    def iter_outputs_and_die(*arguments: Any) -> Iterator[Any]:
        yield from iter_stage_outputs(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    thaw.features.extract.iter_stage_outputs = iter_outputs_and_die
    launch([*RECIPE, "strategy=fixed", f"data.cache_dir={folder / 'cache'}", f"output_dir={folder / 'killed'}"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_features_are_kept_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ("strategy=fixed", "trainer.accelerator=gpu", "trainer.precision=32-true")
    feature_run = train(tmp_path / "fast", *overrides, "feature_cache=require")
    assert "held on the GPU" in capsys.readouterr().out
    image_run = train(tmp_path / "slow", *overrides, "feature_cache=off")
    rows = [Run(directory).read_history()[-1] for directory in (feature_run, image_run)]
    assert float(rows[0]["train_loss"]) == pytest.approx(float(rows[1]["train_loss"]), rel=1e-3)
