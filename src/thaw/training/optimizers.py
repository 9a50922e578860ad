"""From an optimizer's name to its class, and what its constructor is given."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
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
from thaw.models.parameters import get_batchnorm_layers, select_parameters
from thaw.strategy.plan import PartPlan, PhasePlan, Plan

BUILD_ERROR_MESSAGE = "the optimizer cannot be built."


def load_optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class that `optimizer.name` means, of torch or of a module that is found from the working directory.

    Raises:
        UserFault: where the module cannot be imported, or the class is not in it or no optimizer.
    """
    torch_name = resolve_torch_optimizer(name)
    module_name, _, class_name = f"torch.optim.{torch_name}".rpartition(".") if torch_name else name.rpartition(".")
    module = _import_module(module_name, name)
    attribute = getattr(module, class_name, None)
    if isinstance(attribute, type) and issubclass(attribute, torch.optim.Optimizer):
        return attribute
    available_names = [
        attribute_name
        for attribute_name, value in vars(module).items()
        if isinstance(value, type) and _is_optimizer(value)
    ]
    closest_name = find_closest_name(class_name, available_names)
    got = (
        f"no class {class_name} in {module_name}"
        if attribute is None
        else f"{class_name} extends no Optimizer of torch"
    )
    fix = f"optimizer.name={module_name}.{closest_name}" if closest_name else ""
    raise UserError(
        BUILD_ERROR_MESSAGE,
        [Problem(f"optimizer.name={name}", got, format_names(available_names) or "none in there", fix)],
    )


def _is_optimizer(value: type) -> bool:
    return issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer


def _import_module(module_name: str, name: str) -> ModuleType:
    if (working_directory := str(Path.cwd())) not in sys.path:
        sys.path.append(working_directory)  # for good: a module may import its neighbours as late as in a step
    try:
        return importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        fix = "run from the folder that holds it, or install it"
        raise UserError(BUILD_ERROR_MESSAGE, [Problem(f"optimizer.name={name}", str(error), fix=fix)]) from error


def build_constructor_arguments(
    optimizer_cls: type[torch.optim.Optimizer], optimizer: OptimizerConfig, fused: bool
) -> dict[str, Any]:
    """What `kind` is given beside the parameter groups; lists become tuples, as torch's constructors have them. `fused`
    is passed on where `kind` takes it, and else left to torch, which takes foreach on a GPU.

    Raises:
        UserFault: for arguments that its signature has no place for, or that it needs and are not given.
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
    for key in (
        key
        for key, parameter in named_parameters.items()
        if parameter.default is Parameter.empty and key not in RESERVED_ARGUMENTS
    ):
        if key not in optimizer.arguments:
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
        yield Problem(f"optimizer.name={optimizer.name} takes no lr", valid="a constructor (self, params, lr, ...)")
    if optimizer.weight_decay and "weight_decay" not in named_parameters:
        yield build_weight_decay_problem(optimizer)


def parameter_groups(network: Network, decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """One group a part and kind, of all that ever trains (`requires_grad`), what is still frozen too: schedulers and
    checkpoints break on groups that come later. `part` is the stage's name, `decays` whether weight decay acts on it
    (norms and biases are vectors, weights are not)."""
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
    return [parameter for parameter in parameters if parameter.ndim > 1], [
        parameter for parameter in parameters if parameter.ndim <= 1
    ]


def build_optimizer(optimizer: OptimizerConfig, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    """Raises UserFault where there is no such class, or where it refuses its arguments or the groups."""
    optimizer_cls: Any = load_optimizer_class(optimizer.name)
    arguments = build_constructor_arguments(optimizer_cls, optimizer, fused)
    try:
        instance: torch.optim.Optimizer = optimizer_cls(groups, **arguments)
    except (TypeError, ValueError) as error:
        problem = Problem(f"optimizer.name={optimizer.name} with optimizer.arguments={optimizer.arguments}", str(error))
        raise UserError(BUILD_ERROR_MESSAGE, [problem]) from error
    return instance


def set_weight_decay(groups: list[dict[str, Any]], phase: PhasePlan) -> None:
    weight_decays = {part.name: part.weight_decay for part in phase.parts}
    for group in groups:
        group["weight_decay"] = weight_decays[group["part"]] if group["decays"] else 0.0


def apply_phase(network: Network, phase: PhasePlan) -> None:
    """Sets what trains, and the mode of every part. A frozen part runs in evaluation mode, but for the BatchNorm that
    its phase asks for: its dropout would change its output, though its weights do not."""
    for part in phase.parts:
        module = network.get_part(part.name)
        module.requires_grad_(False)
        for parameter in select_trainable_parameters(module, part):
            parameter.requires_grad_(True)
    set_modes(network, phase.parts)
    network.num_frozen_stages = phase.num_frozen_stages


def set_modes(network: Network, parts: Iterable[PartPlan]) -> None:
    for part in parts:
        module = network.get_part(part.name)
        module.train(part.trainable)
        for layer in get_batchnorm_layers(module):
            layer.train(part.batchnorm != "eval")


def select_trainable_parameters(module: nn.Module, part: PartPlan) -> list[nn.Parameter]:
    parameters = select_parameters(module, part.parameters) if part.trainable else []
    if part.batchnorm == "statistics":
        batchnorm_ids = {id(parameter) for layer in get_batchnorm_layers(module) for parameter in layer.parameters()}
        return [parameter for parameter in parameters if id(parameter) not in batchnorm_ids]
    return parameters


def collect_trainable_parameters(network: Network, plan: Plan, names: Iterable[str]) -> list[nn.Parameter]:
    """What of the parts `names` trains in some phase."""
    selected_names = set(names)
    parts = [part for phase in plan.phases for part in phase.parts if part.name in selected_names]
    return list(
        {
            id(parameter): parameter
            for part in parts
            for parameter in select_trainable_parameters(network.get_part(part.name), part)
        }.values()
    )
