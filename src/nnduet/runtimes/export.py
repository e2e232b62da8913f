"""Write a model to one file: a bundle, or an ONNX graph of one fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnduet.errors import ModelError, SettingsError
from nnduet.model_store.bundles import BUNDLE_ENDING, write_bundle
from nnduet.model_store.model_folder import load_model
from nnduet.model_store.shipped_models import open_model
from nnduet.model_store.stock_models import StockFiles
from nnduet.process import import_quietly
from nnduet.runtimes.all_runtimes import find_runtime
from nnduet.runtimes.onnx_graph import write_onnx

__all__ = ["ONNX_ENDING", "export_model", "import_stock_model"]

ONNX_ENDING = ".onnx"


def export_model(model: str | Path, target: Path, folds: Sequence[str] | None = None) -> dict[str, Any]:
    """Write folds of a model folder, bundle or shipped model to ``target``; its ending decides what it becomes.

    Args:
        target: ``*.nnduet`` for a bundle, ``*.onnx`` for the network of one fold with both outputs, see
            :func:`~nnduet.runtimes.onnx_graph.write_onnx`. A file there is replaced.
        folds: None takes all that are finished; an ONNX file takes one.

    Returns:
        ``file``, ``bytes``, ``folds``; for ONNX also ``inputs`` and ``outputs`` by name with their shapes.

    Raises:
        SettingsError: another ending, several folds for ONNX, or the packages for ONNX are not installed.
        ModelError: the model cannot be read.
        DiskFullError: the disk is full; ``target`` is untouched.
    """
    files = open_model(model)
    if target.name.endswith(BUNDLE_ENDING):
        return {"file": str(target), "folds": write_bundle(files, target, folds), "bytes": target.stat().st_size}
    if not target.name.endswith(ONNX_ENDING):
        raise SettingsError(f"{target}: expected a name ending in {BUNDLE_ENDING} or {ONNX_ENDING}")
    find_runtime("onnx")  # which needs the same packages
    loaded = load_model(files, folds)
    if len(loaded.members) != 1:
        raise SettingsError(f"{target}: an ONNX file holds one fold; name one of {[m.fold for m in loaded.members]}")
    shape = (1, len(loaded.dataset_json["channel_names"]), *loaded.configuration.patch_size)
    write_onnx(loaded.network.eval(), shape, loaded.tasks, target)
    return {
        "file": str(target),
        "bytes": target.stat().st_size,
        "folds": [loaded.members[0].fold],
        **_run_once(target),
    }


def _run_once(path: Path) -> dict[str, dict[str, list[int]]]:
    """Shapes of inputs and outputs, from ONNX Runtime, which has nothing but the file."""
    onnxruntime = import_quietly("onnxruntime")
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    zeros = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs()}
    outputs = dict(zip((o.name for o in session.get_outputs()), session.run(None, zeros), strict=True))
    return {
        "inputs": {name: list(array.shape) for name, array in zeros.items()},
        "outputs": {name: list(array.shape) for name, array in outputs.items()},
    }


def import_stock_model(model: Path, target: Path, folds: Sequence[str] | None = None) -> dict[str, Any]:
    """Write a bundle of a model that nnU-Net trained; it segments and answers nothing.

    Args:
        model: folder ``<trainer>__<plans>__<configuration>``, or a checkpoint in one of its folds.
        target: ``*.nnduet``.

    Returns:
        ``file``, ``bytes``, ``folds``.

    Raises:
        SettingsError: ``target`` has another ending.
        ModelError: no such model, of an architecture that nnDuet does not know, or weights that do not fit its plans.
        DiskFullError: the disk is full; ``target`` is untouched.
    """
    if not target.name.endswith(BUNDLE_ENDING):
        raise SettingsError(f"{target}: expected a name ending in {BUNDLE_ENDING}")
    files = StockFiles(model)
    if not files.folds():
        raise ModelError(f"{model}: expected fold_*/checkpoint_final.pth, found none; has the training finished?")
    return {"file": str(target), "folds": write_bundle(files, target, folds), "bytes": target.stat().st_size}
