"""Augment training images: sample the parameters of each image here, apply them to batches in `transforms`. Views of an
image for test-time augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from thaw.config.schema import AugmentConfig
from thaw.data.transforms import affine_matrices, build_color_matrices

NUM_CROP_CANDIDATES = 10  # random boxes per image, of which the first that fits is used, as in torchvision
AREA, ASPECT = slice(0, NUM_CROP_CANDIDATES), slice(NUM_CROP_CANDIDATES, 2 * NUM_CROP_CANDIDATES)
TOP, LEFT, FLIP, ANGLE, BRIGHTNESS, CONTRAST, SATURATION, HUE = range(
    2 * NUM_CROP_CANDIDATES, 2 * NUM_CROP_CANDIDATES + 8
)
ERASE, ERASED_AREA, ERASED_ASPECT, ERASED_TOP, ERASED_LEFT = range(HUE + 1, HUE + 6)
NUM_COLUMNS = ERASED_LEFT + 1  # each transformation has its own columns: adding one does not change the others
POLICY, VIEW = NUM_COLUMNS, NUM_COLUMNS + 1
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix64
CROP_KINDS = ("five_crop", "ten_crop")
FLIP_KINDS = ("flip", "ten_crop")


@dataclass(frozen=True)
class CachedViews:
    """Views of each train image that a feature cache holds, so that training can read them instead of augmenting.

    Attributes:
        kind: `plain`, one view that is not augmented; `flipped`, the image and its mirror image, which is exact;
            `sampled`, some random views, an approximation of a new one per epoch; `none`, no features can be cached.
        count: number of views per train image; 0 for `none`.
        reason: why no features can be cached; empty unless `kind` is `none`.
    """

    kind: Literal["plain", "flipped", "sampled", "none"]
    count: int
    reason: str = ""


@dataclass(frozen=True)
class Augmentation:
    """Random transformations of training images. The default is none at all.

    Attributes:
        scale: range of the fraction of the area that a random resized crop covers (Szegedy et al. 2015); None for none.
        ratio: range of the width to height of that crop.
        center: central fraction of the sides of that crop that is used.
        shift: crop the network's input size at a random position.
        flip: probability of a horizontal flip.
        rotation: maximum angle in degrees.
        jitter: maximum change of brightness, contrast and saturation (factors 1 - x to 1 + x) and of hue (turns).
        erase: probability of erasing a box of 2 to 33 % of the area, aspect ratio 0.3 to 3.3 (Zhong et al. 2017).
        mixup: parameter of the Beta distribution of mixup's fractions (Zhang et al. 2018); 0 for none.
        cutmix: parameter of the Beta distribution of CutMix's fractions (Yun et al. 2019); 0 for none.
        policy: torchvision's `rand_augment` or `trivial_augment`, applied before cropping.
    """

    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    center: float = 1.0
    shift: bool = False
    flip: float = 0.0
    rotation: float = 0.0
    jitter: tuple[float, float, float, float] | None = None
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    policy: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no transformation is enabled."""
        return self == Augmentation()

    def plan_cached_views(self, num_samples: int | None) -> CachedViews:
        """Decide which views of each train image a feature cache can hold, or why none.

        `num_samples` is the number of random views that may replace a new one per epoch; None allows exact views only.
        """
        if self.is_empty:
            return CachedViews("plain", 1)
        if self.mixup or self.cutmix:
            return CachedViews("none", 0, "mixup and CutMix mix images anew in every epoch")
        if self.flip > 0 and replace(self, flip=0.0).is_empty:
            return CachedViews("flipped", 2)
        if num_samples is None:
            fix = "feature_cache.views=8 trains on 8 views of each instead"
            return CachedViews("none", 0, f"augmentation changes images anew in every epoch; {fix}")
        return CachedViews("sampled", num_samples)

    def compute_flip_mask(self, seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Return which images `sample_params` flips, bool [n]."""
        return np.asarray(counter_uniform(seed, epoch, positions, NUM_COLUMNS)[:, FLIP] < self.flip)

    def sample_view_indices(self, num_views: int, seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Choose one of `num_views` views of each image at random, int64 [n], 0 <= x < `num_views`."""
        return (counter_uniform(seed, epoch, positions, VIEW + 1)[:, VIEW] * num_views).astype(np.int64)

    def sample_params(
        self, image_sizes: np.ndarray, size: int, seed: int, epoch: int, positions: np.ndarray
    ) -> dict[str, Tensor]:
        """Sample the parameters that `transforms.apply_augmentation` takes, for an output of `size` x `size` pixels.

        `image_sizes` is int64 [n, 2] (height, width); each image lies in the upper left of a canvas of the largest
        height and width. `positions`, int64 [n], identify the images.
        """
        random_values = counter_uniform(seed, epoch, positions, NUM_COLUMNS)
        params = self._compute_affine_params(image_sizes, size, random_values)
        if self.jitter:
            params |= _compute_color_params(random_values, self.jitter)
        if self.erase:
            params["erase_boxes"] = torch.from_numpy(self._compute_erase_boxes(size, random_values))
        if self.mixup or self.cutmix:
            rng = np.random.default_rng((seed, epoch, int(positions[0])))
            params |= self._sample_mixing_params(size, rng, len(positions))
        return params

    def _compute_affine_params(
        self, image_sizes: np.ndarray, size: int, random_values: np.ndarray
    ) -> dict[str, Tensor]:
        boxes = (
            _compute_crop_boxes(image_sizes, self.scale, self.ratio, random_values)
            if self.scale
            else _compute_crop_windows(image_sizes, size, self.shift, random_values)
        )
        center, extent = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:] * self.center
        flip_sign = np.where(random_values[:, FLIP] < self.flip, -1.0, 1.0)
        angle = np.deg2rad((2 * random_values[:, ANGLE] - 1) * self.rotation)
        return affine_matrices(center, extent, flip_sign, angle, image_sizes)

    def _compute_erase_boxes(self, size: int, random_values: np.ndarray) -> np.ndarray:
        """Return float32 [n, 4]: top, left, bottom, right in pixels of the output; an empty box erases nothing."""
        area = size**2 * (0.02 + 0.31 * random_values[:, ERASED_AREA])
        aspect = np.exp(np.log(0.3) + np.log(3.3 / 0.3) * random_values[:, ERASED_ASPECT])
        extent = np.minimum(size, np.sqrt(np.stack([area / aspect, area * aspect], 1)))
        corner = (size - extent) * random_values[:, [ERASED_TOP, ERASED_LEFT]]
        is_erased = random_values[:, ERASE] < self.erase
        return np.concatenate([corner, corner + extent * is_erased[:, None]], 1).astype(np.float32)

    def _sample_mixing_params(self, size: int, rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        """Sample a partner for each image and the fraction that stays its own; if both methods are on, choose one."""
        is_cutmix = bool(self.cutmix) and (not self.mixup or rng.random() < 0.5)
        lam = rng.beta(self.cutmix, self.cutmix) if is_cutmix else rng.beta(self.mixup, self.mixup)
        params = {"partner": torch.from_numpy(rng.permutation(count))}
        if is_cutmix:
            box, lam = _sample_cutmix_box(size, lam, rng)
            params["cutmix_box"] = torch.tensor(box)
        return params | {"share": torch.full((count,), lam, dtype=torch.float32)}


def build_augmentation(augment: AugmentConfig) -> Augmentation:
    """Build the augmentation that a recipe's `augment` configures."""
    crop, jitter, flip = augment.random_resized_crop, augment.color_jitter, augment.horizontal_flip
    return Augmentation(
        scale=(crop.scale[0], crop.scale[1]) if crop else None,
        ratio=(crop.ratio[0], crop.ratio[1]) if crop else Augmentation.ratio,
        center=crop.center if crop else Augmentation.center,
        shift=augment.random_crop,
        flip=flip.probability if flip else 0.0,
        rotation=augment.rotation.degrees if augment.rotation else 0.0,
        jitter=(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) if jitter else None,
        erase=augment.random_erasing.probability if augment.random_erasing else 0.0,
        mixup=augment.mixup.alpha if augment.mixup else 0.0,
        cutmix=augment.cutmix.alpha if augment.cutmix else 0.0,
        policy=augment.policy,
    )


def _compute_color_params(random_values: np.ndarray, jitter: tuple[float, float, float, float]) -> dict[str, Tensor]:
    jitter_directions = 2 * random_values[:, [BRIGHTNESS, CONTRAST, SATURATION, HUE]] - 1
    brightness, contrast, saturation, hue_shift = (jitter_directions * np.array(jitter)).T
    matrices = build_color_matrices(1 + brightness, 1 + saturation, hue_shift)
    return {"color": matrices, "contrast": torch.from_numpy(1 + contrast).float()}


def _sample_cutmix_box(size: int, lam: float, rng: np.random.Generator) -> tuple[list[int], float]:
    """Return a box of about 1 - `lam` of the area (top, left, bottom, right) and the fraction that it leaves."""
    half_side = size * math.sqrt(1 - lam) / 2
    row, column = rng.integers(size), rng.integers(size)
    top, left = (max(0, round(center - half_side)) for center in (row, column))
    bottom, right = (min(size, round(center + half_side)) for center in (row, column))
    return [top, left, bottom, right], 1 - (bottom - top) * (right - left) / size**2


def _compute_crop_boxes(
    image_sizes: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float], random_values: np.ndarray
) -> np.ndarray:
    """Return float64 [n, 4]: top, left, height, width of the first of ten random boxes that fits; if none does, of the
    largest central box whose ratio is within its bounds."""
    area = image_sizes.prod(1)[:, None] * (scale[0] + (scale[1] - scale[0]) * random_values[:, AREA])
    aspect = np.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * random_values[:, ASPECT])
    extents = np.round(np.sqrt(np.stack([area / aspect, area * aspect], 2)))
    is_valid = ((extents >= 1) & (extents <= image_sizes[:, None])).all(2)
    first_valid_extent = extents[np.arange(len(image_sizes)), is_valid.argmax(1)]
    height, width = image_sizes.T
    fallback_extent = np.minimum(image_sizes, np.round(np.stack([width / ratio[0], height * ratio[1]], 1)))
    extent = np.where(is_valid.any(1)[:, None], first_valid_extent, fallback_extent)
    relative_offset = np.where(is_valid.any(1)[:, None], random_values[:, [TOP, LEFT]], 0.5)
    return np.concatenate([np.floor((image_sizes - extent + 1) * relative_offset), extent], 1)


def _compute_crop_windows(image_sizes: np.ndarray, size: int, shift: bool, random_values: np.ndarray) -> np.ndarray:
    """Return boxes as `_compute_crop_boxes` does, of `size` pixels: at a random position, or central."""
    margin = image_sizes - size
    corner = np.floor((margin + 1) * random_values[:, [TOP, LEFT]]) if shift else np.round(margin / 2.0)
    return np.concatenate([corner, np.full_like(corner, size)], 1)


def apply_policy(image: Tensor, policy: str, seed: int, epoch: int, position: int) -> Tensor:
    """Apply torchvision's `policy` to `image`, uint8 [3, height, width].

    The policy draws from torch's global generator, which is seeded for this image and then restored.
    """
    from torchvision.transforms import v2

    transform: torch.nn.Module = {"rand_augment": v2.RandAugment, "trivial_augment": v2.TrivialAugmentWide}[policy]()
    torch_seed = int(counter_uniform(seed, epoch, np.array([position]), POLICY + 1)[0, POLICY] * 2**53)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed)
        transformed: Tensor = transform(image)
    return transformed


def counter_uniform(seed: int, epoch: int, positions: np.ndarray, count: int) -> np.ndarray:
    """Return uniform random numbers 0 <= x < 1, float64 [n, count], for `positions`, int64 [n].

    Each number is a hash of (seed, epoch, position, column) by SplitMix64 (Steele, Lea and Flood 2014). That takes 0.1
    microseconds per image; a generator object per image would take 15.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is intended
        epoch_state = _mix64(_mix64(np.array([seed], np.uint64) + GOLDEN_GAMMA) + np.uint64(epoch) + GOLDEN_GAMMA)
        image_states = _mix64(epoch_state + (positions.astype(np.uint64) + np.uint64(1)) * GOLDEN_GAMMA)
        values = _mix64(image_states[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_GAMMA)
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix64(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)))


def build_views(image: Tensor, size: int, kind: str) -> Tensor:
    """Return views of `image` [3, height, width] as [views, 3, size, size].

    `flip` is the center and its mirror image, `five_crop` the center and four corners, `ten_crop` these five and their
    mirror images (Krizhevsky, Sutskever and Hinton 2012).
    """
    crops = [center_crop(image, size)]
    if kind in CROP_KINDS:
        bottom, right = (side - size for side in image.shape[1:])
        corners = [(top, left) for top in (0, bottom) for left in (0, right)]
        crops += [image[:, top : top + size, left : left + size] for top, left in corners]
    if kind in FLIP_KINDS:
        crops += [crop.flip(2) for crop in crops]
    return torch.stack(crops)


def center_crop(image: Tensor, size: int) -> Tensor:
    """Crop [3, size, size] from the center of [3, height, width], with torchvision's rounding."""
    top, left = (round((side - size) / 2.0) for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]


def average_over_views(compute_logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the logarithm of the mean of the views' probabilities, float [n, classes], for images
    [n, views, 3, size, size].

    It can be used as logits, because its softmax is that mean. Views are computed one after another, which takes no
    more memory than a prediction without views.
    """
    log_probabilities = [compute_logits(view).float().log_softmax(1) for view in images.unbind(1)]
    return torch.stack(log_probabilities).logsumexp(0) - math.log(len(log_probabilities))
