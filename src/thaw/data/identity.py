"""Tell the images that a network was trained or selected on from others, wherever they are stored now.

A checkpoint carries the first digits of the hash of each train and validation image. Images are recognized by content:
not by their path, nor by the split that is drawn for them after images were added.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from thaw.config.schema_dataset import StrictModel
from thaw.data.sample_table import HashTable
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

    def recognize(self, hashes: HashTable) -> dict[str, np.ndarray]:
        """Return which files the network was selected (`val`) and trained on (`train`), bool [files]. A file may be
        among both."""
        digests = {"val": self.val, "train": self.train}
        return {name: np.isin(_shorten(hashes), _parse_digests(digits)) for name, digits in digests.items()}


def build_identity(fingerprint: str, samples: Samples) -> DataIdentity:
    """Build the identity of the data with `fingerprint`, of which a network is trained on `samples`."""
    short_hashes = _shorten(samples.hashes)
    train, val = (_format_digests(short_hashes[samples.get_positions(split)]) for split in ("train", "val"))
    return DataIdentity(fingerprint=fingerprint, train=train, val=val)


def _shorten(hashes: HashTable) -> np.ndarray:
    """Return the first NUM_DIGITS digits of each hash as a number, which sorts as they do."""
    return np.ascontiguousarray(hashes.digests[:, : NUM_DIGITS // 2]).view(">u8").ravel()


def _format_digests(short_hashes: np.ndarray) -> str:
    return np.unique(short_hashes).astype(">u8").tobytes().hex()


def _parse_digests(digits: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(digits), ">u8")
