"""Trainings from Python: the state of the process before and after, and several of them in one process."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from tests.conftest import ROOT, TINY
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.runs.run import Run
from thaw.system.process import Interrupted, configure_process, preserve_process_state, raise_on_interrupt
from thaw.system.reporter import Reporter
from thaw.training.start import resume_run, start_run

RECIPE = (*TINY, "trainer.epochs=1")
DIVERGING = ("optimizer=sgd", "optimizer.learning_rate=1e30", "scheduler=constant")
UNUSUAL = ("trainer.deterministic=true", "seed=7", "head.dropout=0.3", "augment=crop_flip")
deterministic_module: Any = torch.utils.deterministic
STATES: dict[str, Callable[[], Any]] = {
    "threads": torch.get_num_threads,
    "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "deterministic warnings": torch.is_deterministic_algorithms_warn_only_enabled,
    "memory fill": lambda: deterministic_module.fill_uninitialized_memory,
    "cuDNN benchmark": lambda: torch.backends.cudnn.benchmark,
    "matmul precision": torch.get_float32_matmul_precision,
    "random": random.getstate,
    "NumPy": lambda: [str(part) for part in np.random.get_state()],
    "torch": lambda: torch.get_rng_state().tolist(),
    "environment": lambda: dict(os.environ),
    "directory": lambda: Path.cwd(),
    "signal handlers": lambda: {signum: signal.getsignal(signum) for signum in signal.valid_signals()},
    "warning filters": lambda: list(warnings.filters),
    "log levels": lambda: [logging.getLogger(name).level for name in ("", "pytorch_lightning", "lightning_fabric")],
    "import path": lambda: list(sys.path),
    "arguments": lambda: list(sys.argv),
    "frozen objects": lambda: gc.get_freeze_count() > 0,
    "large blocks are mapped": lambda: maps_large_blocks(),
    "Hydra": lambda: (GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
}


class MallocInfo(ctypes.Structure):
    """struct mallinfo2 of glibc's malloc.h."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


def maps_large_blocks() -> bool:
    """Whether malloc maps 256 MiB, which the system gets back when they are freed; True where there is no glibc."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return True
    libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = MallocInfo, ctypes.c_void_p, [ctypes.c_void_p]
    libc.malloc.argtypes = [ctypes.c_size_t]
    num_mapped = libc.mallinfo2().hblks
    block = libc.malloc(256 * 2**20)
    is_mapped = libc.mallinfo2().hblks > num_mapped
    libc.free(block)
    return bool(is_mapped)


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """Reset what other tests of the same process have left; set a number of threads that no training uses."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(False)
    deterministic_module.fill_uninitialized_memory = True
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("highest")
    for name in ("CUBLAS_WORKSPACE_CONFIG", "PYTORCH_NVML_BASED_CUDA_CHECK"):
        os.environ.pop(name, None)
    logging.getLogger("pytorch_lightning").setLevel(logging.INFO)
    gc.unfreeze()
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_a_training_restores_the_state_of_the_process(
    outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = compose_recipe([*RECIPE, *UNUSUAL, *(DIVERGING if outcome == "failure" else ())])
    states_before = {name: read_state() for name, read_state in STATES.items()}
    with preserve_process_state():
        if outcome == "success":
            assert start_run(recipe, tmp_path / "run").status == "done"
        else:
            with pytest.raises(UserError, match="the loss is not finite"):
                start_run(recipe, tmp_path / "run")
        changed_inside = {name for name, read_state in STATES.items() if read_state() != states_before[name]}
    assert {name for name, read_state in STATES.items() if read_state() != states_before[name]} == set()
    assert {"threads", "deterministic algorithms", "torch", "environment", "frozen objects"} <= changed_inside


def test_everything_that_is_restored_would_be_seen_to_change(tmp_path: Path) -> None:
    states_before = {name: read_state() for name, read_state in STATES.items()}
    with preserve_process_state():
        configure_process(7, deterministic=True, threads=2)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = True
        os.chdir(tmp_path)
        sys.path.append(str(tmp_path))
        sys.argv.append("argument")
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        warnings.simplefilter("error")
        logging.getLogger("pytorch_lightning").setLevel(logging.CRITICAL)
        GlobalHydra.instance().hydra = object()  # type: ignore[assignment]
        unchanged = {name for name, read_state in STATES.items() if read_state() == states_before[name]}
    assert unchanged <= {"large blocks are mapped"}, "a test before this one may have kept freed memory"
    assert {name for name, read_state in STATES.items() if read_state() != states_before[name]} == set()


def test_malloc_maps_large_blocks_again_after_the_context() -> None:
    code = (
        "from tests.training.test_process_state import maps_large_blocks\n"
        "from thaw.system.process import keep_freed_memory, preserve_process_state\n"
        "states = [maps_large_blocks()]\n"
        "with preserve_process_state():\n"
        "    keep_freed_memory()\n"
        "    states.append(maps_large_blocks())\n"
        "print([*states, maps_large_blocks()])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = "[True, False, True]" if hasattr(ctypes.CDLL(None), "mallinfo2") else "[True, True, True]"
    assert result.stdout.strip() == expected


@pytest.mark.long
def test_two_trainings_in_one_process_give_the_bits_of_two_processes(tmp_path: Path) -> None:
    recipes = {"first": [*RECIPE, *UNUSUAL], "second": [*RECIPE, "strategy=lp_ft", "trainer.epochs=2"]}
    for name, overrides in recipes.items():
        with preserve_process_state():
            start_run(compose_recipe(overrides), tmp_path / name)
    for name, overrides in recipes.items():
        code = (
            "import sys\nfrom pathlib import Path\nfrom thaw.config.compose import compose_recipe\n"
            "from thaw.training.start import start_run\n"
            "start_run(compose_recipe(sys.argv[2:]), Path(sys.argv[1]))"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "alone" / name), *overrides]
        subprocess.run(command, check=True, capture_output=True)
        weights, expected = (read_best_weights(tmp_path / folder) for folder in (name, f"alone/{name}"))
        assert [key for key, value in expected.items() if not torch.equal(weights[key], value)] == []
        assert weights.keys() == expected.keys()


def read_best_weights(directory: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(Run(directory).best_checkpoint, weights_only=True)["state_dict"]
    return state


def test_a_run_from_python_prints_nothing_and_returns_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start_run(compose_recipe(RECIPE), tmp_path / "run", command="from a test")
    assert capsys.readouterr().out == ""
    assert run.record["command"] == "from a test"
    assert run.metrics["test"]["count"] == 20
    with pytest.raises(UserError, match="this run is done"):
        resume_run(tmp_path / "run")
    assert capsys.readouterr().err == ""


def test_a_reporter_gets_what_the_command_line_shows(tmp_path: Path) -> None:
    class ListReporter(Reporter):
        def write(self, text: str = "", style: str = "") -> None:
            texts.append(text)

    texts: list[str] = []
    start_run(compose_recipe(RECIPE), tmp_path / "run", reporter=ListReporter())
    output = "\n".join(texts)
    for text in ("captcha: 36 train", "phase all: epoch 1", "features: not cached", "epoch 1/1", "test accuracy"):
        assert text in output


def test_an_interrupted_run_raises_and_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(trainer: pl.Trainer, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("thaw.training.train.predict_splits", interrupt)
        with pytest.raises(Interrupted):
            start_run(compose_recipe(RECIPE), tmp_path / "run")
    assert Run(tmp_path / "run").status == "interrupted"
    assert resume_run(tmp_path / "run").status == "done"


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    handlers: list[Any] = []

    def read_handler() -> None:
        with raise_on_interrupt():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handler_before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=read_handler)
    thread.start()
    thread.join()
    assert handlers == [handler_before]
