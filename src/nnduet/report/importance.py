"""Which features carry an answer: what it costs the case head when they are permuted among held-out cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnduet.case_head.descriptors import descriptor_names
from nnduet.case_head.feature_table import FeatureTable
from nnduet.case_head.head import CaseHead
from nnduet.errors import ModelError
from nnduet.records import read_json
from nnduet.report.drawing import Drawing
from nnduet.report.figures import importance_bars
from nnduet.report.runs import Run
from nnduet.report.stored_model import region_names
from nnduet.schema import Task

__all__ = ["NETWORK", "block_importances", "importances"]

Array = NDArray[np.float64]
NETWORK = "network head"
MOST_BARS = 12
_PERMUTATIONS = 20
_FEATURES, _HEADS = "features_validation.npz", "case_head.json"


@dataclass(frozen=True)
class _HeadsFile:
    """``case_head.json``: the heads by task; what else it holds is not read here."""

    tasks: Mapping[str, Mapping[str, Any]]


def importances(run: Run, task: Task) -> list[Drawing]:
    """Figures of the means over the folds of the run: blocks, then the descriptors and covariates that matter most.

    Empty where no case head answers the task, or its features are gone.
    """
    reference = next(cases.reference for cases in run.tasks if cases.task.name == task.name)
    truth = dict(zip(run.cases, reference.tolist(), strict=True))
    blocks: dict[str, list[float]] = {}
    columns: dict[str, list[float]] = {}
    for folder in run.folds.values():
        found = _head(folder, task)
        known = [case for case in found[1].case_ids if np.isfinite(truth.get(case, np.nan))] if found else []
        if found is None or len(known) < 2:
            continue
        head, table, answers = found[0], found[1].rows(known), np.array([truth[case] for case in known])
        for costs, parts in ((blocks, table.blocks), (columns, _named_columns(run, table))):
            for name, cost in block_importances(head, table, answers, parts).items():
                costs.setdefault(name, []).append(cost)
    label = f"rise of the {task.kind.error_name}"
    columns.pop(NETWORK, None)
    titles = (f"What the answers to {task.name} rest on", f"Descriptors and covariates behind the answers to {task.name}")
    return [_bars(costs, title, label) for costs, title in zip((blocks, columns), titles, strict=True) if costs]


def _bars(costs: Mapping[str, list[float]], title: str, label: str) -> Drawing:
    rows = [(name, float(np.mean(values)), float(np.std(values))) for name, values in costs.items()]
    return importance_bars(sorted(rows, key=lambda row: -row[1])[:MOST_BARS], title, label)


def _named_columns(run: Run, table: FeatureTable) -> dict[str, range]:
    """{name: its one column} of descriptors and covariates; empty where the names are not known."""
    if run.model is None:
        return {}
    dataset = run.model.dataset
    names = {
        "shape": descriptor_names(region_names(dataset.labels), len(dataset.channel_names)),
        "covariates": dataset.covariates,
    }
    blocks = {block: table.blocks.get(block, range(0)) for block in names}  # a block without columns is no block
    known = [block for block, columns in blocks.items() if len(columns) == len(names[block])]
    return {name: range(c, c + 1) for block in known for c, name in zip(blocks[block], names[block], strict=True)}


def block_importances(
    head: CaseHead, table: FeatureTable, truth: Array, blocks: Mapping[str, range] | None = None
) -> dict[str, float]:
    """Mean rise of the loss over permutations of each block that the head reads, and of the network head's answer.

    Args:
        head: of one task.
        table: held-out cases (N).
        truth: (N,) class indices or values.
        blocks: {name: columns}; None takes those of the table.

    Returns:
        {block: rise of the mean log loss, or of the mean absolute error}; about 0 for a block that does not matter. Blocks that
        tell the same can replace each other, so that each alone looks unimportant.

    Source: Breiman, Machine Learning 45 (2001); model-agnostic form of Fisher, Rudin and Dominici, JMLR 20 (2019).
    """
    rng = np.random.default_rng(0)
    values, network = table.values.astype(float), table.network.get(head.task.name)
    answers = network.astype(float) if network is not None else None
    before, read = _loss(head, values, answers, truth), set(head.columns.tolist())
    out = {}
    for name, columns in (table.blocks if blocks is None else blocks).items():
        used = sorted(read & set(columns))
        if used and head.network_share < 1:
            costs = []
            for _ in range(_PERMUTATIONS):
                changed = values.copy()
                changed[:, used] = changed[np.ix_(rng.permutation(len(values)), used)]
                costs.append(_loss(head, changed, answers, truth) - before)
            out[name] = float(np.mean(costs))
    if answers is not None and head.network_share > 0:
        permuted = (answers[rng.permutation(len(answers))] for _ in range(_PERMUTATIONS))
        out[NETWORK] = float(np.mean([_loss(head, values, other, truth) - before for other in permuted]))
    return out


def _loss(head: CaseHead, values: Array, network: Array | None, truth: Array) -> float:
    return float(np.mean(head.task.kind.errors(head.task, head(values, network), truth)))


def _head(folder: Path, task: Task) -> tuple[CaseHead, FeatureTable] | None:
    """The case head of a fold for a task with the features of its validation cases; None where one of them is missing.

    Raises:
        ModelError: a file is damaged, or the two do not fit each other.
    """
    if not (folder / _HEADS).is_file() or not (folder / _FEATURES).is_file():
        return None
    stored: _HeadsFile = read_json(folder / _HEADS, _HeadsFile, error=ModelError)
    heads = stored.tasks
    if task.name not in heads:
        return None
    head, table = CaseHead.from_json(task, heads[task.name]), FeatureTable.load(folder / _FEATURES)
    if head.columns.max() >= table.values.shape[1] or (head.network_share > 0 and task.name not in table.network):
        raise ModelError(f"{folder / _HEADS}: its head of task {task.name} does not fit the features of {_FEATURES}")
    return head, table
