"""Which precision a network gets on a CPU: measured once, remembered, recorded, restored."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thaw.system.devices
from tests.conftest import TINY
from tests.features.test_feature_cache import build_network
from thaw.config.compose import compose_recipe
from thaw.features.precision import choose_precision, record_precision, restore_precision
from thaw.features.speed import SpeedTest
from thaw.models.precision import NetworkPrecision, build_uniform_precision
from thaw.system.cache_checksums import read_checked_json, write_checked_json
from thaw.system.devices import Devices, ProcessTopology
from thaw.system.reporter import Reporter

ONE_PROCESS = Devices("cpu", ProcessTopology(1), is_fsdp=False)
RECIPE = compose_recipe([*TINY, "trainer.precision=auto"])
SIZE = 8


class LineReporter(Reporter):
    """Remembers the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str = "") -> None:
        self.lines.append(text)


def use_cpu(monkeypatch: pytest.MonkeyPatch, folder: Path, flags: str) -> None:
    """Let the CPU have the given flags."""
    file = folder / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: Test\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(thaw.system.devices, "CPUINFO_FILE", file)


@pytest.fixture
def _bf16_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_cpu(monkeypatch, tmp_path, "avx512_bf16 amx_bf16")


def build_speed_test(folder: Path, reporter: Reporter | None = None) -> SpeedTest:
    return SpeedTest(build_network(), "tiny", SIZE, folder, reporter or LineReporter())


def remember_speedups(folder: Path, frozen: float, training: float) -> None:
    """Replace the times that were measured in `folder` by times with these speedups of bf16."""
    for file in folder.glob("*.json"):
        content = read_checked_json(file)
        speedup = {"frozen pass": frozen, "training step": training}[content["kind"]]
        seconds = 1.0 if content["precision"] == "32-true" else 1 / speedup
        write_checked_json(file, {**content, "seconds": dict.fromkeys(content["seconds"], seconds)})


def choose(folder: Path, num_frozen_stages: int = 1, **changes: Any) -> NetworkPrecision:
    recipe, devices, reporter = (
        changes.get(name, default)
        for name, default in (("recipe", RECIPE), ("devices", ONE_PROCESS), ("reporter", LineReporter()))
    )
    return choose_precision(recipe, devices, num_frozen_stages, build_speed_test(folder, reporter))


@pytest.mark.usefixtures("_bf16_cpu")
@pytest.mark.parametrize(
    ("speedups", "expected"),
    [
        ((1.8, 1.9), build_uniform_precision("bf16-mixed")),
        ((1.8, 0.6), NetworkPrecision("32-true", "bf16-mixed", 1)),
        ((1.1, 1.3), NetworkPrecision("bf16-mixed", "32-true", 1)),
        ((1.1, 1.1), build_uniform_precision("32-true")),
    ],
)
def test_each_part_gets_bf16_where_it_is_faster(
    speedups: tuple[float, float], expected: NetworkPrecision, tmp_path: Path
) -> None:
    choose(tmp_path)
    remember_speedups(tmp_path, *speedups)
    reporter = LineReporter()
    assert choose(tmp_path, reporter=reporter) == expected
    (line,) = reporter.lines
    assert all(f"{speedup} times as fast" in line for speedup in speedups)
    assert ("trainer.precision=32-true" in line) == (expected != build_uniform_precision("32-true"))


@pytest.mark.usefixtures("_bf16_cpu")
def test_a_part_that_there_is_not_is_not_measured(tmp_path: Path) -> None:
    choose(tmp_path, num_frozen_stages=2)
    kinds = {read_checked_json(file)["kind"] for file in tmp_path.glob("*.json")}
    assert kinds == {"frozen pass"}
    remember_speedups(tmp_path, 2.0, 2.0)
    assert choose(tmp_path, num_frozen_stages=2) == NetworkPrecision("32-true", "bf16-mixed", 2)
    choose(tmp_path, num_frozen_stages=0)
    remember_speedups(tmp_path, 2.0, 2.0)
    assert choose(tmp_path, num_frozen_stages=0) == build_uniform_precision("bf16-mixed")


@pytest.mark.usefixtures("_bf16_cpu")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_a_recipe_that_names_a_precision_measures_nothing(precision: str, tmp_path: Path) -> None:
    recipe = compose_recipe([*TINY, f"trainer.precision={precision}"])
    assert choose(tmp_path, recipe=recipe) == build_uniform_precision(precision)
    assert not list(tmp_path.glob("*.json"))


def test_a_cpu_without_instructions_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cpu(monkeypatch, tmp_path, "avx2 avx512f")
    assert choose(tmp_path) == build_uniform_precision("32-true")
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.usefixtures("_bf16_cpu")
def test_several_processes_measure_nothing(tmp_path: Path) -> None:
    devices = dataclasses.replace(ONE_PROCESS, topology=ProcessTopology(2))
    assert choose(tmp_path, devices=devices) == build_uniform_precision("32-true")
    assert not list(tmp_path.glob("*.json"))


def test_a_measurement_changes_nothing_but_the_folder(tmp_path: Path) -> None:
    speed_test, num_threads = build_speed_test(tmp_path), torch.get_num_threads()
    network = speed_test.network.train()
    network.precision, network.num_frozen_stages = NetworkPrecision("32-true", "bf16-mixed", 1), 1
    state, rng_state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    speed_test.measure_frozen_pass("bf16-mixed")
    speed_test.measure_training_step("bf16-mixed", torch.channels_last)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.is_contiguous() for parameter in network.parameters())
    assert (network.training, network.num_frozen_stages) == (True, 1)
    assert network.precision == NetworkPrecision("32-true", "bf16-mixed", 1)
    assert torch.equal(torch.get_rng_state(), rng_state)
    assert torch.get_num_threads() == num_threads


class SlowLayer(nn.Module):
    """Counts the calls from all networks."""

    calls = 0
    barrier = threading.Event()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        SlowLayer.calls += 1
        SlowLayer.barrier.wait(0.05)
        return values


def test_measurements_at_the_same_time_decide_alike(tmp_path: Path) -> None:
    tests = [build_speed_test(tmp_path) for _ in range(4)]
    for test in tests:
        test.network.stages["stem"].append(SlowLayer())
    with ThreadPoolExecutor(len(tests)) as pool:
        seconds = list(pool.map(lambda test: test.measure_frozen_pass("32-true"), tests))
    assert seconds == [seconds[0]] * len(tests)
    assert SlowLayer.calls == 6, "two memory formats, three times each, by one of the four"


def test_a_measurement_is_that_of_one_cpu_network_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed_test = build_speed_test(tmp_path)
    changes: list[Callable[[], SpeedTest]] = [
        lambda: speed_test,
        lambda: dataclasses.replace(speed_test, size=SIZE + 2),
        lambda: dataclasses.replace(speed_test, architecture="other"),
    ]
    for number, build in enumerate(changes, 1):
        build().measure_frozen_pass("32-true")
        assert len(list(tmp_path.glob("*.json"))) == number
    use_cpu(monkeypatch, tmp_path, "another")
    speed_test.measure_frozen_pass("32-true")
    assert len(list(tmp_path.glob("*.json"))) == len(changes) + 1


SPLIT = NetworkPrecision("32-true", "bf16-mixed", 3)


@pytest.mark.parametrize(
    ("precision", "recorded_on", "here", "flags", "expected"),
    [
        ("auto", "cpu", "cpu", "amx_bf16", SPLIT),
        ("auto", "cpu", "cpu", "avx2", build_uniform_precision("32-true")),
        ("auto", "gpu", "cpu", "amx_bf16", build_uniform_precision("32-true")),
        ("32-true", "cpu", "cpu", "amx_bf16", build_uniform_precision("32-true")),
        ("64-true", "cpu", "cpu", "amx_bf16", build_uniform_precision("64-true")),
        ("auto", None, "cpu", "amx_bf16", build_uniform_precision("32-true")),
    ],
)
def test_a_recorded_precision_applies_where_it_can(
    precision: str,
    recorded_on: str | None,
    here: str,
    flags: str,
    expected: NetworkPrecision,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_cpu(monkeypatch, tmp_path, flags)
    entry = record_precision(SPLIT, recorded_on) if recorded_on else None
    trainer = RECIPE.trainer.model_copy(update={"precision": precision})
    assert restore_precision(entry, trainer, here) == expected


def test_features_up_to_a_frozen_stage_are_the_same_whatever_trains_after_it() -> None:
    assert SPLIT.describe_stages(3) == NetworkPrecision("bf16-mixed", "bf16-mixed").describe_stages(3)
    assert len({SPLIT.describe_stages(4), build_uniform_precision("bf16-mixed").describe_stages(4), "32-true"}) == 3
    assert [SPLIT.get_output_dtype(depth) for depth in (3, 4)] == [torch.bfloat16, torch.float32]
