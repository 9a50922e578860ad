"""The precision of each part of a network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

SINGLE_PRECISION, DOUBLE_PRECISION, BF16_PRECISION = "32-true", "64-true", "bf16-mixed"  # Lightning's names
AUTOCAST_DTYPES = {BF16_PRECISION: torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class NetworkPrecision:
    """The precision of each part of a network, by Lightning's names.

    `frozen` is that of the first `num_frozen_stages` stages, `trained` that of the other stages and the head. The
    network itself computes the former at their precision; for the latter the caller opens the autocast context, as
    Lightning does. If all parts have one precision, `num_frozen_stages` is 0.
    """

    trained: str = SINGLE_PRECISION
    frozen: str = SINGLE_PRECISION
    num_frozen_stages: int = 0

    @property
    def of_first_stage(self) -> str:
        """The precision of the first stage."""
        return self.frozen if self.num_frozen_stages else self.trained

    def get_output_dtype(self, depth: int) -> torch.dtype:
        """Return the type of the output of the first `depth` stages."""
        precision = self.frozen if depth <= self.num_frozen_stages else self.trained
        return AUTOCAST_DTYPES.get(precision, torch.float64 if precision == DOUBLE_PRECISION else torch.float32)

    def describe_stages(self, depth: int) -> str:
        """Return a text that is equal for equal precisions of the first `depth` stages."""
        if depth <= self.num_frozen_stages or not self.num_frozen_stages:
            return self.of_first_stage
        return f"{self.frozen} in {self.num_frozen_stages} stages, then {self.trained}"


def build_uniform_precision(precision: str) -> NetworkPrecision:
    """Return the precision of a network that has one `precision` in all parts."""
    return NetworkPrecision(precision, precision)


def autocast(device_type: str, precision: str) -> AbstractContextManager[object]:
    """Return the autocast context of Lightning's `precision`; one without autocast if it needs none."""
    if precision in AUTOCAST_DTYPES:
        return torch.autocast(device_type, dtype=AUTOCAST_DTYPES[precision])
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()
