"""The public Python interface: results that a notebook shows, no output, and no change that outlives a call."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

import thaw
from tests.conftest import ROOT, TINY
from thaw.runs.run import Run

SMALL = (*TINY, "trainer.epochs=1", "strategy=fixed")


def compose_small(outputs: Path, *overrides: str) -> Any:
    return thaw.compose(*SMALL, *overrides, f"output_dir={outputs}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return thaw.train(compose_small(tmp_path_factory.mktemp("outputs")))


def read_process_state() -> dict[str, Any]:
    """Return what a call must leave as it was."""
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": torch.backends.cudnn.benchmark,
        "torch": torch.get_rng_state().sum().item(),
        "numpy": np.random.get_state()[1].sum(),  # type: ignore[index, union-attr]
        "random": hash(random.getstate()),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "path": list(sys.path),
        "arguments": list(sys.argv),
    }


def call_each_function(run: Run, outputs: Path) -> dict[str, Callable[[], object]]:
    """Return a call of every public function."""
    recipe = compose_small(outputs)
    resnet = torchvision.models.resnet18()
    probe_recipe = thaw.compose(*[override for override in TINY if "epochs" not in override])
    return {
        "compose": lambda: compose_small(outputs),
        "train": lambda: thaw.train(recipe),
        "sweep": lambda: thaw.sweep(*SMALL, "seed=0,1", f"output_dir={outputs}"),
        "compare": lambda: thaw.compare(run),
        "load": lambda: thaw.load(run),
        "open_run": lambda: thaw.open_run(run.directory),
        "extract_features": lambda: thaw.extract_features(recipe),
        "audit": lambda: thaw.audit(probe_recipe, outputs / "audit"),
        "probe": lambda: thaw.probe(probe_recipe, outputs / "probe"),
        "find_learning_rate": lambda: thaw.find_learning_rate(recipe, steps=25),
        "split_stages": lambda: thaw.split_stages(resnet, 64),
    }


@pytest.mark.parametrize("name", [name for name in thaw.__all__ if name != "UserError"])
def test_a_call_prints_nothing_and_leaves_the_process_as_it_was(
    name: str, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call = call_each_function(run, tmp_path)[name]
    capfd.readouterr()
    state = read_process_state()
    result = call()
    assert read_process_state() == state
    assert capfd.readouterr() == ("", "")
    assert repr(result)


def test_verbose_prints_what_the_command_line_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thaw.train(compose_small(tmp_path), verbose=True)
    output = capsys.readouterr().out
    assert "epoch 1/1" in output
    assert "test accuracy" in output


def test_a_failed_training_raises_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    recipe = compose_small(tmp_path, "optimizer=sgd", "optimizer.learning_rate=1e30", "strategy=finetune")
    state = read_process_state()
    with pytest.raises(thaw.UserError, match="not finite"):
        thaw.train(recipe, tmp_path / "run")
    assert read_process_state() == state
    assert thaw.open_run(tmp_path / "run").status == "failed"


def test_an_error_has_every_problem() -> None:
    with pytest.raises(thaw.UserError) as error_info:
        thaw.compose("strategy=fixd", "trainer.epochs=ten")
    assert {problem.subject for problem in error_info.value.problems} == {"strategy=fixd", "trainer.epochs=ten"}
    assert all(problem.valid for problem in error_info.value.problems)


def test_a_run_has_tables_and_shows_itself(run: Run) -> None:
    assert run.status == "done"
    assert 0 <= run.metrics["test"]["accuracy"] <= 1
    assert list(run.history["epoch"]) == [1]
    assert len(run.predictions) == run.metrics["test"]["count"]
    assert set(run.plan["phase"]) == {"head"}
    assert "data:image/png;base64" in run._repr_html_()
    assert "<iframe" in run.report._repr_html_()


def test_a_sweep_can_be_called_twice_and_compared(tmp_path: Path) -> None:
    first, second = (thaw.sweep(*SMALL, "seed=0,1", f"output_dir={tmp_path}") for _ in range(2))
    assert [run.status for run in (*first, *second)] == ["done"] * 4
    assert [run.metrics["test"] for run in first] == [run.metrics["test"] for run in second]
    comparison = thaw.compare(first)
    assert len(comparison.runs) == 2
    assert "<table" in comparison._repr_html_()


def test_the_loaded_network_repeats_the_predictions(run: Run) -> None:
    from thaw.data.factory import load_samples

    root = load_samples(run.recipe).root
    row = run.predictions.iloc[0]
    (prediction,) = thaw.load(run).predict([root / row["path"]])
    assert prediction.label == row["prediction"]


def test_importing_thaw_imports_no_library() -> None:
    program = "import sys, thaw; dir(thaw); print(*sorted({'torch', 'hydra', 'numpy', 'pydantic'} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == ""


def test_every_public_name_exists_and_is_listed() -> None:
    assert set(thaw.__all__) < set(dir(thaw))
    assert all(callable(getattr(thaw, name)) for name in thaw.__all__)
    assert thaw.__version__
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = thaw.trian  # type: ignore[attr-defined]


def test_the_package_is_typed() -> None:
    assert (ROOT / "src" / "thaw" / "py.typed").is_file()
