"""Measure how fast a network computes on this CPU, once per machine, and choose the fastest memory format by it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from thaw.features.forward import MEMORY_FORMATS, evaluation_mode
from thaw.models.network import Network
from thaw.models.precision import autocast, build_uniform_precision
from thaw.system.cache_checksums import DamagedEntryError, read_checked_json, write_checked_json
from thaw.system.cache_folder import compute_cache_key, raise_write_errors
from thaw.system.devices import get_cpu_name
from thaw.system.reporter import SILENT, Reporter

MEASUREMENTS_FOLDER = "measured"  # in the cache folder
FORMAT_VERSION = 3  # of the files of measured times
NUM_IMAGES, NUM_RUNS = 4, 2
Seconds = dict[str, float]


@dataclass(frozen=True)
class SpeedTest:
    """Measures `network` on images of `size` x `size` pixels, on the CPU.

    Each time is measured once and kept in `folder`, for the CPU's model and torch's version: another precision or
    memory format rounds differently, and a run has to repeat to the last bit. A time is the CPU seconds of one thread
    for NUM_IMAGES images, so that neither the number of threads nor other programs on the machine change the outcome.
    """

    network: Network
    architecture: str
    size: int
    folder: Path
    reporter: Reporter = SILENT

    def measure_frozen_pass(self, precision: str) -> Seconds:
        """Return the seconds of a forward pass in evaluation mode at Lightning's `precision`, by memory format.

        Raises:
            UserError: if the cache folder cannot be written.
        """
        return self._measure_once(
            lambda: {name: self._measure_forward(precision, name) for name in MEMORY_FORMATS},
            {"kind": "frozen pass", "precision": precision},
        )

    def measure_training_step(self, precision: str, memory_format: torch.memory_format) -> float:
        """Return the seconds of a forward and a backward pass through all stages in training mode.

        Raises:
            UserError: if the cache folder cannot be written.
        """
        name = next(name for name, value in MEMORY_FORMATS.items() if value is memory_format)
        seconds = self._measure_once(
            lambda: {name: self._measure_training(precision, memory_format)},
            {"kind": "training step", "precision": precision, "memory_format": name},
        )
        return seconds[name]

    def _measure_once(self, measure: Callable[[], Seconds], kind: dict[str, str]) -> Seconds:
        subject = {"architecture": self.architecture, "size": self.size, "cpu": get_cpu_name()}
        key = compute_cache_key(layout=FORMAT_VERSION, torch=torch.__version__, **subject, **kind)
        file = self.folder / f"{key}.json"
        if seconds := _read_seconds(file):
            return seconds
        with raise_write_errors(file):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f".{file.stem}.lock")):  # others wait, and then decide by the same times
                if not (seconds := _read_seconds(file, self.reporter)):
                    seconds = measure()
                    write_checked_json(file, {**subject, **kind, "seconds": seconds})
        return seconds

    def _measure_forward(self, precision: str, memory_format: str) -> float:
        images = self._build_images().contiguous(memory_format=MEMORY_FORMATS[memory_format])
        previous_precision, self.network.precision = self.network.precision, build_uniform_precision(precision)
        try:
            with evaluation_mode(self.network, MEMORY_FORMATS[memory_format]):
                return _measure_seconds(lambda: self.network.forward_stages(images, 0, len(self.network.stages)))
        finally:
            self.network.precision = previous_precision

    def _measure_training(self, precision: str, memory_format: torch.memory_format) -> float:
        network = copy.deepcopy(self.network)  # statistics and gradients of the network itself must not change
        network.train().requires_grad_(True).to(memory_format=memory_format)
        network.num_frozen_stages, network.precision = 0, build_uniform_precision(precision)
        images = self._build_images().contiguous(memory_format=memory_format)

        def step() -> None:
            with autocast("cpu", precision):
                logits = network(images)
            logits.float().square().mean().backward()

        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            return _measure_seconds(step)

    def _build_images(self) -> Tensor:
        generator, dtype = torch.Generator().manual_seed(0), next(self.network.parameters()).dtype
        return torch.rand(NUM_IMAGES, 3, self.size, self.size, generator=generator, dtype=dtype)


def find_fastest_memory_format(speed_test: SpeedTest, device: torch.device) -> str:
    """Return the key of MEMORY_FORMATS that is faster for frozen passes of a network at its precision.

    The tensor cores of a GPU need channels last. On a CPU it depends on the network, so it is measured there: channels
    last is faster for EfficientNet-Lite0 (18 ms per image instead of 48, batches of 8), slower for others.
    """
    if device.type != "cpu":
        return "channels_last" if device.type == "cuda" else "contiguous"
    seconds = speed_test.measure_frozen_pass(speed_test.network.precision.of_first_stage)
    return min(seconds, key=lambda name: seconds[name])


def _read_seconds(file: Path, reporter: Reporter = SILENT) -> Seconds:
    """Return the measured seconds, or an empty dictionary if there are none."""
    try:
        return dict(read_checked_json(file)["seconds"])
    except FileNotFoundError:
        return {}
    except DamagedEntryError:
        reporter.warn(f"the measured times in {file} were damaged and are measured again")
        return {}


def _measure_seconds(step: Callable[[], object]) -> float:
    """Return the CPU seconds of the fastest run in one thread; a first run, which warms up, does not count."""
    seconds = []
    with _use_one_thread():
        for _ in range(1 + NUM_RUNS):
            start = time.thread_time()
            step()
            seconds.append(time.thread_time() - start)
    return min(seconds[1:])


@contextmanager
def _use_one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
