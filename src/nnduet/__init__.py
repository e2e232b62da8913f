"""One nnU-Net that outlines structures and classifies the case, from one encoder pass.

    from nnduet import Predictor

Importing the package is free: ``Predictor`` (and with it torch) is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnduet.inference.predictor import Predictor

    __version__: str

__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Predictor":
        import os

        from nnduet.process import prepare

        prepare(os.environ)  # the last chance: torch is imported next
        from nnduet.inference.predictor import Predictor

        return Predictor
    if name == "__version__":
        from importlib.metadata import version  # 40 ms, too much for `nnduet --help`

        return version("nnduet")
    raise AttributeError(f"module 'nnduet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
