"""Which cases a model has learned from, so that nobody takes its answers to them for answers to new ones."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnduet.errors import ModelError
from nnduet.io.files import write_json_atomically
from nnduet.records import read_json
from nnduet.schema import folds_with

__all__ = ["TRAINING_CASES_FILE", "training_cases", "write_training_cases"]

TRAINING_CASES_FILE = "training_cases.json"
"""In the folder of a fold: the names of its training cases. It stays with the model folder and is not exported."""
_FEATURES = "features_training.npz"


def write_training_cases(fold: Path, case_ids: Sequence[str]) -> None:
    """Note in a fold's folder what it was trained on."""
    write_json_atomically(fold / TRAINING_CASES_FILE, sorted(case_ids))


def training_cases(model: Path, folds: Sequence[str] = ()) -> frozenset[str]:
    """Names of the cases that any of the folds has learned from; empty where nobody noted them, as in a bundle.

    Args:
        model: a model folder; anything else has noted nothing.
        folds: names behind ``fold_``; none takes all that are there.

    Raises:
        ModelError: a fold's note is damaged.
    """
    names = folds or folds_with(model, "")
    return frozenset(case_id for name in names for case_id in _cases_of(model / f"fold_{name}"))


def _cases_of(fold: Path) -> list[str]:
    if (fold / TRAINING_CASES_FILE).exists():
        noted: list[str] = read_json(fold / TRAINING_CASES_FILE, list[str], error=ModelError)
        return noted
    if not (fold / _FEATURES).is_file():
        return []
    try:  # models of before the note: the features of a fold's training cases have their names
        with np.load(fold / _FEATURES, allow_pickle=False) as stored:
            return [str(case_id) for case_id in stored["case_ids"].tolist()]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{fold / _FEATURES}: not a readable table of features: {error!r}") from error
