"""Choose the precision of a network's parts on this machine, or restore it from a record."""

from __future__ import annotations

from dataclasses import asdict

from thaw.config.schema import Recipe, TrainerConfig
from thaw.features.speed import SpeedTest
from thaw.models.precision import BF16_PRECISION, SINGLE_PRECISION, NetworkPrecision, build_uniform_precision
from thaw.runs.schema import PrecisionEntry
from thaw.system.devices import Devices, has_bf16_instructions, resolve_memory_format, resolve_precision

MIN_SPEEDUP = 1.2  # of bf16 over float32; with less, its coarser rounding gains nothing


def choose_precision(
    recipe: Recipe, devices: Devices, num_frozen_stages: int, speed_test: SpeedTest
) -> NetworkPrecision:
    """Choose the precision of a network whose first `num_frozen_stages` stages no phase trains.

    `trainer.precision=auto` in one process on a CPU with bf16 instructions means bf16 where it was measured to be
    MIN_SPEEDUP times as fast: frozen stages and training each, since depthwise convolutions gain in frozen passes only.
    A head that trains alone stays in float32. Several processes of a CPU use float32.

    Raises:
        UserError: if the cache folder cannot be written.
    """
    precision = resolve_precision(recipe.trainer, devices.accelerator)
    is_one_cpu_process = devices.accelerator == "cpu" and devices.topology.world_size == 1
    if recipe.trainer.precision != "auto" or not is_one_cpu_process or not has_bf16_instructions():
        return build_uniform_precision(precision)
    frozen = trained = SINGLE_PRECISION
    outcomes = list[str]()
    if num_frozen_stages:
        seconds = [min(speed_test.measure_frozen_pass(name).values()) for name in (SINGLE_PRECISION, BF16_PRECISION)]
        frozen = _choose("frozen stages", seconds[0] / seconds[1], outcomes)
    if num_frozen_stages < len(speed_test.network.stages):
        memory_format = resolve_memory_format(recipe.backbone, devices.accelerator)
        seconds = [speed_test.measure_training_step(name, memory_format) for name in (SINGLE_PRECISION, BF16_PRECISION)]
        trained = _choose("training", seconds[0] / seconds[1], outcomes)
    switch = "; trainer.precision=32-true switches bf16 off" if BF16_PRECISION in (frozen, trained) else ""
    speed_test.reporter.write(f"precision: {'; '.join(outcomes)}{switch}\n")
    if not num_frozen_stages or frozen == trained:
        return build_uniform_precision(trained)
    return NetworkPrecision(trained, frozen, num_frozen_stages)


def _choose(subject: str, speedup: float, outcomes: list[str]) -> str:
    """Return the precision for a measured `speedup` of bf16, and add to `outcomes` what was chosen."""
    is_faster = speedup >= MIN_SPEEDUP
    text = (
        f"bf16, {speedup:.1f} times as fast as float32" if is_faster else f"float32 (bf16: {speedup:.1f} times as fast)"
    )
    outcomes.append(f"{subject} in {text}")
    return BF16_PRECISION if is_faster else SINGLE_PRECISION


def record_precision(precision: NetworkPrecision, accelerator: str) -> PrecisionEntry:
    """Return the entry of `precision`, chosen for `accelerator`, in a run and in a checkpoint."""
    return PrecisionEntry.model_validate({"accelerator": accelerator, **asdict(precision)})


def restore_precision(entry: PrecisionEntry | None, trainer: TrainerConfig, accelerator: str) -> NetworkPrecision:
    """Return the recorded precision, measuring nothing.

    A recipe that names a precision gets that one. What was recorded on a CPU does not apply to a GPU, nor to a CPU
    without the instructions; versions up to 0.2 recorded nothing.

    Raises:
        UserError: for half precision on a CPU.
    """
    precision = build_uniform_precision(resolve_precision(trainer, accelerator))
    if entry is None or trainer.precision != "auto" or not entry.accelerator == accelerator == "cpu":
        return precision
    recorded = NetworkPrecision(entry.trained, entry.frozen, entry.num_frozen_stages)
    needs_bf16 = BF16_PRECISION in (recorded.trained, recorded.frozen)
    return precision if needs_bf16 and not has_bf16_instructions() else recorded
