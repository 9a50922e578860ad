"""The network: stages and a head on normalized images; its parameters by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from thaw.data.preprocessing import Preprocessing
from thaw.models.precision import NetworkPrecision, autocast

HEAD = "head"


def select_parameters(part: nn.Module, kind: str) -> list[nn.Parameter]:
    """Return the parameters of `part` of one `kind`.

    `all`, `norms` (weights and biases of all normalization layers) or `biases` (those of normalization layers too, as
    in BitFit, Ben Zaken et al. 2021).
    """
    if kind == "norms":
        return [
            parameter
            for layer in part.modules()
            if _is_normalization(layer)
            for parameter in layer.parameters(recurse=False)
        ]
    return [parameter for name, parameter in part.named_parameters() if kind == "all" or name.endswith("bias")]


def _is_normalization(layer: nn.Module) -> bool:
    """Decide by the name of the class, since timm and torchvision have their own: LayerNorm2d, BatchNormAct2d,
    RmsNorm, GroupNorm1."""
    return "norm" in type(layer).__name__.lower()


def get_batchnorm_layers(part: nn.Module) -> list[nn.Module]:
    """Return the layers with running statistics."""
    return [layer for layer in part.modules() if isinstance(layer, _BatchNorm)]


def convert_to_sync_batchnorm(network: nn.Module) -> None:
    """Replace BatchNorm layers, in place, by layers that normalize over the batches of all processes (GPUs only).

    Weights, statistics and names stay. Uses timm's function: torch's would lose the activation inside timm's layers.
    """
    from timm.layers import convert_sync_batchnorm

    convert_sync_batchnorm(network)


def count_layers(part: nn.Module) -> int:
    """Count the layers of `part` with weights: matrices or convolutions that a module holds itself."""
    return sum(any(weight.ndim >= 2 for weight in module.parameters(recurse=False)) for module in part.modules())


def count_parameters(parameters: list[nn.Parameter]) -> int:
    """Count the numbers in `parameters`."""
    return sum(parameter.numel() for parameter in parameters)


class Network(nn.Module):
    """Normalized float [n, 3, size, size] -> logits [n, classes].

    `num_frozen_stages` leading stages run without gradients: nothing before the first trainable stage needs them.
    `precision` is that of its parts. `unused_parameters` are the paths of the library's parameters that are in no stage
    and not in the head.
    """

    def __init__(self, stages: dict[str, nn.Module], head: nn.Module, unused_parameters: Sequence[str] = ()) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.head = head
        self.num_frozen_stages, self.unused_parameters = 0, tuple(unused_parameters)
        self.precision = NetworkPrecision()

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits [n, classes] from normalized images."""
        return self.forward_from(images, 0)

    def forward_from(self, features: Tensor, depth: int) -> Tensor:
        """Compute logits [n, classes] from the output of the first `depth` stages.

        The output of all stages may be pooled already.
        """
        with torch.no_grad():
            features = self.forward_stages(features, depth, self.num_frozen_stages)
        features = self.forward_stages(features, max(depth, self.num_frozen_stages), len(self.stages))
        logits: Tensor = self.head(self._convert_to_trained(pool(features)))
        return logits

    def forward_stages(self, features: Tensor, start: int, end: int) -> Tensor:
        """Compute the output of stage `end` - 1 from the input of stage `start`.

        Stages of `precision.frozen` compute at that precision and output its type.
        """
        stages = list(self.stages.values())
        split = min(max(start, self.precision.num_frozen_stages), end)
        if start < split:
            with autocast(features.device.type, self.precision.frozen):
                features = _apply(stages[start:split], features)
        return _apply(stages[split:end], self._convert_to_trained(features)) if split < end else features

    def _convert_to_trained(self, features: Tensor) -> Tensor:
        """Convert the output of frozen stages of another precision to the type of the weights; autocast converts by
        itself."""
        if not self.precision.num_frozen_stages or torch.is_autocast_enabled(features.device.type):
            return features
        return features.to(next(self.head.parameters()).dtype)

    def get_part(self, name: str) -> nn.Module:
        """Return a stage, or the head, by name."""
        return self.head if name == HEAD else self.stages[name]

    def get_parts(self) -> dict[str, nn.Module]:
        """Return the stages from input to output, then the head, by name."""
        return {**dict(self.stages.items()), HEAD: self.head}


def _apply(stages: Sequence[nn.Module], features: Tensor) -> Tensor:
    for stage in stages:
        features = stage(features)
    return features


def pool(features: Tensor) -> Tensor:
    """Average maps over their positions: [n, width]. Features without positions stay as they are."""
    return features.mean(get_spatial_dims(features)) if features.ndim == 4 else features


def get_spatial_dims(maps: Tensor) -> tuple[int, int]:
    """Return the dimensions of height and width of square maps [n, ...].

    Most networks put channels first; timm's Swin puts them last.
    """
    return (2, 3) if maps.shape[2] == maps.shape[3] else (1, 2)


class Normalize(nn.Module):
    """Pixels [n, 3, height, width] from 0 to 255, uint8 or float -> input of a network.

    The mean of the images that the pretrained weights saw becomes 0, their standard deviation 1. The constants are not
    part of the state dict: checkpoints hold the preprocessing beside the weights. The output has the dtype of the
    constants and the given memory format; without a memory format it keeps the strides of the pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing, memory_format: torch.memory_format | None = None) -> None:
        super().__init__()
        self.memory_format = memory_format
        self.register_buffer("mean", _to_channel_tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std", _to_channel_tensor(preprocessing.std), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalize pixels."""
        inputs = (pixels.to(self.mean.dtype) - self.mean) / self.std
        return inputs if self.memory_format is None else inputs.contiguous(memory_format=self.memory_format)

    def invert(self, inputs: Tensor) -> Tensor:
        """Convert normalized inputs to float pixels from 0 to 255; values outside are clamped."""
        return (inputs * self.std + self.mean).clamp(0, 255)


def _to_channel_tensor(values: tuple[float, float, float]) -> Tensor:
    """Convert statistics from 0 to 1 to float32 [1, 3, 1, 1] from 0 to 255."""
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) * 255


class PixelNetwork(nn.Module):
    """Pixels [n, 3, size, size] from 0 to 255, uint8 or float -> logits [n, classes].

    `normalize` has the dtype and the device of `network`.
    """

    def __init__(
        self, network: Network, preprocessing: Preprocessing, memory_format: torch.memory_format | None = None
    ) -> None:
        super().__init__()
        parameter = next(network.parameters())
        self.network = network
        self.normalize = Normalize(preprocessing, memory_format).to(parameter.device, parameter.dtype)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute logits [n, classes] from pixels."""
        logits: Tensor = self.network(self.normalize(pixels))
        return logits

    def forward_stages(self, pixels: Tensor, depth: int) -> Tensor:
        """Compute the output of the first `depth` stages from pixels."""
        features: Tensor = self.network.forward_stages(self.normalize(pixels), 0, depth)
        return features


@dataclass(frozen=True)
class StageFacts:
    """A stage or the head as plain data. `shape` is its output's for one image, without the batch dimension."""

    name: str
    shape: tuple[int, ...]
    num_parameters: int


def collect_stage_facts(network: Network, size: int) -> list[StageFacts]:
    """Return the facts of each stage from input to output, then those of the head."""
    stage_facts: list[StageFacts] = []
    visit_parts(network, network.get_parts(), size, lambda facts, _: stage_facts.append(facts))
    return stage_facts


def visit_parts(
    model: nn.Module, parts: Mapping[str, nn.Module], size: int, visitor: Callable[[StageFacts, nn.Module], None]
) -> None:
    """Run `model` on one image and call `visitor(facts, part)` for each of its `parts` after it has run."""

    def build_hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def forward_hook(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            num_parameters = sum(parameter.numel() for parameter in part.parameters())
            visitor(StageFacts(name, tuple(output.shape[1:]), num_parameters), part)

        return forward_hook

    forward_zeros(model, size, [part.register_forward_hook(build_hook(name)) for name, part in parts.items()])


def forward_zeros(model: nn.Module, size: int, hooks: Sequence[RemovableHandle] = ()) -> None:
    """Run `model`, which must have parameters, on zeros [1, 3, size, size] in evaluation mode without gradients.

    Restore the mode and remove `hooks` afterwards, also where the model does not take images of this size.
    """
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
