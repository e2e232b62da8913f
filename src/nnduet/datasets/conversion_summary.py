"""What a conversion tells about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from nnduet.datasets.checking import CheckedFile
from nnduet.datasets.sources import Source
from nnduet.records import record_object
from nnduet.schema import TaskType

__all__ = ["ConversionSummary", "TaskCounts", "collect_notes", "count_classes"]

_MAX_NOTES_OF_A_KIND = 5


@dataclass(frozen=True)
class TaskCounts:
    """A task: its type, training cases per class (empty for a regression), and how many have no label."""

    type: TaskType
    classes: dict[str, int]
    missing: int


@dataclass(frozen=True)
class ConversionSummary:
    """What a conversion wrote, or would write; ``nnduet convert --json`` prints it.

    Attributes:
        dataset: e.g. Dataset007_Pancreas.
        raw, preprocessed: the folders that hold it; the second has what nnU-Net reads there, such as the folds.
        num_cases, num_test_cases: cases for training, and further images without folds.
        labels: {label: value}, or {region: values} as in ``dataset.json``.
        tasks: what is known of the training cases, by task.
        rounded_masks, rounded_voxels: masks whose values were no whole numbers by a rounding error, and such voxels in them.
        num_rewritten: files that were not copied byte by byte but repaired (units, 4D, orientation, labels), compressed or
            combined.
        dry_run: whether nothing was written.
        notes: what the user should know, in sentences.
    """

    dataset: str
    raw: str
    preprocessed: str
    num_cases: int
    num_test_cases: int
    labels: dict[str, int | list[int]]
    tasks: dict[str, TaskCounts]
    num_folds: int
    rounded_masks: int
    rounded_voxels: int
    num_rewritten: int
    dry_run: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field."""
        return record_object(self)


def collect_notes(files: Iterable[CheckedFile]) -> list[str]:
    """Notes on files; of each kind the first five, then a count."""
    kinds: dict[str, list[str]] = {}
    for file in files:
        for note in file.notes:
            kinds.setdefault(note.split(":")[0].split("[")[0], []).append(f"{file.path.name}: {note}")
    notes = []
    for found in kinds.values():
        notes += found[:_MAX_NOTES_OF_A_KIND]
        if len(found) > _MAX_NOTES_OF_A_KIND:
            notes.append(f"… and {len(found) - _MAX_NOTES_OF_A_KIND} more files of that kind")
    return notes


def count_classes(source: Source) -> dict[str, TaskCounts]:
    """Type, cases per class and cases without a label of every task."""
    counts: dict[str, TaskCounts] = {}
    for task in source.tasks:
        cells = [source.rows[case.case_id][task.name] for case in source.cases]
        named = Counter(label for cell in cells for label in task.kind.split(cell))
        counts[task.name] = TaskCounts(task.type, {label: named[label] for label in task.classes}, cells.count(""))
    return counts
