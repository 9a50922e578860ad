"""Training on cached features: the same network as training on images, in a fraction of the time."""

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
from tests.conftest import TINY, only_run
from tests.training.killed import PROCESSES
from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.inference.load import load_checkpoint
from thaw.runs.run import Run
from thaw.training.extraction import extract_features
from thaw.training.module import ClassificationModule

# BatchNorm of single pixels in batches of 8 makes much of little: in float32 rounding grows to per cents in an epoch,
# cached or not. So it trains in float64 here, or follows no batches.
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
# Adam divides by the size of a gradient, and would enlarge what rounding leaves of those that should be 0.
RECIPE = (*TINY, "dataset.train=12", "optimizer=sgd", "optimizer.learning_rate=0.001", "trainer.epochs=4")
TRAINED_ON_IMAGES = "an image went through the whole network"


def run(outputs: Path, *overrides: str) -> Path:
    assert launch([*RECIPE, *overrides, f"output_dir={outputs}"]) == 0
    return only_run(outputs)


def weights(of: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(of / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def refused(learner: ClassificationModule, images: torch.Tensor) -> torch.Tensor:
    raise AssertionError(TRAINED_ON_IMAGES)


def assert_alike(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    apart = [name for name, value in first.items() if not torch.allclose(value, second[name], rtol=1e-4, atol=1e-5)]
    assert apart == []
    for row, same in zip(Run(one).read_history(), Run(other).read_history(), strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(same["train_loss"]), abs=1e-5)
        assert float(row["val_loss"]) == pytest.approx(float(same["val_loss"]), abs=1e-5)
    metrics = [json.loads((which / "metrics.json").read_text())["test"] for which in (one, other)]
    assert metrics[0]["accuracy"] == metrics[1]["accuracy"]
    assert metrics[0]["loss"] == pytest.approx(metrics[1]["loss"], abs=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_weights_are_those_of_training_on_images(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = STRATEGIES[strategy]
    slow = run(tmp_path / "slow", *chosen, "feature_cache=off")
    monkeypatch.setattr(ClassificationModule, "forward", refused)  # no image, in training, validation or at the end
    fast = run(tmp_path / "fast", *chosen, "feature_cache=require")
    assert_alike(fast, slow)
    cached = json.loads((fast / "run.json").read_text())["features"]
    assert all(phase["depth"] > 0 for phase in cached)


def test_mirror_images_are_cached_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = run(tmp_path / "slow", "strategy=fixed", "augment=flip", "feature_cache=off")
    monkeypatch.setattr(ClassificationModule, "forward", refused)
    fast = run(tmp_path / "fast", "strategy=fixed", "augment=flip", "feature_cache=require")
    assert_alike(fast, slow)
    plain, mirrored = (Run(one).read_history() for one in (run(tmp_path / "plain", "strategy=fixed"), fast))
    assert plain[-1]["train_loss"] != mirrored[-1]["train_loss"]


def test_views_take_the_place_of_drawing_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClassificationModule, "forward", refused)
    run(tmp_path, "strategy=fixed", "augment=crop_flip", "feature_cache.views=3")
    said = capsys.readouterr().out
    assert "once per image in 3 views; an approximation, as every epoch would draw anew" in said


def test_classes_drawn_equally_often_are_cached_too(tmp_path: Path) -> None:
    unequal = ("strategy=fixed", "augment=flip", "trainer.class_balance=sampling")
    assert_alike(
        run(tmp_path / "fast", *unequal, "feature_cache=require"), run(tmp_path / "slow", *unequal, "feature_cache=off")
    )


def test_the_checkpoint_is_a_whole_network(tmp_path: Path) -> None:
    found = run(tmp_path, "strategy=fixed", "feature_cache=require")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.allclose(load_checkpoint(found).predict_proba(images).sum(1), torch.ones(2))


def test_a_second_run_finds_the_features_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    first = run(tmp_path / "first", "strategy=fixed", cache)
    assert "images computed in" in capsys.readouterr().out
    second = run(tmp_path / "second", "strategy=fixed", cache, "seed=1")
    assert "images found in the cache" in capsys.readouterr().out
    timings = [json.loads((one / "metrics.json").read_text())["timing"]["cache_s"] for one in (first, second)]
    assert timings[0] > 0
    assert timings[1] == 0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_an_export_and_a_run_at_the_same_precision_use_one_cache(
    precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("strategy=fixed", f"trainer.precision={precision}", f"data.cache_dir={tmp_path / 'cache'}")
    found = extract_features(compose_recipe([*RECIPE, *chosen]))
    assert found.values.shape == (4 * (12 + 4 + 5), 1280)
    assert np.isfinite(found.values).all()
    assert next(found.network.parameters()).dtype == torch.float32
    run(tmp_path / "run", *chosen)
    shared = precision != "64-true"  # there a run's weights are other bits than the source's
    assert ("found in the cache" in capsys.readouterr().out) == shared


def test_a_full_disk_is_told_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thaw.features.extract, "VALUES_FILE", "/dev/full")  # every write to it finds no space
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    full = run(tmp_path / "full", "strategy=fixed", cache)
    said = capsys.readouterr().out
    assert "phase head computes its frozen stages in every epoch, since the cache cannot be written" in said
    assert "No space left on device" in said
    assert_alike(full, run(tmp_path / "slow", "strategy=fixed", cache, "feature_cache=off"))
    assert (
        launch([*RECIPE, "strategy=fixed", cache, "feature_cache=require", f"output_dir={tmp_path / 'refused'}"]) == 2
    )
    assert "No space left on device" in capsys.readouterr().err


def test_two_runs_started_together_compute_them_once(tmp_path: Path) -> None:
    together = PROCESSES.Barrier(2)
    said = [tmp_path / "one.txt", tmp_path / "other.txt"]
    processes = [PROCESSES.Process(target=_run_and_tell, args=(together, tmp_path, file)) for file in said]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    told = sorted("computed in" in file.read_text() for file in said)
    assert told == [False, True]


def _run_and_tell(together: Any, folder: Path, said: Path) -> None:
    with said.open("w") as stream, contextlib.redirect_stdout(stream):
        together.wait()
        arguments = [
            *RECIPE,
            "strategy=fixed",
            f"data.cache_dir={folder / 'cache'}",
            f"output_dir={folder / said.stem}",
        ]
        raise SystemExit(launch(arguments))


def test_a_run_killed_while_computing_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = PROCESSES.Process(target=_run_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    shelf = tmp_path / "cache" / "features"
    (half,) = [path for path in shelf.iterdir() if ".partial-" in path.name]
    assert [path.name for path in half.iterdir()] == ["values.bin"]

    assert launch([f"resume={only_run(tmp_path / 'killed')}"]) == 0
    assert "images computed in" in capsys.readouterr().out
    assert not half.exists()
    whole = run(tmp_path / "whole", "strategy=fixed", "feature_cache=off")
    assert_alike(only_run(tmp_path / "killed"), whole)


def _run_and_die(folder: Path) -> None:
    outputs = thaw.features.extract.iter_stage_outputs

    def last(*arguments: Any) -> Iterator[Any]:
        yield from outputs(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    thaw.features.extract.iter_stage_outputs = last
    launch([*RECIPE, "strategy=fixed", f"data.cache_dir={folder / 'cache'}", f"output_dir={folder / 'killed'}"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_features_lie_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on_gpu = ("strategy=fixed", "trainer.accelerator=gpu", "trainer.precision=32-true")
    fast = run(tmp_path / "fast", *on_gpu, "feature_cache=require")
    assert "held on the GPU" in capsys.readouterr().out
    slow = run(tmp_path / "slow", *on_gpu, "feature_cache=off")
    rows = [Run(one).read_history()[-1] for one in (fast, slow)]
    assert float(rows[0]["train_loss"]) == pytest.approx(float(rows[1]["train_loss"]), rel=1e-3)
