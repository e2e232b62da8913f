"""What the files of a model are called and offer: a folder, as training leaves it, or a bundle, one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from nnduet.errors import ModelError
from nnduet.io.files import file_digest
from nnduet.names import printable
from nnduet.schema import FOLD_NAME

__all__ = [
    "CARD_FILE",
    "CASE_HEAD_FILE",
    "CONFORMAL_FILE",
    "CROSS_VALIDATION_FOLDER",
    "FINAL_CHECKPOINT",
    "ModelFiles",
    "ModelSource",
    "Origin",
    "StoredFold",
    "fold_names",
]

CARD_FILE = "MODEL_CARD.md"
CASE_HEAD_FILE = "case_head.json"
CROSS_VALIDATION_FOLDER = "cross_validation"
CONFORMAL_FILE = "conformal.json"
FINAL_CHECKPOINT = "checkpoint_final.pth"


class Origin:
    """The files that a fold was read from, and where a network that is converted from them may be kept.

    Args:
        known: SHA-256 of some of the files, which are then not read again for it.
    """

    def __init__(self, files: tuple[Path, ...], converted: Path, known: Mapping[Path, str] | None = None) -> None:
        self.files, self.converted, self._known = files, converted, known or {}

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of the files, read once, when first asked for."""
        return tuple(self._known.get(path) or file_digest(path) for path in self.files)


@dataclass(frozen=True)
class ModelSource:
    """Where a model was read from: its place, and by their names there the files that its answers come from."""

    place: Path
    files: Mapping[str, Path]

    def digests(self, known: Mapping[Path, str]) -> dict[str, str]:
        """SHA-256 by name; ``known`` has those of files that need not be read for it."""
        return {name: known.get(path) or file_digest(path) for name, path in self.files.items()}


class StoredFold(NamedTuple):
    """What the files of a fold hold."""

    weights: dict[str, torch.Tensor]
    configuration: str
    mirror_axes: tuple[int, ...]
    origin: Origin


class ModelFiles(Protocol):
    """The files of a model, wherever they are."""

    place: Path

    def folds(self) -> list[str]:
        """Names of the finished folds; numbers only, or "all" where there are none."""

    def fold(self, name: str) -> StoredFold:
        """Weights of a fold; ModelError where there are none."""

    def source(self, folds: Sequence[str]) -> ModelSource:
        """The files that the answers of these folds come from."""

    def card(self) -> bytes | None:
        """Text of the model card, if there is one."""

    def json(self, name: str) -> dict[str, Any] | None:
        """The object of a JSON file by its path in the model, e.g. "fold_0/case_head.json"; None where there is no file."""


def fold_names(folds: Sequence[str | int]) -> list[str]:
    """Folds as they stand in the names of folders, e.g. ``["0", "all"]``.

    Raises:
        ModelError: one is neither a number nor "all", or stands twice.

    Examples:
        >>> fold_names([0, "all"])
        ['0', 'all']
    """
    names = [str(fold) for fold in folds]
    wrong = [name for name in names if not FOLD_NAME.fullmatch(name)]
    if wrong or len(set(names)) < len(names):
        raise ModelError(f'folds: expected different numbers, or "all", got {printable(repr(names)[:200])}')
    return names
