"""Averages of the weights: their values, where they are used, and that a resumed run has the same."""

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
from tests.conftest import TINY, get_only_run
from thaw.cli.train import launch
from thaw.data.batches import Batch
from thaw.system.process import Interrupted
from thaw.training.callbacks.weight_averaging import compute_ema_lerp_weight
from thaw.training.module import ClassificationModule

EMA = "trainer.averaging={kind: ema, decay: 0.7}"
SWA = "trainer.averaging={kind: swa, start: 0.3}"
SMALL = (*TINY, "dataset.characters=AB", "dataset.train=20", "trainer.epochs=4")
# The head first, then everything: the trained parts change from phase to phase.
PHASED = (*SMALL, "strategy=lp_ft", "head.dropout=0.3", "augment=crop_flip")
States = list[dict[str, Tensor]]


class Recorder(Callback):
    """Records the weights after each optimizer step, and those that are validated and saved at the end of each epoch.

    `epoch_end_steps` are the numbers of steps at the ends of epochs.
    """

    def __init__(self) -> None:
        self.states: States = []
        self.epoch_end_states: States = []
        self.epoch_end_steps: list[int] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.states.append(copy_state(pl_module))

    def on_batch_end(self, trainer: pl.Trainer, pl_module: ClassificationModule, *_: Any) -> None:
        if pl_module.step == len(self.states):
            self.states.append(copy_state(pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_end_steps.append(len(self.states) - 1)
        self.epoch_end_states.append(copy_state(pl_module))


def copy_state(module: pl.LightningModule) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def train_and_record(recipe: tuple[str, ...], outputs: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Recorder, Path]:
    recorder, original = Recorder(), thaw.training.train.build_trainer
    monkeypatch.setattr(
        thaw.training.train, "build_trainer", lambda *arguments: original(*arguments, callbacks=[recorder])
    )
    assert launch([*recipe, f"output_dir={outputs}"]) == 0
    return recorder, get_only_run(outputs)


def read_checkpoint(run: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


def select_floating(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


def assert_close(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in select_floating(state).items():
        torch.testing.assert_close(tensor.double(), expected[name].double(), rtol=1e-4, atol=1e-6, msg=name)


def assert_equal(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert [name for name, tensor in state.items() if not torch.equal(tensor, expected[name])] == []


def compute_exponential_average(states: States, decay: float) -> dict[str, Tensor]:
    average = {name: tensor.double() for name, tensor in states[0].items()}
    for step, state in enumerate(states[1:], 1):
        share = min(decay, (1 + step) / (10 + step))
        average = {name: share * tensor + (1 - share) * state[name].double() for name, tensor in average.items()}
    return average


def compute_mean(states: States) -> dict[str, Tensor]:
    return {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}


def test_an_exponential_average_forgets_the_start_faster_than_its_decay() -> None:
    assert compute_ema_lerp_weight(0.999, 1) == pytest.approx(1 - 2 / 11)
    assert compute_ema_lerp_weight(0.999, 100) == pytest.approx(9 / 110)
    assert compute_ema_lerp_weight(0.999, 100_000) == pytest.approx(0.001)


def test_ema_averages_every_step_and_is_validated_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, run = train_and_record(
        (*SMALL, EMA, "trainer.epochs=2", "trainer.accumulate_grad_batches=2"), tmp_path, monkeypatch
    )
    assert len(recorder.states) == 1 + 2 * 3, "5 batches an epoch are 3 steps"
    last, best, row = read_checkpoint(run, "last"), read_checkpoint(run, "best"), find_best_row(run)
    assert_close(last["state_dict"], compute_exponential_average(recorder.states, 0.7))
    assert_equal({f"network.{name}": tensor for name, tensor in last["trained"].items()}, recorder.states[-1])
    assert_equal(best["state_dict"], recorder.epoch_end_states[int(row["epoch"]) - 1])
    assert "trained" not in best
    val_metrics = json.loads((run / "metrics.json").read_text())["val"]
    assert val_metrics["loss"] == pytest.approx(float(row["val_loss"]), rel=1e-5)


def find_best_row(run: Path) -> dict[str, str]:
    with (run / "history.csv").open(newline="") as stream:
        return max(csv.DictReader(stream), key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))


def test_swa_is_the_mean_over_the_last_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, run = train_and_record((*SMALL, SWA), tmp_path, monkeypatch)
    ends = [recorder.states[step] for step in recorder.epoch_end_steps]
    assert_equal(recorder.epoch_end_states[0], ends[0])
    assert_equal(recorder.epoch_end_states[1], ends[1])  # 0.3 of 4 epochs is 1.2
    assert_close(recorder.epoch_end_states[2], ends[2])
    assert_close(recorder.epoch_end_states[3], compute_mean(ends[2:]))
    assert_equal(read_checkpoint(run, "last")["state_dict"], recorder.epoch_end_states[3])


def test_weights_that_never_train_are_not_averaged(tmp_path: Path) -> None:
    assert launch([*SMALL, EMA, "strategy=fixed", "trainer.epochs=1", f"output_dir={tmp_path}"]) == 0
    trained = read_checkpoint(get_only_run(tmp_path), "last")["trained"]
    assert sorted(name.split(".")[0] for name in trained) == ["head", "head"], "weight and bias"


@pytest.fixture(scope="module")
def expected_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    outputs = {averaging: tmp_path_factory.mktemp("whole") for averaging in (EMA, SWA)}
    for averaging, folder in outputs.items():
        assert launch([*PHASED, averaging, f"output_dir={folder}"]) == 0
    return {averaging: get_only_run(folder) for averaging, folder in outputs.items()}


@pytest.mark.parametrize(("averaging", "epoch"), [(EMA, 2), (SWA, 1), (SWA, 3)], ids=["ema", "before_swa", "in_swa"])
def test_a_run_interrupted_in_an_epoch_and_resumed_gives_the_same_bits(
    averaging: str, epoch: int, expected_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        compute_loss = ClassificationModule.compute_training_loss
        patch.setattr(ClassificationModule, "compute_training_loss", interrupt_in(epoch, compute_loss))
        assert launch([*PHASED, averaging, f"output_dir={tmp_path}"]) == 130
    expected_run, run = expected_runs[averaging], get_only_run(tmp_path)

    assert launch([f"resume={run}"]) == 0

    for name, keys in (("best", ["state_dict"]), ("last", ["state_dict", "trained"])):
        expected, content = read_checkpoint(expected_run, name), read_checkpoint(run, name)
        for key in keys:
            assert expected[key].keys() == content[key].keys()
            assert_equal(expected[key], content[key])
    assert (expected_run / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


def interrupt_in(epoch: int, compute_loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def compute_training_loss(self: ClassificationModule, batch: Batch) -> Tensor:
        if (self.current_epoch, self.batch_idx) == (epoch, 2):
            raise Interrupted
        return compute_loss(self, batch)

    return compute_training_loss
