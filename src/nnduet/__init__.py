"""One nnU-Net that outlines structures and classifies the case, from one encoder pass.

    from nnduet import Predictor

Importing is free: ``Predictor`` and ``Prediction`` (and with them torch) and ``Task`` are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnduet.inference.prediction import Prediction
    from nnduet.inference.predictor import Predictor
    from nnduet.schema import Task

    __version__: str

__all__ = ["Prediction", "Predictor", "Task", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Prediction", "Predictor"):
        import os

        from nnduet.process import prepare

        prepare(os.environ)  # the last chance: torch is imported next
        from nnduet.inference.prediction import Prediction
        from nnduet.inference.predictor import Predictor

        return {"Prediction": Prediction, "Predictor": Predictor}[name]
    if name == "Task":
        from nnduet.schema import Task

        return Task
    if name == "__version__":
        from importlib.metadata import version  # 40 ms, too much for `nnduet --help`

        return version("nnduet")
    raise AttributeError(f"module 'nnduet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
