"""Check that a network takes images of a size: on torch's meta device, before anything is downloaded or decoded."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from itertools import islice

import torch

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import BackboneConfig
from thaw.models.network import forward_zeros
from thaw.models.pretrained import build_untrained, get_default_size

# Sides of patches and windows and factors by which networks reduce an image, in pixels: networks that take only some
# sizes take multiples of one of them.
SIDES = (14, 16, 32, 56, 64, 128, 224)
MAX_TRIED_SIZES = 6  # on either side; a transformer is built in 0.1 to 1 s
Reason = Callable[[int], str]


def check_backbone(backbone: BackboneConfig, random_init: bool, size: int | None) -> None:
    """Check that there is such a network, and that it takes images of `size` x `size`.

    `size` None is that of the default weights.

    Raises:
        UserError: for a tag of timm or a name of weights that does not exist; with the nearest sizes that the network
            takes, each of which was tried.
    """
    weights = "none" if random_init else backbone.weights
    default_size = get_default_size(backbone, weights)
    if size is None or size == default_size:
        return
    find_reason = functools.partial(_find_reason, backbone.library, backbone.name, weights)
    reason = find_reason(size)
    if not reason or find_reason(default_size):
        return  # or it cannot be built without values, and the real one says what is wrong
    candidates = _list_multiples(size)
    below = _find_nearest_size(find_reason, (candidate for candidate in candidates if candidate < size))
    above = _find_nearest_size(find_reason, (candidate for candidate in candidates if candidate > size))
    nearest = min(filter(None, (below, above, default_size)), key=lambda valid_size: abs(valid_size - size))
    fix = f"dataset.image_size={nearest}"
    if nearest != default_size:
        fix += f", or dataset.image_size=null, the {default_size} pixels of the default weights"
    valid = _describe_sizes(below, above, default_size)
    problem = Problem(f"dataset.image_size={size}", reason, valid, fix)
    raise UserError(f"{backbone.name} does not take images of {size} pixels.", [problem])


@functools.cache  # for the jobs of a sweep
def _find_reason(library: str, name: str, weights: str, size: int) -> str:
    """Return why the network does not take images of `size`; empty if it does."""
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            forward_zeros(build_untrained(library, name, weights, size), size)
    except UserError:
        raise
    except Exception as error:  # constructors and layers fail in many ways
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ""


def _find_nearest_size(find_reason: Reason, candidates: Iterable[int]) -> int | None:
    """Return the first of the nearest `candidates` that the network takes."""
    return next((size for size in islice(candidates, MAX_TRIED_SIZES) if not find_reason(size)), None)


def _list_multiples(size: int) -> list[int]:
    """Return the multiples of usual sides around `size`, the nearest first."""
    multiples = {count * side for side in SIDES for count in (size // side, size // side + 1, size // side + 2)}
    return sorted(multiples - {0, size}, key=lambda multiple: abs(multiple - size))


def _describe_sizes(below: int | None, above: int | None, default_size: int) -> str:
    """List sizes that the network takes, and the step where the two around the given size are one step apart."""
    sizes = sorted({size for size in (below, above, default_size) if size})
    names = f"{format_names(map(str, sizes))} pixels"
    steps = [side for side in SIDES if below and above and above - below == side and not any(s % side for s in sizes)]
    return f"multiples of {steps[0]}: {names}" if steps else names
