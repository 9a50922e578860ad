"""A backbone in stages, and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thaw.data.preprocessing import Preprocessing

HEAD = "head"


class Network(nn.Module):
    """float [n, 3, size, size] -> logits [n, classes]. `frontier` counts the leading stages that run without gradients:
    what lies before the first trainable stage needs none. `unused` names what of the source has no part in it."""

    def __init__(self, stages: dict[str, nn.Module], head: nn.Module, unused_parameters: Sequence[str] = ()) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.head = head
        self.num_frozen_stages, self.unused_parameters = 0, tuple(unused_parameters)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_from(images, 0)

    def forward_from(self, features: Tensor, depth: int) -> Tensor:
        """Logits [n, classes], of what the leading `depth` stages have given; of all stages also where it is pooled."""
        with torch.no_grad():
            features = self.forward_stages(features, depth, self.num_frozen_stages)
        features = self.forward_stages(features, max(depth, self.num_frozen_stages), len(self.stages))
        logits: Tensor = self.head(pool(features))
        return logits

    def forward_stages(self, features: Tensor, start: int, end: int) -> Tensor:
        """The output of stage `end` - 1 for the input of stage `start`."""
        for stage in list(self.stages.values())[start:end]:
            features = stage(features)
        return features

    def get_part(self, name: str) -> nn.Module:
        """A stage, or the head, by name."""
        return self.head if name == HEAD else self.stages[name]


def pool(features: Tensor) -> Tensor:
    """[n, width]: what a network does not pool before its classifier is averaged over its pixels."""
    return features.mean(get_spatial_dims(features)) if features.ndim == 4 else features


def get_spatial_dims(maps: Tensor) -> tuple[int, int]:
    """Where [n, ...] of square maps has their height and width. SqueezeNet has the channels first, timm's Swin last."""
    return (2, 3) if maps.shape[2] == maps.shape[3] else (1, 2)


@dataclass(frozen=True)
class StageFacts:
    """What a stage is, as plain data: `shape` of its output for one image, without the batch."""

    name: str
    shape: tuple[int, ...]
    num_parameters: int


def collect_stage_facts(network: Network, size: int) -> list[StageFacts]:
    """One entry a stage, input to output, then the head."""
    stage_facts: list[StageFacts] = []
    visit_stages(network, size, lambda facts_entry, _: stage_facts.append(facts_entry))
    return stage_facts


def visit_stages(network: Network, size: int, visitor: Callable[[StageFacts, nn.Module], None]) -> None:
    """Calls `note` with the facts of every stage, input to output, then the head, and with the stage itself, each as it
    has put out its part of one forward pass of one image."""

    def build_hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def forward_hook(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            visitor(
                StageFacts(name, tuple(output.shape[1:]), sum(parameter.numel() for parameter in part.parameters())),
                part,
            )

        return forward_hook

    parts = [*network.stages.items(), (HEAD, network.head)]
    forward_zeros(network, size, [part.register_forward_hook(build_hook(name)) for name, part in parts])


def forward_zeros(model: nn.Module, size: int, hooks: Sequence[RemovableHandle] = ()) -> None:
    """Puts zeros [1, 3, size, size] through `model`, which has parameters, in evaluation mode and without gradients.
    Behind it the mode is what it was, and `hooks` are removed, also where the model does not take such an image."""
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()


class Normalize(nn.Module):
    """[n, 3, height, width] on the 0..255 scale -> mean and deviation of the source's images at 0 and 1. Its numbers
    are no part of a state_dict: the preprocessing stands beside the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", _to_channel_tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std", _to_channel_tensor(preprocessing.std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.dtype) - self.mean) / self.std


def _to_channel_tensor(values: tuple[float, float, float]) -> Tensor:
    """0..1 statistics as [1, 3, 1, 1] on the 0..255 scale."""
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) * 255
