"""A trained network as a file for others: written aside, held against the network, and only then given its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from thaw.config.faults import Fault, UserFault
from thaw.trained.export_formats import FORMATS, Logits, metadata_of, shipped
from thaw.trained.restore import Restored

BATCHES = (1, 7)  # both in every check: a batch whose number has become a constant fails
ROUNDING = 1e-3  # of the largest logit. Measured: 1e-6 to 1e-5, float32, CPU, between torch and onnxruntime


@dataclass(frozen=True)
class Checked:
    """An export beside its network on `images`: how many have the same class, and the largest differences of logits and
    of probabilities. `largest_logit` is the network's."""

    images: int
    same: int
    of_logits: float
    of_probabilities: float
    largest_logit: float

    @property
    def is_rounding(self) -> bool:
        """Also says that classes differ only where two logits are as near as that."""
        return self.of_logits <= ROUNDING * max(1.0, self.largest_logit)


class NotTheSame(Exception):
    """An export that computes something else than its network; it was deleted."""

    def __init__(self, checked: Checked) -> None:
        super().__init__()
        self.checked = checked


def exported(trained: Restored, name: str, file: Path, pixels: Tensor) -> Checked:
    """Writes `trained` to `file` in the format `name`, having held it against the network on uint8 `pixels`
    [n, 3, size, size]. A file that was there stays as it was until the new one has passed.

    Raises:
        NotTheSame: where the two differ by more than rounding can explain.
        UserFault: where the format cannot hold the network.
    """
    form, aside = FORMATS[name], file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")
    try:
        _write(trained, name, aside)
        checked = _compared(_network(trained), form.logits_of(aside), pixels)
        if not checked.is_rounding:
            raise NotTheSame(checked)
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
    return checked


def _write(trained: Restored, name: str, file: Path) -> None:
    try:
        FORMATS[name].write(trained, metadata_of(trained, normalised_inside=name != "safetensors"), file)
    except RuntimeError as error:  # of torch's exporters, which do not take every network
        others = " or ".join(f"--format {one}" for one in FORMATS if one != name)
        got = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        fault = Fault(f"--format {name} of {trained.recipe.backbone.name}", got, fix=others)
        raise UserFault("this network cannot be written in this format.", [fault]) from error


def _network(trained: Restored) -> Logits:
    whole = shipped(trained)
    return torch.inference_mode()(lambda images: whole(images)[0])


def _compared(network: Logits, export: Logits, pixels: Tensor) -> Checked:
    count = len(pixels)
    enough = pixels[torch.arange(max(count, sum(BATCHES))) % count]  # of few images some are seen again
    pieces = list(_pieces(enough))
    ours, theirs = (torch.cat([run(piece) for piece in pieces])[:count] for run in (network, export))
    differs = (ours - theirs).abs().nan_to_num(torch.inf)
    probabilities = (ours.softmax(1) - theirs.softmax(1)).abs().nan_to_num(1.0)
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    return Checked(count, same, float(differs.max()), float(probabilities.max()), float(ours.abs().max()))


def _pieces(pixels: Tensor) -> Iterator[Tensor]:
    """One image, then seven at a time."""
    alone, many = BATCHES
    yield pixels[:alone]
    yield from torch.split(pixels[alone:], many)
