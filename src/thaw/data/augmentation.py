"""Random changes of training images, in two halves: what is drawn (numbers an image, where batches are loaded) and what
is done (on whole batches, on the device, see `changes`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from thaw.config.schema import Augment
from thaw.data.chance import uniforms
from thaw.data.changes import colour_matrices, placements

TRIES = 10  # random boxes an image, of which the first that fits is taken, as torchvision does
AREA, ASPECT = slice(0, TRIES), slice(TRIES, 2 * TRIES)
TOP, LEFT, FLIP, ANGLE, BRIGHTNESS, CONTRAST, SATURATION, HUE = range(2 * TRIES, 2 * TRIES + 8)
ERASE, ERASED_AREA, ERASED_ASPECT, ERASED_TOP, ERASED_LEFT = range(HUE + 1, HUE + 6)
COLUMNS = ERASED_LEFT + 1  # each change has columns of its own, so adding one leaves what the others draw
POLICY, VIEW = COLUMNS, COLUMNS + 1


@dataclass(frozen=True)
class Augmentation:
    """`scale`: the share of the area that a random crop keeps, `ratio` its width to height (Szegedy et al. 2015), of
    which the central share `centre` is used; None: no such crop. `shift`: a crop of the network's own size at a random
    place. `flip`: probability of a mirror image. `rotation`: largest angle in degrees. `jitter`: largest change of
    brightness, contrast, saturation (factors 1 - x .. 1 + x) and hue (turns). `erase`: probability that a box of 2 to
    33 % of the area, aspect 0.3 to 3.3, is blanked (Zhong et al. 2017). `mixup`, `cutmix`: the parameter of the Beta
    distribution of their shares (Zhang et al. 2018, Yun et al. 2019), 0: none. `policy`: `rand_augment` or
    `trivial_augment` of torchvision, on the image before it is cropped."""

    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    centre: float = 1.0
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
        return self == Augmentation()

    @property
    def flips_alone(self) -> bool:
        return self.flip > 0 and replace(self, flip=0.0).is_empty

    @property
    def mixes(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def mirrored(self, seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
        """bool [n]: which images `draw` turns into their mirror image."""
        return np.asarray(uniforms(seed, epoch, positions, COLUMNS)[:, FLIP] < self.flip)

    def chosen(self, count: int, seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
        """int64 [n], 0 <= x < `count`: one of so many draws of each image, by chance."""
        return (uniforms(seed, epoch, positions, VIEW + 1)[:, VIEW] * count).astype(np.int64)

    def draw(self, sides: np.ndarray, size: int, seed: int, epoch: int, positions: np.ndarray) -> dict[str, Tensor]:
        """What is done to images of int64 `sides` [n, 2] (height, width), which lie in the upper left of a canvas of
        the largest sides, so that `size` x `size` pixels come out; the arguments of `changes.changed`."""
        dice = uniforms(seed, epoch, positions, COLUMNS)
        drawn = self._placed(sides, size, dice)
        if self.jitter:
            drawn |= self._coloured(dice, self.jitter)
        if self.erase:
            drawn["erased"] = torch.from_numpy(self._erased(size, dice))
        if self.mixup or self.cutmix:
            drawn |= self._mixed(size, np.random.default_rng((seed, epoch, int(positions[0]))), len(positions))
        return drawn

    def _placed(self, sides: np.ndarray, size: int, dice: np.ndarray) -> dict[str, Tensor]:
        boxes = _boxes(sides, self.scale, self.ratio, dice) if self.scale else _windows(sides, size, self.shift, dice)
        middle, extent = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:] * self.centre
        mirrored = np.where(dice[:, FLIP] < self.flip, -1.0, 1.0)
        angle = np.deg2rad((2 * dice[:, ANGLE] - 1) * self.rotation)
        return placements(middle, extent, mirrored, angle, sides)

    def _coloured(self, dice: np.ndarray, jitter: tuple[float, float, float, float]) -> dict[str, Tensor]:
        centred = 2 * dice[:, [BRIGHTNESS, CONTRAST, SATURATION, HUE]] - 1
        brightness, contrast, saturation, turn = (centred * np.array(jitter)).T
        matrices = colour_matrices(1 + brightness, 1 + saturation, turn)
        return {"colour": matrices, "contrast": torch.from_numpy(1 + contrast).float()}

    def _erased(self, size: int, dice: np.ndarray) -> np.ndarray:
        """float32 [n, 4]: top, left, bottom, right in pixels of the result; an empty box where nothing is erased."""
        area = size**2 * (0.02 + 0.31 * dice[:, ERASED_AREA])
        aspect = np.exp(np.log(0.3) + np.log(3.3 / 0.3) * dice[:, ERASED_ASPECT])
        extent = np.minimum(size, np.sqrt(np.stack([area / aspect, area * aspect], 1)))
        corner = (size - extent) * dice[:, [ERASED_TOP, ERASED_LEFT]]
        happens = dice[:, ERASE] < self.erase
        return np.concatenate([corner, corner + extent * happens[:, None]], 1).astype(np.float32)

    def _mixed(self, size: int, dice: np.random.Generator, count: int) -> dict[str, Tensor]:
        """A partner for each image, and the share that stays its own; with both methods on, one of them by chance."""
        cut = bool(self.cutmix) and (not self.mixup or dice.random() < 0.5)
        share = dice.beta(self.cutmix, self.cutmix) if cut else dice.beta(self.mixup, self.mixup)
        drawn = {"partner": torch.from_numpy(dice.permutation(count))}
        if cut:
            box, share = _cut_box(size, share, dice)
            drawn["cut"] = torch.tensor(box)
        return drawn | {"share": torch.full((count,), share, dtype=torch.float32)}


def augmentation_of(augment: Augment) -> Augmentation:
    crop, jitter, flip = augment.random_resized_crop, augment.colour_jitter, augment.horizontal_flip
    return Augmentation(
        scale=(crop.scale[0], crop.scale[1]) if crop else None,
        ratio=(crop.ratio[0], crop.ratio[1]) if crop else Augmentation.ratio,
        centre=crop.centre if crop else Augmentation.centre,
        shift=augment.random_crop,
        flip=flip.probability if flip else 0.0,
        rotation=augment.rotation.degrees if augment.rotation else 0.0,
        jitter=(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) if jitter else None,
        erase=augment.random_erasing.probability if augment.random_erasing else 0.0,
        mixup=augment.mixup.alpha if augment.mixup else 0.0,
        cutmix=augment.cutmix.alpha if augment.cutmix else 0.0,
        policy=augment.policy,
    )


def _cut_box(size: int, share: float, dice: np.random.Generator) -> tuple[list[int], float]:
    """Top, left, bottom, right of a box of about 1 - `share` of the area, and the share that it really leaves."""
    half = size * math.sqrt(1 - share) / 2
    row, column = dice.integers(size), dice.integers(size)
    top, left = (max(0, round(middle - half)) for middle in (row, column))
    bottom, right = (min(size, round(middle + half)) for middle in (row, column))
    return [top, left, bottom, right], 1 - (bottom - top) * (right - left) / size**2


def _boxes(sides: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float], dice: np.ndarray) -> np.ndarray:
    """float64 [n, 4]: top, left, height, width of the first of ten boxes that fits; where none does, the largest in the
    middle that keeps the ratio within its bounds."""
    area = sides.prod(1)[:, None] * (scale[0] + (scale[1] - scale[0]) * dice[:, AREA])
    aspect = np.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * dice[:, ASPECT])
    extents = np.round(np.sqrt(np.stack([area / aspect, area * aspect], 2)))
    fits = ((extents >= 1) & (extents <= sides[:, None])).all(2)
    first = extents[np.arange(len(sides)), fits.argmax(1)]
    height, width = sides.T
    bounded = np.minimum(sides, np.round(np.stack([width / ratio[0], height * ratio[1]], 1)))
    extent = np.where(fits.any(1)[:, None], first, bounded)
    chance = np.where(fits.any(1)[:, None], dice[:, [TOP, LEFT]], 0.5)
    return np.concatenate([np.floor((sides - extent + 1) * chance), extent], 1)


def _windows(sides: np.ndarray, size: int, shift: bool, dice: np.ndarray) -> np.ndarray:
    """float64 [n, 4] as `_boxes`, of the network's own size: at a random place, or in the centre as in evaluation."""
    room = sides - size
    corner = np.floor((room + 1) * dice[:, [TOP, LEFT]]) if shift else np.round(room / 2.0)
    return np.concatenate([corner, np.full_like(corner, size)], 1)


def policy_changed(image: Tensor, policy: str, seed: int, epoch: int, position: int) -> Tensor:
    """uint8 [3, height, width] after torchvision's policy. It draws from torch's global generator, which is seeded for
    this image and put back."""
    from torchvision.transforms import v2

    change: torch.nn.Module = {"rand_augment": v2.RandAugment, "trivial_augment": v2.TrivialAugmentWide}[policy]()
    number = int(uniforms(seed, epoch, np.array([position]), POLICY + 1)[0, POLICY] * 2**53)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        changed: Tensor = change(image)
    return changed
