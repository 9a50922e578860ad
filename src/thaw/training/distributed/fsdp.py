"""FSDP: shard weights, gradients and optimizer state over the processes of a run, stage by stage.

This is FSDP2 (`fully_shard`), not Lightning's FSDPStrategy: it shards each weight by itself, so that trained and frozen
weights can be mixed and change from phase to phase, and it runs on CPUs too. Checkpoints hold full tensors under the
usual names, so any number of processes can read them.
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
    """Lightning's strategy, with the checkpoints of a single process; `configure_model` of the module shards.

    Lightning's own handling of optimizer state (2.6.6) needs a state for every weight that could train; a phase has
    states only for the weights that it trains.
    """

    def __init__(self, processes: int, backend: str) -> None:
        super().__init__(processes, 1, save_distributed_checkpoint=False, process_group_backend=backend)
        self.cluster_environment = LightningEnvironment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning calls `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the full tensors of the module."""
        assert self.lightning_module is not None
        return full_tensors(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return the optimizer's state with full tensors."""
        state = optimizer.state_dict()
        full_state = {index: full_tensors(parameter_state) for index, parameter_state in state["state"].items()}
        return {**state, "state": full_state}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of full tensors."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load full tensors into the sharded module."""
        assert self.lightning_module is not None
        load_full_state_dict(self.lightning_module, checkpoint["state_dict"])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the full tensors of the optimizer's state."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            sharded_state = {
                index: {key: shard_like(value, parameters[index]) for key, value in entries.items()}
                for index, entries in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": sharded_state})


def shard(network: Network, mesh: DeviceMesh) -> None:
    """Shard every stage and the head over the processes of `mesh`.

    Each is sharded by itself, since cached features enter the network after a frozen stage. The parameters are replaced
    by new ones, contiguous whatever the memory format of the images is.
    """
    from torch.distributed.fsdp import fully_shard

    network.to(memory_format=torch.contiguous_format)
    for name in (*network.stages, HEAD):
        network.get_part(name).register_forward_hook(_clone_if_view)
        fully_shard(network.get_part(name), mesh=mesh, reshard_after_forward=True)


def _clone_if_view(part: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Clone outputs that are views.

    If the next stage changed a view in place, FSDP2 would lose the hook that gathers this stage's weights for the
    backward pass, and gradients would be wrong.
    """
    return output.clone() if output._is_view() else output


def is_sharded(module: nn.Module) -> bool:
    """Return whether a parameter of `module` is sharded."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def full_tensors(values: Mapping[str, Any]) -> dict[str, Any]:
    """Gather every sharded tensor of `values`. All processes have to call it."""
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in values.items()}


def select_replicated(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that are not sharded, of which every process has a copy."""
    return {name: tensor for name, tensor in values.items() if not isinstance(tensor, DTensor)}


@torch.no_grad()
def load_full_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load full tensors into a module that may be sharded."""
    current_state = module.state_dict()
    sharded_state = {
        name: shard_like(value, current_state[name]) if name in current_state else value
        for name, value in state_dict.items()
    }
    module.load_state_dict(sharded_state)


def shard_like(value: Any, reference: Tensor) -> Any:
    """Shard `value` as `reference` is, if it has the same shape. A step count does not and is returned as it is."""
    if not isinstance(reference, DTensor) or not isinstance(value, Tensor) or value.shape != reference.shape:
        return value
    return distribute_tensor(value.to(reference.device), reference.device_mesh, reference.placements)
