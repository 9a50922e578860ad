"""Rules about the optimizer: one function a rule; each yields (key to blame, fault)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thaw.config.catalog import module_is_there, optimizer_arguments, optimizer_names, torch_optimizer
from thaw.config.faults import Fault, listing, nearest
from thaw.config.schema import Optimizer, Recipe
from thaw.config.signature import described, fits

# What thaw gives to every constructor, and what to change instead.
OURS = {
    "params": "leave it out: strategy.phases say what trains",
    "lr": "optimizer.learning_rate=VALUE",
    "weight_decay": "optimizer.weight_decay=VALUE",
    "fused": "leave it out: the device and the precision decide it",
    "foreach": "leave it out: torch decides it by the device",
    "capturable": "leave it out: steps are not captured in CUDA graphs",
    "differentiable": "leave it out: nothing differentiates through a step",
}
UNFIT = {
    "LBFGS": "it computes the loss anew many times in a step, and a batch is computed once",
    "Muon": "it takes matrices alone, and every network has biases, which are vectors",
    "SparseAdam": "it takes sparse gradients alone, and a classifier's are dense",
}


def optimizer_exists(recipe: Recipe) -> Iterator[tuple[str, Fault]]:
    name = recipe.optimizer.name
    if torch_optimizer(name):
        return
    if is_path(name):
        yield from _module_exists(name)
        return
    names = [one.lower() for one in optimizer_names() if one not in UNFIT]
    closest = nearest(name.split(".")[-1], names)
    valid = f"{listing(names)}; or module.Class"
    yield "optimizer.name", Fault(_named(name), f"{name!r}", valid, f"optimizer.name={closest}" if closest else "")


def is_path(name: str) -> bool:
    """Whether `name` is module.Class, not one of torch.optim."""
    parts = name.split(".")
    return len(parts) > 1 and all(one.isidentifier() for one in parts) and not name.startswith("torch.optim.")


def _module_exists(name: str) -> Iterator[tuple[str, Fault]]:
    if module_is_there(name):
        return
    top, rest = name.split(".", 1)
    closest = nearest(top, (one.stem for one in Path.cwd().glob("*.py")))
    valid = f"a module in {Path.cwd()}, or an installed one"
    fix = f"optimizer.name={closest}.{rest}" if closest else ""
    yield "optimizer.name", Fault(_named(name), f"no module {top!r}", valid, fix)


def _named(name: str) -> str:
    return f"optimizer.name={name}"


def optimizer_can_serve(recipe: Recipe) -> Iterator[tuple[str, Fault]]:
    name = recipe.optimizer.name
    if reason := UNFIT.get(torch_optimizer(name) or ""):
        yield "optimizer.name", Fault(f"{_named(name)} cannot train here: {reason}", fix="optimizer=adamw")


def arguments_are_not_ours(recipe: Recipe) -> Iterator[tuple[str, Fault]]:
    for key in recipe.optimizer.arguments:
        if key in OURS:
            yield f"optimizer.arguments.{key}", Fault(f"optimizer.arguments.{key} is given by thaw", fix=OURS[key])


def arguments_fit(recipe: Recipe) -> Iterator[tuple[str, Fault]]:
    name = torch_optimizer(recipe.optimizer.name)
    if name is None or name in UNFIT:
        return  # a class of the user's own is asked when it is built
    forms = optimizer_arguments(name)
    for key, value in recipe.optimizer.arguments.items():
        path = f"optimizer.arguments.{key}"
        if key not in forms:
            yield path, unknown_argument(recipe.optimizer, key, [one for one in forms if one not in OURS])
        elif key not in OURS and not fits(value, forms[key]):
            got = f"{json.dumps(value)} ({type(value).__name__})"
            yield path, Fault(f"{path}={json.dumps(value)}", got, described(forms[key]))


def unknown_argument(optimizer: Optimizer, key: str, valid: list[str]) -> Fault:
    """The fault of an argument that the constructor of `optimizer` has no place for."""
    closest = nearest(key, valid)
    assigned = f"optimizer.arguments.{closest}={json.dumps(optimizer.arguments[key])}"
    fix = assigned if closest else f"~optimizer.arguments.{key}, or optimizer=torch, which begins without arguments"
    subject = f"optimizer.arguments.{key}: no such argument of {_named(optimizer.name)}"
    return Fault(subject, valid=listing(valid) or "none", fix=fix)


def weight_decay_fits(recipe: Recipe) -> Iterator[tuple[str, Fault]]:
    optimizer = recipe.optimizer
    name = torch_optimizer(optimizer.name)
    if name and name not in UNFIT and optimizer.weight_decay and "weight_decay" not in optimizer_arguments(name):
        yield "optimizer.weight_decay", no_weight_decay(optimizer)


def no_weight_decay(optimizer: Optimizer) -> Fault:
    subject = f"optimizer.weight_decay={optimizer.weight_decay:g}, and {_named(optimizer.name)} takes none"
    return Fault(subject, fix="optimizer.weight_decay=0.0")


def nesterov_fits(recipe: Recipe) -> Iterator[tuple[str, Fault]]:
    given: dict[str, Any] = recipe.optimizer.arguments
    if torch_optimizer(recipe.optimizer.name) != "SGD" or given.get("nesterov") is not True:
        return
    path = "optimizer.arguments"
    if given.get("momentum", 0) == 0:
        yield f"{path}.nesterov", Fault(f"{path}.nesterov=true needs momentum", fix=f"{path}.momentum=0.9")
    if given.get("dampening", 0) != 0:
        subject = f"{path}.nesterov=true allows no dampening"
        yield f"{path}.dampening", Fault(subject, fix=f"{path}.dampening=0")


OPTIMIZER_RULES = (
    optimizer_exists,
    optimizer_can_serve,
    arguments_are_not_ours,
    arguments_fit,
    weight_decay_fits,
    nesterov_fits,
)
