"""Find the models that come with nnDuet, by name."""

from __future__ import annotations

from pathlib import Path

from nnduet.errors import ModelError

__all__ = ["SHIPPED", "find_model", "shipped_models"]

SHIPPED = Path(__file__).parents[1] / "models"
"""Holds a model folder and its MODEL_CARD.md per model."""


def shipped_models() -> list[str]:
    """Names of the models that come with nnDuet, e.g. ``["lidc-nodule"]``; ``[]`` where there are none."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/plans.json"))


def find_model(model: str | Path) -> Path:
    """A model folder: the given one, or the shipped model of that name. A folder of the same name comes first.

    Raises:
        ModelError: there is neither.
    """
    if Path(model).is_dir():
        return Path(model)
    if str(model) in shipped_models():
        return SHIPPED / str(model)
    raise ModelError(f"{model}: expected a model folder or one of the models that come with nnDuet: {shipped_models()}")
