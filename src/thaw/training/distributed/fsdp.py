"""FSDP: weights, gradients and the optimizer's state divided over the processes of a run, stage by stage.

FSDP2 (`fully_shard`), not Lightning's FSDPStrategy: it divides each weight by itself, so that weights that train and
weights that are frozen lie side by side and change from phase to phase, and it runs on CPUs too. Checkpoints hold whole
tensors under the usual names: what one process has written many can read, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor

from thaw.models.network import HEAD, Network


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's, with the network divided by `Learner.configure_model`, and checkpoints as a single process has
    them. Lightning's own way through the optimizer's state (2.6.6) needs one of every weight that could train, and a
    phase has them for what it trains."""

    def __init__(self, processes: int, backend: str) -> None:
        super().__init__(processes, 1, save_distributed_checkpoint=False, process_group_backend=backend)
        self.cluster_environment = LightningEnvironment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return full_tensors(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        state = optimizer.state_dict()
        return {
            **state,
            "state": {index: full_tensors(parameter_state) for index, parameter_state in state["state"].items()},
        }

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        load_full_state_dict(self.lightning_module, checkpoint["state_dict"])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            sharded_state = {
                index: {key: _shard_like(value, parameters[index]) for key, value in entries.items()}
                for index, entries in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": sharded_state})


def shard(network: Network, mesh: DeviceMesh) -> None:
    """Divides every stage and the head over the processes of `mesh`, each by itself: cached features and frozen stages
    enter the network in its middle. Parameters become new ones, contiguous whatever layout the images have."""
    from torch.distributed.fsdp import fully_shard

    network.to(memory_format=torch.contiguous_format)
    for name in (*network.stages, HEAD):
        network.get_part(name).register_forward_hook(_clone_if_view)
        fully_shard(network.get_part(name), mesh=mesh, reshard_after_forward=True)


def _clone_if_view(part: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """No view: where the next stage changed one in place, FSDP2 would lose the hook that puts this stage's weights
    together for the backward pass, and gradients would be wrong."""
    return output.clone() if output._is_view() else output


def is_sharded(module: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def full_tensors(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with every tensor that is divided put together, in every process; all have to ask for it."""
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in values.items()}


def replicated(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of which every process has its own copy."""
    return {name: tensor for name, tensor in values.items() if not isinstance(tensor, DTensor)}


@torch.no_grad()
def load_full_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """As `load_state_dict` of whole tensors, into a module that may be divided."""
    current_state = module.state_dict()
    module.load_state_dict(
        {
            name: _shard_like(value, current_state[name]) if name in current_state else value
            for name, value in state_dict.items()
        }
    )


def _shard_like(value: Any, reference: Tensor) -> Any:
    """`value`, divided as `model` is where it is of the same shape: a step count stays whole."""
    if not isinstance(reference, DTensor) or not isinstance(value, Tensor) or value.shape != reference.shape:
        return value
    return distribute_tensor(value.to(reference.device), reference.device_mesh, reference.placements)
