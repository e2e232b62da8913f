"""Models that nnU-Net trained without nnDuet: the files of one that segments and answers nothing."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from nnduet.errors import ModelError
from nnduet.io.case_images import check_readable
from nnduet.model_store.folder_files import FolderFiles
from nnduet.model_store.model_files import FINAL_CHECKPOINT, StoredFold
from nnduet.model_store.model_network import network_for, read_configuration
from nnduet.model_store.plans import check_dataset, check_plans
from nnduet.network.network import PLANS_KEY, has_regions
from nnduet.nnunet_types import DatasetJson, Plans

__all__ = ["StockFiles"]

_OWN_WEIGHTS = ("heads.", "inner_heads.")


class StockFiles(FolderFiles):
    """A folder ``<trainer>__<plans>__<configuration>`` of nnU-Net, or one checkpoint in it.

    Checkpoints are read with ``weights_only=True``; the trainer that they name is not imported.

    Raises:
        ModelError: the path is no such folder or checkpoint, nnDuet trained the model, or it reads images that nnDuet does
            not read.
    """

    def __init__(self, path: Path) -> None:
        if path.is_file() and path.parent.name.startswith("fold_"):
            super().__init__(path.parents[1], path.name)
            self._only = path.parent.name.removeprefix("fold_")
        elif path.is_dir():
            super().__init__(path)
            self._only = ""
        else:
            raise ModelError(f"{path}: expected a model folder of nnU-Net, or fold_*/{FINAL_CHECKPOINT} in one")
        if PLANS_KEY in self._plans:
            raise ModelError(f"{self.place}: was trained by nnDuet; `nnduet export` writes its bundle, with the answers")
        check_readable(self._plans, self._dataset, str(self.place))

    def folds(self) -> list[str]:
        return [self._only] if self._only else super().folds()

    def fold(self, name: str) -> StoredFold:
        stored = super().fold(name)
        template = self._template(stored)
        wanted = {n for n in template if not n.startswith(_OWN_WEIGHTS)}
        if wanted != set(stored.weights):
            missing, unknown = sorted(wanted - set(stored.weights))[:3], sorted(set(stored.weights) - wanted)[:3]
            raise ModelError(f"{self.place}: fold {name} does not fit its plans: missing {missing}, unknown {unknown}")
        return stored._replace(weights=stored.weights | {n: t for n, t in template.items() if n.startswith("heads.")})

    def json(self, name: str) -> dict[str, Any] | None:
        if name != "plans.json":
            return super().json(name) if name == "dataset.json" else None
        return self._described()

    def _described(self) -> Plans:
        """The plans with the object that nnDuet's training would have added."""
        own = {"training": {}, "tasks": {}, "head": {}, "overlapping": has_regions(self._dataset["labels"])}
        return self._plans | {PLANS_KEY: own}

    @cached_property
    def _plans(self) -> Plans:
        num_channels = len(self._dataset["channel_names"])
        return check_plans(self._content("plans.json"), num_channels, str(self.place / "plans.json"))

    @cached_property
    def _dataset(self) -> DatasetJson:
        return check_dataset(self._content("dataset.json"), str(self.place / "dataset.json"))

    def _content(self, name: str) -> dict[str, Any]:
        found = super().json(name)
        if found is None:
            raise ModelError(f"{self.place / name}: expected nnU-Net's file of a model, found none")
        return found

    def _template(self, stored: StoredFold) -> dict[str, Tensor]:
        """Weights of nnDuet's network for these plans; without tasks its heads are there, and nobody asks them."""
        manager, configuration = read_configuration(self._described(), stored.configuration, self._dataset, self.place)
        network = network_for(manager, configuration, self._dataset, stored.weights, self.place, optional=_OWN_WEIGHTS)
        return network.state_dict()
