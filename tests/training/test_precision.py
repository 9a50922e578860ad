"""Trainings in each precision, with every kind of augmentation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, get_only_run, run_thaw
from tests.features.test_chosen_precision import remember_speedups, use_cpu
from thaw.cli.train import launch
from thaw.inference.load import load
from thaw.runs.run import Run
from thaw.training.module import ClassificationModule

EVERY_CHANGE = (
    "augment=crop_flip_rotate",
    "augment.color_jitter={brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1}",
    "augment.random_erasing.probability=0.5",
    "augment.mixup.alpha=0.4",
    "augment.cutmix.alpha=1.0",
    "augment.policy=rand_augment",
)


@pytest.mark.parametrize("precision", ["64-true", pytest.param("bf16-mixed", marks=pytest.mark.long)])
def test_augmented_images_train_in_each_precision(precision: str, tmp_path: Path) -> None:
    overrides = (*EVERY_CHANGE, "trainer.epochs=1", "dataset.train=8", f"trainer.precision={precision}")
    assert launch([*TINY, *overrides, f"output_dir={tmp_path}"]) == 0
    assert len(Run(get_only_run(tmp_path)).read_history()) == 1


@pytest.fixture
def cache_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the override of a cache that remembers bf16 as faster in frozen passes and slower in training."""
    use_cpu(monkeypatch, tmp_path, "avx512_bf16")
    cache = tmp_path / "cache"
    overrides = (*AUTO, "trainer.epochs=1", f"data.cache_dir={cache}", f"output_dir={tmp_path / 'measured'}")
    assert launch([*overrides]) == 0
    remember_speedups(cache / "measured", frozen=1.9, training=0.7)
    return f"data.cache_dir={cache}"


AUTO = (*TINY, "trainer.precision=auto", "strategy=partial", "strategy.phases.upper.batchnorm={backbone: eval}")
AUTO = (*AUTO, "optimizer=sgd", "optimizer.learning_rate=0.001")


def train(outputs: Path, *overrides: str) -> Path:
    assert launch([*AUTO, *overrides, f"output_dir={outputs}"]) == 0
    return get_only_run(outputs)


def read_weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def assert_same_bits(run: Path, expected_run: Path) -> None:
    weights, expected = read_weights(run), read_weights(expected_run)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert Run(run).metrics["test"] == Run(expected_run).metrics["test"]


def test_a_run_uses_and_records_what_was_measured(
    cache_override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    run = train(tmp_path / "run", cache_override)
    output = capsys.readouterr().out
    assert (
        "frozen stages in bf16, 1.9 times as fast as float32; training in float32 (bf16: 0.7 times as fast)" in output
    )
    entry = json.loads((run / "run.json").read_text())["precision"]
    num_frozen_stages = entry.pop("num_frozen_stages")
    assert entry == {"accelerator": "cpu", "trained": "32-true", "frozen": "bf16-mixed"}
    assert 0 < num_frozen_stages < len(Run(run).record["plan"][0]["parts"]) - 1
    remember_speedups(tmp_path / "cache" / "measured", frozen=0.5, training=0.5)
    assert load(run).network.precision.frozen == "bf16-mixed", "the checkpoint says it"
    assert run_thaw(monkeypatch, "evaluate", str(run)) == 0
    assert "metrics.json: the same numbers" in capsys.readouterr().out


def test_images_train_as_cached_features_do(cache_override: str, tmp_path: Path) -> None:
    runs = [
        train(tmp_path / mode, cache_override, f"feature_cache={mode}", "backbone.memory_format=contiguous")
        for mode in ("require", "off")
    ]
    precisions = [Run(run).record["precision"] for run in runs]
    assert precisions[0] == precisions[1]
    losses = [[float(row["train_loss"]) for row in Run(run).read_history()] for run in runs]
    assert losses[0] == pytest.approx(losses[1], abs=0.01)  # another batch size rounds differently in bf16


def test_a_resumed_run_keeps_its_precision_whatever_was_measured_since(
    cache_override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_run = train(tmp_path / "whole", cache_override)
    compute_learning_rates = ClassificationModule.compute_learning_rates

    def fail_in_second_epoch(module: ClassificationModule, step: int) -> dict[str, float]:
        if module.current_epoch == 1:
            raise RuntimeError("the power is out")
        return compute_learning_rates(module, step)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationModule, "compute_learning_rates", fail_in_second_epoch)
        assert launch([*AUTO, cache_override, f"output_dir={tmp_path / 'failed'}"]) == 1
    remember_speedups(tmp_path / "cache" / "measured", frozen=0.5, training=0.5)
    run = get_only_run(tmp_path / "failed")
    assert launch([f"resume={run}"]) == 0
    assert_same_bits(run, expected_run)


def test_a_job_of_a_sweep_decides_as_a_single_run(cache_override: str, tmp_path: Path) -> None:
    single_run = train(tmp_path / "single", cache_override, "seed=1")
    assert launch(["-m", *AUTO, cache_override, "seed=1,2", f"output_dir={tmp_path / 'sweep'}"]) == 0
    (job,) = [file.parent for file in (tmp_path / "sweep").rglob("run.json") if Run(file.parent).recipe.seed == 1]
    assert_same_bits(job, single_run)
