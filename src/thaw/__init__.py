"""thaw: transfer learning in image classification, from a config to a run that explains itself.

from thaw import load

network = load("best.ckpt")
print(network.predict(["a.jpg", "b.jpg"]))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thaw.inference.load import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Late: torch takes seconds, and `thaw --help` is to take none."""
    if name == "load":
        from thaw.inference.load import load

        return load
    raise AttributeError(f"module 'thaw' has no attribute {name!r}")
