"""The user's ``dataset.json``: read where its meaning is beyond doubt, else refused or left out by name.

nnU-Net obeys some keys of a ``dataset.json`` in some of its stages only. What passes into a converted dataset is therefore a
list of known keys; everything else is named in the notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnduet.datasets.mask_codes import MASKS_KEY
from nnduet.errors import DatasetError
from nnduet.names import check_distinct_names, check_name, printable
from nnduet.records import MAX_DIGITS, read_json
from nnduet.schema import RESULT_NAMES_KEY

__all__ = ["REGIONS_KEY", "Description", "check_label_values", "check_labels", "check_regions", "read_description"]

REGIONS_KEY = "regions_class_order"
_REMADE = frozenset({"channel_names", "labels", "numTraining", "file_ending", "classification", "covariates"})
"""What every conversion writes anew."""
_PASSED_ON = frozenset(
    {"name", "dataset_name", "description", "reference", "release", "license", "licence", "citation", "converted_by"}
    | {REGIONS_KEY, MASKS_KEY, RESULT_NAMES_KEY}
)
"""Free text that nnU-Net documents (generate_dataset_json.py), and what belongs to the labels."""
_EQUAL_READERS = frozenset({"SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "NaturalImage2DIO", "None"})
_MAX_LABEL = 65535


@dataclass(frozen=True)
class Description:
    """What a ``dataset.json`` says: channel and label names (None: nothing), keys to pass on, and what a user should know."""

    channel_names: Mapping[str, str] | None = None
    labels: Mapping[str, object] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_description(path: Path) -> Description:
    """Read a ``dataset.json``; a missing one says nothing.

    nnU-Net's first version (``modality``, labels by value) is understood, as are numbers that are written as text.

    Raises:
        DatasetError: no readable JSON, a key of the wrong kind, an image reader that nnU-Net does not have, or a list of files
            in the key ``dataset``.
    """
    if not path.exists():
        return Description()
    content: dict[str, Any] = read_json(path, dict[str, Any])
    notes: list[str] = []
    channels = _channel_names(content, path, notes)
    labels = _labels(content, path, notes)
    _check_reader(content, path, notes)
    if "dataset" in content:
        raise DatasetError(
            f"{path}: the key 'dataset' names files elsewhere, which only some stages of nnU-Net would follow; remove the key "
            "and put the cases, or links to them, into images and labels (or name these folders with --images and --labels)"
        )
    known = _REMADE | _PASSED_ON | {"overwrite_image_reader_writer", "modality"}
    unknown = sorted(set(content) - known)
    if unknown:
        notes.append(f"{path.name}: keys that nnDuet does not know are left out: {printable(', '.join(unknown))}")
    return Description(channels, labels, {key: value for key, value in content.items() if key in _PASSED_ON}, tuple(notes))


def _channel_names(content: Mapping[str, object], path: Path, notes: list[str]) -> dict[str, str] | None:
    key = "channel_names" if "channel_names" in content else "modality"
    if key not in content:
        return None
    names = content[key]
    if not isinstance(names, dict) or not names:
        raise DatasetError(f'{path}: {key} expected an object such as {{"0": "CT"}}, got {names!r}')
    if key == "modality":
        notes.append(f"{path.name}: modality read as channel_names, as nnU-Net's first version meant it")
    if not any(name.isdecimal() for name in names) and all(_number(value) is not None for value in names.values()):
        notes.append(f"{path.name}: {key} turned around to number: name")
        names = {str(_number(value)): name for name, value in names.items()}
    numbers = sorted(names)
    if numbers != sorted(str(i) for i in range(len(names))):
        raise DatasetError(f"{path}: {key} expected keys 0 to {len(names) - 1}, got {numbers}")
    return {str(i): str(names[str(i)]) for i in range(len(names))}


def _labels(content: Mapping[str, object], path: Path, notes: list[str]) -> dict[str, Any] | None:
    if "labels" not in content:
        return None
    labels = content["labels"]
    if not isinstance(labels, dict) or not labels:
        raise DatasetError(f'{path}: labels expected an object such as {{"background": 0, "tumour": 1}}, got {labels!r}')
    if all(name.isdecimal() for name in labels) and all(isinstance(value, str) for value in labels.values()):
        if len(set(labels.values())) < len(labels):
            raise DatasetError(f"{path}: labels expected names that differ, got {labels}")
        notes.append(f"{path.name}: labels turned around to name: value, as nnU-Net's second version wants them")
        labels = {value: _number(name) for name, value in labels.items()}
    odd = [name for name in labels if name.casefold() == "background" and name != "background"]
    if len(odd) == 1 and "background" not in labels:
        notes.append(f"{path.name}: label {odd[0]} read as background")
        labels = {"background" if name == odd[0] else name: value for name, value in labels.items()}
    if any(isinstance(value, str) and _number(value) is not None for value in labels.values()):
        notes.append(f"{path.name}: label values in quotes read as numbers")
        labels = {name: value if _number(value) is None else _number(value) for name, value in labels.items()}
    return labels


def _number(value: object) -> int | None:
    """A whole number from 0 on, also written as text; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= MAX_DIGITS else None


def _check_reader(content: Mapping[str, object], path: Path, notes: list[str]) -> None:
    reader = content.get("overwrite_image_reader_writer")
    if reader is None:
        return
    if not isinstance(reader, str) or reader not in _EQUAL_READERS:
        raise DatasetError(
            f"{path}: overwrite_image_reader_writer expected one of {', '.join(sorted(_EQUAL_READERS))}, got {reader!r}; "
            "nnDuet reads NIfTI and PNG, remove the key if the files are of these formats"
        )
    notes.append(
        f"{path.name}: overwrite_image_reader_writer {reader} is left out: all stages read the converted files alike, by "
        "nnU-Net's own choice for the format, and images stay in the orientation in which they are stored"
    )


def check_labels(labels: Mapping[str, object]) -> frozenset[int]:
    """Values that a ``labels`` object declares (lists of values are regions), ``ignore`` included.

    The rules of nnU-Net's LabelManager and verify_dataset_integrity, which end in an assertion there.

    Raises:
        DatasetError: a name that cannot be a file name everywhere, values that are no integers, no ``background`` of 0, nothing
            but background, gaps, or an ignore label that is a region or not the highest.
    """
    for name in labels:
        check_name(name, "label", DatasetError)
    check_distinct_names(labels, "labels", DatasetError)
    return check_label_values(labels)


def check_label_values(labels: Mapping[str, Any]) -> frozenset[int]:
    """As :func:`check_labels`, with any names: those of a model whose labels name no files.

    Raises:
        DatasetError: as there, names apart.
    """
    values = {name: _values(name, value) for name, value in labels.items()}
    if labels.get("background") != 0 or isinstance(labels["background"], (bool, list, tuple)):
        raise DatasetError(f'labels: expected "background": 0, got {dict(labels)}')
    declared = set().union(*(found for name, found in values.items() if name != "ignore"))
    if len(declared) < 2:
        raise DatasetError(f"labels: expected at least one label beside background and ignore, got {dict(labels)}")
    if declared != set(range(len(declared))):
        raise DatasetError(
            f"labels must be 0 (background), 1, 2, … without gaps, got {sorted(declared)}; declare them as 0 to "
            f"{len(declared) - 1} and store the masks' values so with {_compression(sorted(declared))}"
        )
    if max(declared) >= _MAX_LABEL:
        raise DatasetError(f"labels: expected at most {_MAX_LABEL} values, got {len(declared)}")
    if "ignore" in labels:
        _check_ignore(labels["ignore"], max(declared) + 1)
    return frozenset(declared.union(values.get("ignore", ())))


def _values(name: str, value: object) -> tuple[int, ...]:
    items = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    wrong = [item for item in items if isinstance(item, bool) or not isinstance(item, int)]
    if wrong or not items:
        raise DatasetError(f"labels: {name!r} expected an integer or a list of integers, got {value!r}")
    return items


def _compression(values: list[int]) -> str:
    return " ".join(f"--map-label {old}={new}" for new, old in enumerate(values) if old != new)


def _check_ignore(value: object, expected: int) -> None:
    if isinstance(value, (list, tuple)) or value != expected:
        raise DatasetError(
            f'labels: the ignore label must be one number above all others, "ignore": {expected}, got {value!r}; '
            f"store the masks' value so with --map-label {value if isinstance(value, int) else 'OLD'}={expected}"
        )


def check_regions(labels: Mapping[str, object], order: object) -> None:
    """Where a label has several values, ``regions_class_order`` names the value that each region is stored as.

    Raises:
        DatasetError: the order is missing, has another length, or holds what is no label's value.
    """
    if not any(isinstance(value, (list, tuple)) and len(value) > 1 for value in labels.values()):
        return
    regions = [name for name, value in labels.items() if name != "ignore" and set(_values(name, value)) != {0}]
    declared = {item for name, value in labels.items() if name != "ignore" for item in _values(name, value)}
    example = [max(_values(name, labels[name])) for name in regions]
    if not isinstance(order, list) or len(order) != len(regions):
        raise DatasetError(
            f"{REGIONS_KEY}: labels with several values are regions, which need one value for each of {', '.join(regions)}, in "
            f'this order, e.g. "{REGIONS_KEY}": {example} (the later one wins where they overlap); got {order!r}'
        )
    wrong = [value for value in order if isinstance(value, bool) or not isinstance(value, int) or value not in declared - {0}]
    if wrong:
        raise DatasetError(f"{REGIONS_KEY}: expected values of the labels, {sorted(declared - {0})}, got {wrong}")
