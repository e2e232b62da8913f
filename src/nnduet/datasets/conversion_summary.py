"""What a conversion tells about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from nnduet.datasets.checking import CheckedFile
from nnduet.datasets.sources import Source

__all__ = ["ConversionSummary", "collect_notes", "count_classes"]

_MAX_NOTES_OF_A_KIND = 5


@dataclass(frozen=True)
class ConversionSummary:
    """What a conversion wrote, or would write.

    ``tasks`` maps a task to its type, cases per class (empty for regression) and number of cases without a label.
    ``num_rewritten`` files were not copied byte by byte but repaired (units, 4D, orientation, labels), compressed
    or combined.
    """

    dataset: str
    raw: str
    preprocessed: str
    num_cases: int
    num_test_cases: int
    labels: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    num_folds: int
    rounded_masks: int
    rounded_voxels: int
    num_rewritten: int
    dry_run: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return asdict(self) | {"notes": list(self.notes)}


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


def count_classes(source: Source) -> dict[str, dict[str, Any]]:
    """Type, cases per class and cases without a label of every task."""
    counts: dict[str, dict[str, Any]] = {}
    for task in source.tasks:
        cells = Counter(source.rows[case.case_id][task.name] for case in source.cases)
        counts[task.name] = {
            "type": task.type,
            "classes": {label: cells[label] for label in task.classes},
            "missing": cells[""],
        }
    return counts
