"""Check the settings of the optimizer. Each rule is a function that yields pairs of a key and its problem."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thaw.config.catalog import (
    describe_argument_type,
    is_finite,
    is_module_importable,
    is_valid_value,
    list_optimizer_files,
    read_optimizer_arguments,
    resolve_torch_optimizer,
)
from thaw.config.errors import Problem, find_closest_name, format_names, format_value
from thaw.config.schema import OptimizerConfig, Recipe

# Arguments that thaw passes to every constructor, and what to change instead.
RESERVED_ARGUMENTS = {
    "params": "leave it out: strategy.phases decides what trains",
    "lr": "optimizer.learning_rate=VALUE",
    "weight_decay": "optimizer.weight_decay=VALUE",
    "fused": "leave it out: the device and the precision decide it",
    "foreach": "leave it out: torch chooses it for the device",
    "capturable": "leave it out: steps are not captured in CUDA graphs",
    "differentiable": "leave it out: nothing differentiates through a step",
}
UNSUPPORTED_OPTIMIZERS = {
    "LBFGS": "it computes the loss many times in a step, and a batch is computed once",
    "Muon": "it takes only matrices, and every network has biases, which are vectors",
    "SparseAdam": "it takes only sparse gradients, and those of a classifier are dense",
}


def check_optimizer_exists(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if the optimizer is neither one of torch nor in an importable module."""
    name = recipe.optimizer.name
    if resolve_torch_optimizer(name):
        return
    if is_class_path(name):
        yield from _check_module_exists(name)
        return
    names = [
        optimizer_name.lower()
        for optimizer_name in list_optimizer_files()
        if optimizer_name not in UNSUPPORTED_OPTIMIZERS
    ]
    closest = find_closest_name(name.split(".")[-1], names)
    valid = f"{format_names(names)}; or module.Class"
    yield (
        "optimizer.name",
        Problem(_format_optimizer_name(name), f"{name!r}", valid, f"optimizer.name={closest}" if closest else ""),
    )


def is_class_path(name: str) -> bool:
    """Whether `name` is module.Class and not an optimizer of torch.optim."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts) and not name.startswith("torch.optim.")


def _check_module_exists(name: str) -> Iterator[tuple[str, Problem]]:
    if is_module_importable(name):
        return
    top_level_module, attribute_path = name.split(".", 1)
    closest = find_closest_name(top_level_module, (path.stem for path in Path.cwd().glob("*.py")))
    valid = f"a module in {Path.cwd()}, or an installed one"
    fix = f"optimizer.name={closest}.{attribute_path}" if closest else ""
    yield "optimizer.name", Problem(_format_optimizer_name(name), f"no module {top_level_module!r}", valid, fix)


def _format_optimizer_name(name: str) -> str:
    return f"optimizer.name={name}"


def check_optimizer_supported(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if the optimizer cannot train a classifier here."""
    name = recipe.optimizer.name
    if reason := UNSUPPORTED_OPTIMIZERS.get(resolve_torch_optimizer(name) or ""):
        yield (
            "optimizer.name",
            Problem(f"{_format_optimizer_name(name)} cannot train here: {reason}", fix="optimizer=adamw"),
        )


def check_reserved_arguments(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem for each argument that thaw sets."""
    for key in recipe.optimizer.arguments:
        if key in RESERVED_ARGUMENTS:
            yield (
                f"optimizer.arguments.{key}",
                Problem(f"optimizer.arguments.{key} is set by thaw", fix=RESERVED_ARGUMENTS[key]),
            )


def check_optimizer_arguments(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem for each argument that the constructor does not have, or whose type is wrong."""
    name = resolve_torch_optimizer(recipe.optimizer.name)
    if name in UNSUPPORTED_OPTIMIZERS:
        return
    if name is None:  # a class of the user, which is checked further when it is built
        for key in [key for key, value in recipe.optimizer.arguments.items() if not is_finite(value)]:
            got = f"optimizer.arguments.{key}={format_value(recipe.optimizer.arguments[key])}"
            yield f"optimizer.arguments.{key}", Problem(got, valid="finite numbers")
        return
    argument_types = read_optimizer_arguments(name)
    for key, value in recipe.optimizer.arguments.items():
        argument_key = f"optimizer.arguments.{key}"
        if key not in argument_types:
            yield (
                argument_key,
                build_unknown_argument_problem(
                    recipe.optimizer,
                    key,
                    [argument_name for argument_name in argument_types if argument_name not in RESERVED_ARGUMENTS],
                ),
            )
        elif key not in RESERVED_ARGUMENTS and not is_valid_value(value, argument_types[key]):
            text = json.dumps(value) if is_finite(value) else format_value(value)
            valid = describe_argument_type(argument_types[key]) + ("" if is_finite(value) else ", finite")
            yield argument_key, Problem(f"{argument_key}={text}", f"{text} ({type(value).__name__})", valid)


def build_unknown_argument_problem(optimizer: OptimizerConfig, key: str, valid: list[str]) -> Problem:
    """Return the problem of an argument that the constructor of `optimizer` does not have."""
    closest = find_closest_name(key, valid)
    assignment = f"optimizer.arguments.{closest}={json.dumps(optimizer.arguments[key])}"
    fix = assignment if closest else f"~optimizer.arguments.{key}, or optimizer=torch, which begins without arguments"
    subject = f"optimizer.arguments.{key}: no such argument of {_format_optimizer_name(optimizer.name)}"
    return Problem(subject, valid=format_names(valid) or "none", fix=fix)


def check_weight_decay(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if there is weight decay and the optimizer has none."""
    optimizer = recipe.optimizer
    name = resolve_torch_optimizer(optimizer.name)
    if (
        name
        and name not in UNSUPPORTED_OPTIMIZERS
        and optimizer.weight_decay
        and "weight_decay" not in read_optimizer_arguments(name)
    ):
        yield "optimizer.weight_decay", build_weight_decay_problem(optimizer)


def build_weight_decay_problem(optimizer: OptimizerConfig) -> Problem:
    """Return the problem of weight decay with an optimizer that has none."""
    subject = (
        f"optimizer.weight_decay={optimizer.weight_decay:g}, and {_format_optimizer_name(optimizer.name)} takes none"
    )
    return Problem(subject, fix="optimizer.weight_decay=0.0")


def check_nesterov(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if Nesterov momentum contradicts momentum or dampening, as torch would raise."""
    arguments: dict[str, Any] = recipe.optimizer.arguments
    if resolve_torch_optimizer(recipe.optimizer.name) != "SGD" or arguments.get("nesterov") is not True:
        return
    arguments_key = "optimizer.arguments"
    if arguments.get("momentum", 0) == 0:
        yield (
            f"{arguments_key}.nesterov",
            Problem(f"{arguments_key}.nesterov=true needs momentum", fix=f"{arguments_key}.momentum=0.9"),
        )
    if arguments.get("dampening", 0) != 0:
        subject = f"{arguments_key}.nesterov=true allows no dampening"
        yield f"{arguments_key}.dampening", Problem(subject, fix=f"{arguments_key}.dampening=0")


OPTIMIZER_RULES = (
    check_optimizer_exists,
    check_optimizer_supported,
    check_reserved_arguments,
    check_optimizer_arguments,
    check_weight_decay,
    check_nesterov,
)
