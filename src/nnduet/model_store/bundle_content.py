"""What a bundle holds, in either of its layouts, and what its parts are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from nnduet.errors import ModelError
from nnduet.model_store.model_files import CARD_FILE, CASE_HEAD_FILE, CONFORMAL_FILE, CROSS_VALIDATION_FOLDER

__all__ = [
    "FORMAT",
    "JSON_NAMES",
    "MOST_TEXT_BYTES",
    "TEXTS",
    "BundleContent",
    "check_format",
    "load_tensors",
    "with_other_names",
]

FORMAT = "nnduet model"
JSON_NAMES = ("plans.json", "dataset.json", f"{CROSS_VALIDATION_FOLDER}/{CONFORMAL_FILE}")
"""Of a model; each fold may have its case heads beside."""
TEXTS = re.compile("|".join([*map(re.escape, (CARD_FILE, *JSON_NAMES)), rf"fold_(?:\d{{1,3}}|all)/{CASE_HEAD_FILE}"]))
"""What the texts of a bundle are called."""
MOST_TEXT_BYTES = 2**26
"""The plans of nnU-Net have tens of kilobytes; fingerprint-sized files tens of megabytes at most."""


@dataclass(frozen=True)
class BundleContent:
    """What was read and verified.

    Attributes:
        weights: {fold: {name: tensor}}; tensors that have several names are shared.
        texts: UTF-8 by the names of :data:`TEXTS`, not yet parsed.
    """

    configuration: str
    mirror_axes: tuple[int, ...]
    weights: Mapping[str, dict[str, torch.Tensor]]
    texts: Mapping[str, bytes]


def check_format(manifest: Any, version: int, path: Path) -> None:
    """Refuse a manifest that another program or a later nnDuet wrote.

    Raises:
        ModelError: it is not of this format and version.
    """
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{path}: expected a manifest of format {FORMAT!r}")
    if manifest.get("version") != version:
        raise ModelError(f"{path}: expected version {version} of the format, got {manifest.get('version')!r}; update nnduet")


def load_tensors(content: bytes, place: str) -> dict[str, torch.Tensor]:
    """Tensors by name, of safetensors; none takes more memory than it has bytes in ``content``.

    Raises:
        ModelError: it is not safetensors.
    """
    try:
        tensors: dict[str, torch.Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{place}: not readable as safetensors: {error}") from error
    return tensors


def with_other_names(weights: dict[str, torch.Tensor], aliases: Mapping[str, str], place: str) -> dict[str, torch.Tensor]:
    """Weights also under the other names that they have; ``aliases`` is {other name: name}.

    Raises:
        ModelError: a weight that has another name is not there.
    """
    unknown = sorted(set(aliases.values()) - set(weights))[:3]
    if unknown:
        raise ModelError(f"{place}: the manifest gives other names to weights that are not there: {unknown}")
    return weights | {name: weights[first] for name, first in aliases.items()}
