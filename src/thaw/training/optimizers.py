"""Parameter groups, learning rates and the optimizer of a recipe."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from thaw.config.catalog import resolve_torch_optimizer
from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.optimizer_rules import RESERVED_ARGUMENTS, build_unknown_argument_problem, build_weight_decay_problem
from thaw.config.schema import OptimizerConfig
from thaw.models.network import HEAD, Network
from thaw.strategy.plan import PhasePlan, Plan

BUILD_ERROR_MESSAGE = "the optimizer cannot be built."
Schedule = Callable[[int, int, Sequence[float]], float]


@dataclass
class Optimization:
    """How a run optimizes: the optimizer of its recipe, and the schedule of its learning rates.

    `schedule(step, epochs, val_losses)` is the factor of all learning rates at `step` of a schedule over `epochs`
    epochs, given the validation losses since its start. There is no scheduler object: torch's do not support phases,
    and their state would have to be restored when a run resumes. `fused` is for `build_optimizer`. The gradients of
    `accumulate_grad_batches` batches make a step; their norm is clipped to `gradient_clip_val`, unless that is None.
    """

    optimizer: OptimizerConfig
    schedule: Schedule
    steps_per_epoch: int
    fused: bool
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None

    def build_optimizer(self, network: Network) -> torch.optim.Optimizer:
        """Build the optimizer over all parameters of `network` that train in some phase."""
        groups = parameter_groups(network, self.optimizer.decay_norms_and_biases)
        return build_optimizer(self.optimizer, groups, self.fused)

    def count_steps(self, epochs: int) -> int:
        """Count the optimizer steps of `epochs` epochs."""
        return epochs * self.steps_per_epoch

    def compute_learning_rates(self, plan: Plan, step: int, val_losses: Sequence[float]) -> dict[str, float]:
        """Compute the learning rate of each part at an optimizer step, counted from the start of the run.

        It is the part's learning rate in the phase of that step, times the schedule. `val_losses` are those of the
        epochs so far.
        """
        epoch = step // self.steps_per_epoch
        phase = plan.get_phase(epoch)
        start, end = phase.schedule
        factor = self.schedule(step - start * self.steps_per_epoch, end - start, val_losses[start:epoch])
        return {part.name: part.learning_rate * factor for part in phase.parts}


def parameter_groups(network: Network, decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """Return the parameter groups of everything that trains in some phase (`requires_grad`).

    All groups exist from the start, since schedulers and checkpoints break on groups that are added later. The key
    `part` is the name of the stage or `head`; `decays` says whether weight decay applies. Norms and biases, which have
    one dimension, form their own groups.
    """
    return list(_iter_groups(network, decay_norms_and_biases))


def _iter_groups(network: Network, decay_norms_and_biases: bool) -> Iterator[dict[str, Any]]:
    for part in (*network.stages, HEAD):
        weights, vectors = _split_weights_and_vectors(network.get_part(part))
        if decay_norms_and_biases:
            weights, vectors = weights + vectors, []
        for has_decay, parameters in ((True, weights), (False, vectors)):
            if parameters:
                yield {"params": parameters, "part": part, "decays": has_decay, "lr": 1.0, "weight_decay": 0.0}


def _split_weights_and_vectors(part: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    parameters = [parameter for parameter in part.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    return weights, vectors


def set_weight_decay(groups: list[dict[str, Any]], phase: PhasePlan) -> None:
    """Set the weight decay of each group to that of its part in `phase`."""
    weight_decays = {part.name: part.weight_decay for part in phase.parts}
    for group in groups:
        group["weight_decay"] = weight_decays[group["part"]] if group["decays"] else 0.0


def build_optimizer(optimizer: OptimizerConfig, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    """Build the optimizer over `groups`. `fused` asks for torch's fused implementation where the class has one.

    Raises:
        UserError: if there is no such class, or its constructor rejects the arguments or the groups.
    """
    optimizer_cls: Any = load_optimizer_class(optimizer.name)
    arguments = build_constructor_arguments(optimizer_cls, optimizer, fused)
    try:
        instance: torch.optim.Optimizer = optimizer_cls(groups, **arguments)
    except (TypeError, ValueError) as error:
        problem = Problem(f"optimizer.name={optimizer.name} with optimizer.arguments={optimizer.arguments}", str(error))
        raise UserError(BUILD_ERROR_MESSAGE, [problem]) from error
    return instance


def load_optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """Load the class `optimizer.name`, of torch or of a module that is importable from the working directory.

    Raises:
        UserError: if the module cannot be imported, or the class is not in it or is not an optimizer.
    """
    torch_name = resolve_torch_optimizer(name)
    module_name, _, class_name = f"torch.optim.{torch_name}".rpartition(".") if torch_name else name.rpartition(".")
    module = _import_module(module_name, name)
    attribute = getattr(module, class_name, None)
    if isinstance(attribute, type) and issubclass(attribute, torch.optim.Optimizer):
        return attribute
    got = f"{class_name} is not a subclass of torch.optim.Optimizer"
    if attribute is None:
        got = f"no class {class_name} in {module_name}"
    optimizer_names = [key for key, value in vars(module).items() if _is_optimizer_class(value)]
    closest_name = find_closest_name(class_name, optimizer_names)
    fix = f"optimizer.name={module_name}.{closest_name}" if closest_name else ""
    valid = format_names(optimizer_names) or f"{module_name} has no optimizer"
    raise UserError(BUILD_ERROR_MESSAGE, [Problem(f"optimizer.name={name}", got, valid, fix)])


def _is_optimizer_class(value: Any) -> bool:
    is_subclass = isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    return is_subclass and value is not torch.optim.Optimizer


def _import_module(module_name: str, name: str) -> ModuleType:
    if (working_directory := str(Path.cwd())) not in sys.path:
        sys.path.append(working_directory)  # not removed: a module may import others as late as in a step
    try:
        return importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        fix = "run from the folder of the module, or install it"
        raise UserError(BUILD_ERROR_MESSAGE, [Problem(f"optimizer.name={name}", str(error), fix=fix)]) from error


def build_constructor_arguments(
    optimizer_cls: type[torch.optim.Optimizer], optimizer: OptimizerConfig, fused: bool
) -> dict[str, Any]:
    """Build the keyword arguments of the optimizer's constructor. Lists become tuples, as torch's constructors expect.

    `fused` is passed if the constructor has that parameter; otherwise torch chooses, and uses foreach on a GPU.

    Raises:
        UserError: for arguments that the constructor does not have, and for required arguments that are missing.
    """
    constructor_parameters = dict(list(inspect.signature(optimizer_cls).parameters.items())[1:])
    if problems := list(_check_arguments(constructor_parameters, optimizer)):
        raise UserError(BUILD_ERROR_MESSAGE, problems)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in optimizer.arguments.items()}
    return arguments | {"lr": 1.0} | ({"fused": True} if fused and "fused" in constructor_parameters else {})


def _check_arguments(constructor_parameters: Mapping[str, Parameter], optimizer: OptimizerConfig) -> Iterator[Problem]:
    variadic_kinds = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    named_parameters = {
        key: parameter for key, parameter in constructor_parameters.items() if parameter.kind not in variadic_kinds
    }
    yield from _check_missing_arguments(named_parameters, optimizer)
    if all(parameter.kind is not Parameter.VAR_KEYWORD for parameter in constructor_parameters.values()):
        yield from _check_unsupported_arguments(named_parameters, optimizer)


def _check_missing_arguments(
    named_parameters: Mapping[str, Parameter], optimizer: OptimizerConfig
) -> Iterator[Problem]:
    for key, parameter in named_parameters.items():
        is_required = parameter.default is Parameter.empty and key not in RESERVED_ARGUMENTS
        if is_required and key not in optimizer.arguments:
            path = f"optimizer.arguments.{key}"
            yield Problem(f"{path} is missing, and optimizer.name={optimizer.name} needs it", fix=f"{path}=VALUE")


def _check_unsupported_arguments(
    named_parameters: Mapping[str, Parameter], optimizer: OptimizerConfig
) -> Iterator[Problem]:
    valid_names = [key for key in named_parameters if key not in RESERVED_ARGUMENTS]
    yield from (
        build_unknown_argument_problem(optimizer, key, valid_names)
        for key in optimizer.arguments
        if key not in valid_names
    )
    if "lr" not in named_parameters:
        valid = "a constructor (self, params, lr, ...)"
        yield Problem(f"optimizer.name={optimizer.name} has no parameter lr", valid=valid)
    if optimizer.weight_decay and "weight_decay" not in named_parameters:
        yield build_weight_decay_problem(optimizer)
