"""Fit the case heads of a trained model anew from stored features: after labels changed, or a new release chooses better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnduet.case_head.head import CaseHead, best_model
from nnduet.errors import DatasetError, ModelError
from nnduet.evaluation.stored_metrics import TaskMetrics
from nnduet.inference.result_tables import result_ending, write_tables
from nnduet.io.files import replace_together, scratch_folder, write_json_atomically
from nnduet.progress import Progress
from nnduet.records import record_object
from nnduet.schema import Workspace
from nnduet.training.fold_metrics import FINAL_METRICS_FILE, FoldTruth, measure_fold
from nnduet.training.head_fitting import answer_table, fit_heads
from nnduet.training.ingredients import INGREDIENTS_FILE, read_ingredients, write_ingredients
from nnduet.training.trained_folds import TrainedFolds, read_trained_folds

__all__ = ["RefitRow", "RefitSummary", "refit_heads"]


@dataclass(frozen=True)
class RefitRow:
    """One task of one fold: what was chosen, by which inner loss, and what it is worth on the validation cases.

    ``model`` and ``features`` are of the best model, with the number of others that the head is the mean of. ``features`` is
    empty and ``inner_loss`` None where the network head answers alone; ``metrics`` maps metric names to values, None where
    undefined.
    """

    task: str
    fold: str
    model: str
    features: str
    inner_loss: float | None
    network_share: float
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class RefitSummary:
    """What a refit wrote; ``nnduet fit-head --json`` prints it.

    Attributes:
        model: the model folder.
        rows: one per task and fold.
        metrics_files: {fold: its ``final_metrics.json``}.
    """

    model: str
    rows: tuple[RefitRow, ...]
    metrics_files: dict[str, str]

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field."""
        return record_object(self)


def refit_heads(
    model: Path,
    *,
    workspace: Workspace,
    folds: Sequence[int | str] | None = None,
    table: Path | None = None,
    id_column: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> RefitSummary:
    """Fit the case heads of finished folds again, answer their validation cases and measure them.

    Replaces ``case_head.json``, the tables in ``validation/`` and ``final_metrics.json`` of all named folds together, at the
    end; an error leaves the old ones. The masks stay. The spread over mirrored passes is not stored, so its column is empty.

    Args:
        model: folder that ``train`` wrote.
        workspace: where labels (raw before preprocessed) and reference masks (as in the training) of the model's dataset lie.
        folds: None takes every fold that was validated.
        table: another table of labels, with the columns of ``classification_labels.csv``, in any form that ``convert`` reads.
        id_column: its column with the case ids, if it is not found by its name.
        seed: of the inner cross-validation; 0 is what ``train`` takes.
        progress: called with (folds done, all folds, text).

    Raises:
        ModelError: no model folder, or a fold lacks its features or its validation masks.
        DatasetError: no labels, or no reference masks.
        StaleError: images or masks changed after a fold was trained.
        TableError: the table is malformed or lacks cases.
    """
    trained = read_trained_folds(model, workspace, folds, table, id_column)
    truth = FoldTruth(_references(trained, workspace), trained.table, trained.labels, trained.dataset_json, id_column)
    rows: list[RefitRow] = []
    with scratch_folder(model) as scratch:
        for index, fold in enumerate(trained.folds):
            rows += _refit_fold(trained, truth, fold, scratch / f"fold_{fold}", seed)
            if progress:
                progress(index + 1, len(trained.folds), f"fold {fold}")
        replace_together({model / path.relative_to(scratch): path for path in _prepared(scratch)})
    files = {fold: str(trained.folder(fold) / FINAL_METRICS_FILE) for fold in trained.folds}
    return RefitSummary(str(model), tuple(rows), files)


def _references(trained: TrainedFolds, workspace: Workspace) -> Path:
    folders = (workspace.preprocessed / trained.dataset / "gt_segmentations", workspace.raw / trained.dataset / "labelsTr")
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise DatasetError(f"expected reference masks in one of {[str(folder) for folder in folders]}, found no folder")
    return found


def _refit_fold(trained: TrainedFolds, truth: FoldTruth, fold: str, prepared: Path, seed: int) -> list[RefitRow]:
    """Write the fold's new files into ``prepared``, with links to the masks, which the measuring needs."""
    _, validation = trained.features(fold)
    _link_masks(trained, fold, validation.case_ids, prepared / "validation")
    heads, outliers, _ = fit_heads(trained.folder(fold), trained.labels, seed, prepared)
    answers = answer_table(validation, trained.tasks, heads, outliers)
    write_tables(prepared / "validation", trained.tasks, answers, ending=result_ending(trained.dataset_json))
    number = int(fold) if fold.isdigit() else fold
    metrics = measure_fold(prepared / "validation", number, answers, heads, truth)
    write_json_atomically(prepared / FINAL_METRICS_FILE, metrics)
    made_of = read_ingredients(trained.folder(fold) / INGREDIENTS_FILE)
    if made_of is not None:
        write_ingredients(prepared / INGREDIENTS_FILE, replace(made_of, labels=trained.labels_digest()))
    return [_row(task.name, fold, heads.get(task.name), metrics.tasks[task.name]) for task in trained.tasks]


def _link_masks(trained: TrainedFolds, fold: str, case_ids: Sequence[str], target: Path) -> None:
    target.mkdir(parents=True)
    source = (trained.folder(fold) / "validation").resolve()
    for case_id in case_ids:
        name = f"{case_id}{trained.dataset_json['file_ending']}"
        if not (source / name).is_file():
            remedy = (
                f"move {trained.folder(fold)}/final_metrics.json away and run `nnduet train … --resume`, which validates again"
            )
            raise ModelError(f"{source / name}: expected the mask that the validation wrote, found none", remedy=remedy)
        (target / name).symlink_to(source / name)


def _prepared(scratch: Path) -> list[Path]:
    """All new files; those that say how good the new ones are come last."""
    files = [path for path in sorted(scratch.rglob("*")) if path.is_file() and not path.is_symlink()]
    return sorted(files, key=lambda path: path.name == FINAL_METRICS_FILE)


def _row(task: str, fold: str, head: CaseHead | None, measured: TaskMetrics) -> RefitRow:
    metrics = {name: entry.value for name, entry in measured.metrics.items()}
    if head is None:
        return RefitRow(task, fold, "network head", "", None, 1.0, metrics)
    return RefitRow(task, fold, *best_model(head), head.choice["inner_loss"], head.network_share, metrics)
