"""A tiny planned dataset of six pictures that tests may change: made once, copied for each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_dataset import edit_plans
from tiny import DATASET, DATASET_ID, tiny_workspace

from nnduet.schema import Workspace
from nnduet.training.planning import plan

NUM_CASES = 6
PLANS = "nnDuetCpuPlans"
SHORT = {"iterations_per_epoch": 2, "validation_iterations": 1, "num_epochs": 2}


def plan_pictures(folder: Path) -> Workspace:
    """Convert and plan the pictures in 2d, with two iterations per epoch."""
    workspace = tiny_workspace(folder, 2, NUM_CASES)
    planned = plan(DATASET_ID, "cpu", workspace=workspace, num_processes=1)
    edit_plans(planned.plans_file, **SHORT)
    return workspace


def copy_of(workspace: Workspace, folder: Path) -> Workspace:
    """Raw and preprocessed data copied, an empty folder of results."""
    copies = [Path(shutil.copytree(source, folder / source.name)) for source in (workspace.raw, workspace.preprocessed)]
    return Workspace(copies[0], copies[1], folder / "results")


def plans_file(workspace: Workspace) -> Path:
    return workspace.preprocessed / DATASET / f"{PLANS}.json"


def cases_folder(workspace: Workspace) -> Path:
    return workspace.preprocessed / DATASET / f"{PLANS}_2d"


def model_of(workspace: Workspace) -> Path:
    return workspace.results / DATASET / f"nnUNetTrainerMultitask__{PLANS}__2d"


def edit_json(path: Path, edit: Callable[[Any], object]) -> None:
    """Let ``edit`` change the decoded file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
