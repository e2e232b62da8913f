"""The features of many cases in one table on disk, so that heads are fitted, compared and probed without the network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnduet.case_head.descriptors import DESCRIPTORS_VERSION, KNOWN_VERSIONS
from nnduet.errors import ModelError
from nnduet.io.files import write_bytes_atomically

__all__ = ["FeatureTable"]


@dataclass(frozen=True)
class FeatureTable:
    """Features and network answers of N cases.

    Attributes:
        case_ids: (N,).
        values: (N, F) float32, NaN where undefined.
        blocks: names to columns, e.g. "stage 2": range(90, 140); together they cover all columns in order.
        network: {task: (N, K) class probabilities, or (N, 1) values, of network heads}.
        descriptors: version of the descriptors in the block "shape"; files without one have the first.
    """

    case_ids: tuple[str, ...]
    values: NDArray[np.float32]
    blocks: Mapping[str, range]
    network: Mapping[str, NDArray[np.float32]]
    descriptors: int = DESCRIPTORS_VERSION

    def save(self, path: Path) -> None:
        """Write an .npz of numbers and names, atomically."""
        buffer = io.BytesIO()
        arrays = {f"network_{index}": values for index, values in enumerate(self.network.values())}
        np.savez_compressed(
            buffer,
            case_ids=np.array(self.case_ids, dtype=str),
            values=self.values.astype(np.float32),
            blocks=np.array(list(self.blocks), dtype=str),
            ends=np.array([columns.stop for columns in self.blocks.values()], dtype=np.int64),
            tasks=np.array(list(self.network), dtype=str),
            descriptors=np.array(self.descriptors, dtype=np.int64),
            **arrays,  # type: ignore[arg-type]
        )
        write_bytes_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> FeatureTable:
        """Inverse of :meth:`save`; nothing in the file is executed.

        Raises:
            ModelError: the file is missing, truncated, or its arrays do not fit each other.
        """
        if not path.is_file():
            remedy = "`nnduet train … --resume` with the dataset and fold of this model writes them"
            raise ModelError(f"{path}: expected the features of the training cases, found no file", remedy=remedy)
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            starts = np.r_[0, arrays["ends"][:-1]].tolist()
            blocks = {str(n): range(a, b) for n, a, b in zip(arrays["blocks"], starts, arrays["ends"].tolist(), strict=True)}
            network = {str(name): arrays[f"network_{index}"] for index, name in enumerate(arrays["tasks"])}
            version = int(arrays.get("descriptors", 1))
            table = cls(tuple(arrays["case_ids"].tolist()), arrays["values"], blocks, network, version)
        except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
            raise ModelError(f"{path}: not a readable table of features: {error!r}") from error
        rows = {len(table.case_ids), len(table.values), *(len(values) for values in network.values())}
        if (
            len(rows) != 1
            or table.values.ndim != 2
            or table.values.shape[1] != max((r.stop for r in blocks.values()), default=0)
        ):
            raise ModelError(f"{path}: expected one row per case and a block for every column")
        if version not in KNOWN_VERSIONS:
            raise ModelError(f"{path}: expected descriptors of a version among {KNOWN_VERSIONS}, got {version}; update nnduet")
        return table

    def rows(self, case_ids: Sequence[str]) -> FeatureTable:
        """The table of some of its cases, in the given order."""
        index = {case_id: row for row, case_id in enumerate(self.case_ids)}
        chosen = [index[case_id] for case_id in case_ids]
        network = {task: values[chosen] for task, values in self.network.items()}
        return FeatureTable(tuple(case_ids), self.values[chosen], self.blocks, network, self.descriptors)
