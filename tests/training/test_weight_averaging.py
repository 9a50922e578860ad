"""Averages of the weights: what they are, where they are used, and that a resumed run has the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

import thaw.training.train
from tests.conftest import TINY, only_run
from thaw.cli.train import launch
from thaw.data.batches import Batch
from thaw.system.process import Interrupted
from thaw.training.callbacks.weight_averaging import compute_ema_lerp_weight
from thaw.training.module import ClassificationModule

EMA = "trainer.averaging={kind: ema, decay: 0.7}"
SWA = "trainer.averaging={kind: swa, start: 0.3}"
SMALL = (*TINY, "dataset.characters=AB", "dataset.train=20", "trainer.epochs=4")
# The head first, then all: what trains changes from phase to phase.
PHASED = (*SMALL, "strategy=lp_ft", "head.dropout=0.3", "augment=crop_flip")
States = list[dict[str, Tensor]]


class Recorder(Callback):
    """The weights after each optimizer step, and `shown`: what the network holds when an epoch is validated and saved.
    `ends` are the counts of steps at the ends of epochs."""

    def __init__(self) -> None:
        self.states: States = []
        self.shown: States = []
        self.ends: list[int] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.states.append(copied(pl_module))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == len(self.states):
            self.states.append(copied(pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends.append(len(self.states) - 1)
        self.shown.append(copied(pl_module))


def copied(learner: pl.LightningModule) -> dict[str, Tensor]:
    return {name: one.clone() for name, one in learner.state_dict().items()}


def recorded_run(recipe: tuple[str, ...], outputs: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Recorder, Path]:
    recorder, original = Recorder(), thaw.training.train.build_trainer
    monkeypatch.setattr(thaw.training.train, "build_trainer", lambda run, parts: original(run, parts, [recorder]))
    assert launch([*recipe, f"output_dir={outputs}"]) == 0
    return recorder, only_run(outputs)


def checkpoint(run: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


def floating(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in state.items() if one.is_floating_point()}


def assert_close(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, one in floating(state).items():
        torch.testing.assert_close(one.double(), expected[name].double(), rtol=1e-4, atol=1e-6, msg=name)


def assert_equal(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert [name for name, one in state.items() if not torch.equal(one, expected[name])] == []


def exponential(states: States, decay: float) -> dict[str, Tensor]:
    average = {name: one.double() for name, one in states[0].items()}
    for step, state in enumerate(states[1:], 1):
        kept = min(decay, (1 + step) / (10 + step))
        average = {name: kept * one + (1 - kept) * state[name].double() for name, one in average.items()}
    return average


def mean(states: States) -> dict[str, Tensor]:
    return {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}


def test_an_exponential_average_forgets_the_start_faster_than_its_decay() -> None:
    assert compute_ema_lerp_weight(0.999, 1) == pytest.approx(1 - 2 / 11)
    assert compute_ema_lerp_weight(0.999, 100) == pytest.approx(9 / 110)
    assert compute_ema_lerp_weight(0.999, 100_000) == pytest.approx(0.001)


def test_ema_follows_every_optimizer_step_validates_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, run = recorded_run(
        (*SMALL, EMA, "trainer.epochs=2", "trainer.accumulate_grad_batches=2"), tmp_path, monkeypatch
    )
    assert len(recorder.states) == 1 + 2 * 3, "5 batches an epoch are 3 steps"
    last, best, row = checkpoint(run, "last"), checkpoint(run, "best"), best_row(run)
    assert_close(last["state_dict"], exponential(recorder.states, 0.7))
    assert_equal({f"network.{name}": one for name, one in last["trained"].items()}, recorder.states[-1])
    assert_equal(best["state_dict"], recorder.shown[int(row["epoch"]) - 1])
    assert "trained" not in best
    predicted = json.loads((run / "metrics.json").read_text())["val"]
    assert predicted["loss"] == pytest.approx(float(row["val_loss"]), rel=1e-5)


def best_row(run: Path) -> dict[str, str]:
    with (run / "history.csv").open(newline="") as stream:
        return max(csv.DictReader(stream), key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))


def test_swa_is_the_mean_over_the_last_epochs_and_before_them_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, run = recorded_run((*SMALL, SWA), tmp_path, monkeypatch)
    ends = [recorder.states[place] for place in recorder.ends]
    assert_equal(recorder.shown[0], ends[0])
    assert_equal(recorder.shown[1], ends[1])  # 0.3 of 4 epochs is 1.2
    assert_close(recorder.shown[2], ends[2])
    assert_close(recorder.shown[3], mean(ends[2:]))
    assert_equal(checkpoint(run, "last")["state_dict"], recorder.shown[3])


def test_what_never_trains_is_not_averaged(tmp_path: Path) -> None:
    assert launch([*SMALL, EMA, "strategy=fixed", "trainer.epochs=1", f"output_dir={tmp_path}"]) == 0
    trained = checkpoint(only_run(tmp_path), "last")["trained"]
    assert sorted(name.split(".")[0] for name in trained) == ["head", "head"], "weight and bias"


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    outputs = {averaging: tmp_path_factory.mktemp("whole") for averaging in (EMA, SWA)}
    for averaging, folder in outputs.items():
        assert launch([*PHASED, averaging, f"output_dir={folder}"]) == 0
    return {averaging: only_run(folder) for averaging, folder in outputs.items()}


@pytest.mark.parametrize(("averaging", "epoch"), [(EMA, 2), (SWA, 1), (SWA, 3)], ids=["ema", "before_swa", "in_swa"])
def test_a_run_interrupted_in_an_epoch_and_resumed_gives_the_same_to_the_last_bit(
    averaging: str, epoch: int, whole_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(
            ClassificationModule, "training_step", interrupted_in(epoch, ClassificationModule.training_step)
        )
        assert launch([*PHASED, averaging, f"output_dir={tmp_path}"]) == 130
    whole, stopped = whole_runs[averaging], only_run(tmp_path)

    assert launch([f"resume={stopped}"]) == 0

    for name, keys in (("best", ["state_dict"]), ("last", ["state_dict", "trained"])):
        one, other = checkpoint(whole, name), checkpoint(stopped, name)
        for key in keys:
            assert one[key].keys() == other[key].keys()
            assert_equal(one[key], other[key])
    assert (whole / "predictions.csv").read_bytes() == (stopped / "predictions.csv").read_bytes()


def interrupted_in(epoch: int, step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def training_step(self: ClassificationModule, batch: Batch, batch_idx: int) -> Tensor:
        if (self.current_epoch, batch_idx) == (epoch, 2):
            raise Interrupted
        return step(self, batch, batch_idx)

    return training_step
