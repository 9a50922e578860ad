"""thaw: transfer learning for image classification. From scratch, frozen features, or fine-tuning?

    import thaw

    recipe = thaw.compose("dataset=hymenoptera", "strategy=fixed")
    run = thaw.train(recipe)
    thaw.load(run).predict("ant.jpg")

Importing thaw imports neither torch nor Lightning: each function imports what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thaw.api import (
        UserError,
        audit,
        compare,
        compose,
        extract_features,
        find_learning_rate,
        load,
        open_run,
        probe,
        split_stages,
        sweep,
        train,
    )

__all__ = [
    "UserError",
    "audit",
    "compare",
    "compose",
    "extract_features",
    "find_learning_rate",
    "load",
    "open_run",
    "probe",
    "split_stages",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `thaw --help` must not wait for libraries."""
    if name == "__version__":
        from importlib.metadata import version

        return version("thaw")
    if name not in __all__:
        raise AttributeError(f"module 'thaw' has no attribute {name!r}")
    from thaw import api

    value = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
