"""Tell the images that a network was trained or selected on from others, wherever they are stored now.

A checkpoint carries the first digits of the hash of each train and validation image. Images are recognized by content:
not by their path, nor by the split that is drawn for them after images were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from thaw.config.schema_dataset import StrictModel
from thaw.data.samples import Samples

NUM_DIGITS = 16  # of a file's hash, 8 bytes: two of ten million files share them with a probability of 3 in a million
Digests = Annotated[str, Field(pattern=rf"^([0-9a-f]{{{NUM_DIGITS}}})*$")]


class DataIdentity(StrictModel):
    """The data that a network was trained on."""

    fingerprint: str
    """Fingerprint of the data set as it was read, before broken images were left out."""
    train: Digests
    """The first digits of the hash of each train image, sorted, without anything between them."""
    val: Digests
    """The same of each validation image."""

    def find_splits(self, hashes: Sequence[str]) -> list[str | None]:
        """Return `train` or `val` for each file that the network was trained or selected on, None for others."""
        splits = dict.fromkeys(_split_digests(self.val), "val") | dict.fromkeys(_split_digests(self.train), "train")
        return [splits.get(file_hash[:NUM_DIGITS]) for file_hash in hashes]


def build_identity(fingerprint: str, samples: Samples) -> DataIdentity:
    """Build the identity of the data with `fingerprint`, of which a network is trained on `samples`."""
    digests: dict[str, set[str]] = {"train": set(), "val": set()}
    for sample, file_hash in zip(samples.samples, samples.hashes, strict=True):
        if sample.split in digests:
            digests[sample.split].add(file_hash[:NUM_DIGITS])
    return DataIdentity(fingerprint=fingerprint, **{split: "".join(sorted(names)) for split, names in digests.items()})


def _split_digests(digests: str) -> list[str]:
    return [digests[start : start + NUM_DIGITS] for start in range(0, len(digests), NUM_DIGITS)]
