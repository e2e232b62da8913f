"""How much of a case's evidence a training patch holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from nnduet.network.losses import evidence_gate
from nnduet.nnunet_types import LabelManager
from nnduet.training.case_properties import read_properties
from nnduet.training.preprocessing import foreground_counts

__all__ = ["Evidence"]


class Evidence:
    """Compares the foreground regions in a patch with those in its whole case; what a case holds is read once.

    Args:
        folder: preprocessed cases of the configuration, with ``<case>.pkl``.
        label_manager: nnU-Net's LabelManager.
    """

    def __init__(self, folder: str, label_manager: LabelManager) -> None:
        self._folder, self._label_manager = folder, label_manager
        self._expected: dict[str, Tensor] = {}

    def gates(self, target: Tensor, case_ids: Iterable[str]) -> Tensor:
        """Share (B,) in [0, 1] of each case's regions that the reference patch (B, 1 or R, *spatial) shows."""
        expected = torch.stack([self._of_case(case_id) for case_id in case_ids]).to(target.device)
        return evidence_gate(self._in_patch(target), expected)

    def _of_case(self, case_id: str) -> Tensor:
        """Which foreground regions the whole case holds, bool (R,)."""
        if case_id not in self._expected:
            properties = read_properties(Path(self._folder) / f"{case_id}.pkl")
            self._expected[case_id] = torch.from_numpy(foreground_counts(properties["class_locations"]))
        return self._expected[case_id]

    def _in_patch(self, target: Tensor) -> Tensor:
        """Which foreground regions the reference patch shows, bool (B, R)."""
        if self._label_manager.has_regions:
            return (target[:, : len(self._label_manager.foreground_regions)] > 0).flatten(2).any(-1)
        labels = self._label_manager.foreground_labels
        return torch.stack([(target == label).flatten(1).any(-1) for label in labels], dim=1)
