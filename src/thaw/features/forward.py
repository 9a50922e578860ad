"""Run the stages of a network for inference, in the fastest memory format."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from thaw.models.network import Network, pool
from thaw.system.cache_checksums import DamagedEntryError, read_checked_json, write_checked_json
from thaw.system.cache_folder import compute_cache_key
from thaw.system.reporter import SILENT, Reporter

AUTOCAST_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # by Lightning's name of the precision
DOUBLE_PRECISION = "64-true"
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
FORMAT_VERSION = 2  # of the file of measured times
NUM_TIMING_IMAGES, NUM_TIMING_RUNS = 4, 2


def get_dtype(precision: str) -> torch.dtype:
    """Return the type that stages output at Lightning's `precision`."""
    return AUTOCAST_DTYPES.get(precision, torch.float64 if precision == DOUBLE_PRECISION else torch.float32)


@contextmanager
def evaluation_mode(network: Network, memory_format: torch.memory_format, precision: str) -> Iterator[None]:
    """Put `network` into evaluation mode and `memory_format`, under inference mode and the autocast of `precision`.
    Afterwards restore its modes and memory format."""
    training_modes = {module: module.training for module in network.modules()}
    previous_format = memory_format_of(network)
    network.eval().to(memory_format=memory_format)  # not in inference mode, whose tensors cannot be trained
    try:
        with torch.inference_mode(), autocast(network, precision):
            yield
    finally:
        network.to(memory_format=previous_format)
        for module, mode in training_modes.items():
            module.training = mode


def memory_format_of(network: Network) -> torch.memory_format:
    """Return the memory format of the weights."""
    is_contiguous = all(parameter.is_contiguous() for parameter in network.parameters())
    return torch.contiguous_format if is_contiguous else torch.channels_last


def autocast(network: Network, precision: str) -> AbstractContextManager[object]:
    """Return the autocast context of Lightning's `precision` on the device of `network`."""
    if precision not in AUTOCAST_DTYPES:
        return nullcontext()
    return torch.autocast(next(network.parameters()).device.type, dtype=AUTOCAST_DTYPES[precision])


def iter_stage_outputs(network: Network, images: Tensor, depths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield each of `depths`, ascending, with the output of the leading stages for normalized `images`.

    `images` is [n, 3, size, size]. Each output is computed from the previous one. The output of all stages is pooled to
    vectors, which the head takes.
    """
    start = 0
    for depth in depths:
        images = network.forward_stages(images, start, depth)
        start = depth
        yield depth, pool(images) if depth == len(network.stages) else images


def find_fastest_memory_format(
    network: Network,
    size: int,
    architecture: str,
    measurements_dir: Path,
    device: torch.device,
    reporter: Reporter = SILENT,
) -> torch.memory_format:
    """Return the faster of contiguous and channels last for images of `size` x `size` pixels.

    The tensor cores of a GPU need channels last. On a CPU it depends on the network: faster for EfficientNet-Lite0
    (18 ms per image instead of 48, batches of 8), slower for others. So it is measured there once and the result kept
    in `measurements_dir`: another format rounds differently, and a run has to repeat to the last bit.
    """
    if device.type != "cpu":
        return torch.channels_last if device.type == "cuda" else torch.contiguous_format
    key = compute_cache_key(layout=FORMAT_VERSION, architecture=architecture, size=size, torch=torch.__version__)
    seconds = _read_seconds(measurements_dir / f"{key}.json", reporter)
    if not seconds:
        seconds = {
            name: _measure_seconds(network, size, memory_format) for name, memory_format in MEMORY_FORMATS.items()
        }
        measurements_dir.mkdir(parents=True, exist_ok=True)
        content = {"architecture": architecture, "size": size, "seconds": seconds}
        write_checked_json(measurements_dir / f"{key}.json", content)
    return MEMORY_FORMATS[min(seconds, key=lambda name: seconds[name])]


def _read_seconds(file: Path, reporter: Reporter) -> dict[str, float]:
    """Return the measured seconds by memory format, or an empty dictionary if there are none."""
    try:
        return dict(read_checked_json(file)["seconds"])
    except FileNotFoundError:
        return {}
    except DamagedEntryError:
        reporter.warn(f"the measured times in {file} were damaged and are measured again")
        return {}


def _measure_seconds(network: Network, size: int, memory_format: torch.memory_format) -> float:
    """Return the time of the fastest run; a first run, which warms up, does not count."""
    dtype = next(network.parameters()).dtype
    images = torch.zeros(NUM_TIMING_IMAGES, 3, size, size, dtype=dtype).contiguous(memory_format=memory_format)
    times = []
    with evaluation_mode(network, memory_format, ""):
        for _ in range(1 + NUM_TIMING_RUNS):
            start_time = time.perf_counter()
            network.forward_stages(images, 0, len(network.stages))
            times.append(time.perf_counter() - start_time)
    return min(times[1:])
