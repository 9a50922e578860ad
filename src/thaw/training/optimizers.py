"""From an optimizer's name to its class, and what its constructor is given."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from inspect import Parameter
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from thaw.config.catalog import torch_optimizer
from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.optimizer_rules import OURS, no_weight_decay, unknown_argument
from thaw.config.schema import Optimizer

NOT_BUILT = "the optimizer cannot be built."


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class that `optimizer.name` means, of torch or of a module that is found from the working directory.

    Raises:
        UserFault: where the module cannot be imported, or the class is not in it or no optimizer.
    """
    torchs = torch_optimizer(name)
    module_name, _, class_name = f"torch.optim.{torchs}".rpartition(".") if torchs else name.rpartition(".")
    module = _imported(module_name, name)
    found = getattr(module, class_name, None)
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        return found
    held = [one for one, value in vars(module).items() if isinstance(value, type) and _is_optimizer(value)]
    closest = nearest(class_name, held)
    got = f"no class {class_name} in {module_name}" if found is None else f"{class_name} extends no Optimizer of torch"
    fix = f"optimizer.name={module_name}.{closest}" if closest else ""
    raise UserFault(NOT_BUILT, [Fault(f"optimizer.name={name}", got, listing(held) or "none in there", fix)])


def _is_optimizer(value: type) -> bool:
    return issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer


def _imported(module: str, name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # for good: a module may import its neighbours as late as in a step
    try:
        return importlib.import_module(module)
    except (ImportError, SyntaxError) as error:
        fix = "run from the folder that holds it, or install it"
        raise UserFault(NOT_BUILT, [Fault(f"optimizer.name={name}", str(error), fix=fix)]) from error


def constructor_arguments(kind: type[torch.optim.Optimizer], optimizer: Optimizer, fused: bool) -> dict[str, Any]:
    """What `kind` is given beside the parameter groups; lists become tuples, as torch's constructors have them. `fused`
    is passed on where `kind` takes it, and else left to torch, which takes foreach on a GPU.

    Raises:
        UserFault: for arguments that its signature has no place for, or that it needs and are not given.
    """
    takes = dict(list(inspect.signature(kind).parameters.items())[1:])
    if faults := list(_misfits(takes, optimizer)):
        raise UserFault(NOT_BUILT, faults)
    given = {key: tuple(one) if isinstance(one, list) else one for key, one in optimizer.arguments.items()}
    return given | {"lr": 1.0} | ({"fused": True} if fused and "fused" in takes else {})


def _misfits(takes: Mapping[str, Parameter], optimizer: Optimizer) -> Iterator[Fault]:
    starred = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    named = {key: one for key, one in takes.items() if one.kind not in starred}
    yield from _missing(named, optimizer)
    if all(one.kind is not Parameter.VAR_KEYWORD for one in takes.values()):
        yield from _not_taken(named, optimizer)


def _missing(named: Mapping[str, Parameter], optimizer: Optimizer) -> Iterator[Fault]:
    for key in (key for key, one in named.items() if one.default is Parameter.empty and key not in OURS):
        if key not in optimizer.arguments:
            path = f"optimizer.arguments.{key}"
            yield Fault(f"{path} is missing, and optimizer.name={optimizer.name} needs it", fix=f"{path}=VALUE")


def _not_taken(named: Mapping[str, Parameter], optimizer: Optimizer) -> Iterator[Fault]:
    valid = [key for key in named if key not in OURS]
    yield from (unknown_argument(optimizer, key, valid) for key in optimizer.arguments if key not in valid)
    if "lr" not in named:
        yield Fault(f"optimizer.name={optimizer.name} takes no lr", valid="a constructor (self, params, lr, ...)")
    if optimizer.weight_decay and "weight_decay" not in named:
        yield no_weight_decay(optimizer)
