"""Read what nnU-Net pickles beside a preprocessed case, without running anything that a pickle may name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from nnduet.errors import CorruptFileError
from nnduet.nnunet_types import CaseProperties

__all__ = ["read_properties"]

_ALLOWED = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict")}
    | {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
    | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
)
"""What the pickles of arrays, numbers and texts name. Anything else is a program."""


class _DataOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"expected numbers, texts and arrays, got {module}.{name}, which was not run")
        return super().find_class(module, name)


def read_properties(path: Path) -> CaseProperties:
    """The properties of a preprocessed case, from ``<case>.pkl``: geometry, cropping, and where its labels are.

    Raises:
        CorruptFileError: it is damaged, or names anything to run.
    """
    try:
        with path.open("rb") as stream:
            properties = _DataOnly(stream).load()
    except OSError:
        raise
    except Exception as error:  # damaged bytes raise whatever they like
        raise CorruptFileError(f"{path}: no properties of a preprocessed case: {error}") from error
    if not isinstance(properties, dict):
        raise CorruptFileError(f"{path}: expected the properties of a case, got {type(properties).__name__}")
    return properties
