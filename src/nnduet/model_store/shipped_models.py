"""Find a model: a folder, a bundle, or one that comes with nnDuet, by name."""

from __future__ import annotations

from pathlib import Path

from nnduet.errors import ModelError
from nnduet.model_store.bundles import BundleFiles
from nnduet.model_store.folder_files import FolderFiles
from nnduet.model_store.model_files import FINAL_CHECKPOINT, ModelFiles

__all__ = ["SHIPPED", "find_model", "open_model", "shipped_models"]

SHIPPED = Path(__file__).parents[1] / "models"
"""Holds a model folder and its MODEL_CARD.md per model."""


def shipped_models() -> list[str]:
    """Names of the models that come with nnDuet, e.g. ``["lidc-nodule"]``; ``[]`` where there are none."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/plans.json"))


def find_model(model: str | Path) -> Path:
    """A model folder or bundle: the given one, or the shipped model of that name. What is there comes before a name.

    Raises:
        ModelError: there is neither.
    """
    if Path(model).exists():
        return Path(model)
    if str(model) in shipped_models():
        return SHIPPED / str(model)
    raise ModelError(
        f"{model}: expected a model folder, a bundle, or one of the models that come with nnDuet: {shipped_models()}"
    )


def open_model(model: str | Path, checkpoint: str = FINAL_CHECKPOINT) -> ModelFiles:
    """The files of a folder or bundle, or of a shipped model by its name; a bundle is verified.

    Args:
        checkpoint: of folders: name of the weights' file of each fold.

    Raises:
        ModelError: there is no such model, or it is no bundle.
        CorruptFileError: the bundle is damaged.
    """
    path = find_model(model)
    return BundleFiles(path) if path.is_file() else FolderFiles(path, checkpoint)
