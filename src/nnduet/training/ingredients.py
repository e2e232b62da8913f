"""What preprocessed cases were made of: raw files, plans, dataset.json, nnU-Net; and what has changed since.

``plan`` writes it beside the preprocessed cases, ``train`` into the fold. Whoever uses either compares it with what is there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnduet.errors import DatasetError
from nnduet.io.files import file_digest, write_text_atomically
from nnduet.nnunet_types import CaseEntry, DatasetJson, Plans
from nnduet.progress import Progress
from nnduet.records import read_json, to_plain
from nnduet.training.labels import CaseLabels

__all__ = [
    "INGREDIENTS_FILE",
    "CaseFiles",
    "FileMark",
    "Ingredients",
    "changed_cases",
    "changed_settings",
    "ingredients_of",
    "labels_digest",
    "mark_cases",
    "mark_file",
    "raw_entries",
    "read_ingredients",
    "settings_of",
    "write_ingredients",
]

INGREDIENTS_FILE = "ingredients.json"

_OF_CONFIGURATION = (
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
    "preprocessor_name",
)
_OF_PLANS = (
    "transpose_forward",
    "transpose_backward",
    "image_reader_writer",
    "label_manager",
    "foreground_intensity_properties_per_channel",
)
_OF_DATASET = ("channel_names", "labels", "regions_class_order", "file_ending", "overwrite_image_reader_writer")
"""What nnU-Net's DefaultPreprocessor reads; patch and batch size are not among it: they only choose the blocks of the file."""

_LONGEST_VALUE = 60


@dataclass(frozen=True)
class FileMark:
    """SHA-256 of a file, and what tells without reading it that it is the same.

    ``stat`` is (size, mtime_ns, ctime_ns, inode). The system sets the time of change, so that not even a file of the same size
    with its old date can pass; a copy of the data set differs in it and is read.
    """

    sha256: str
    stat: tuple[int, int, int, int]


@dataclass(frozen=True)
class CaseFiles:
    """The raw files of a case, images in the order of the channels."""

    images: tuple[FileMark, ...]
    mask: FileMark


@dataclass(frozen=True)
class Ingredients:
    """What preprocessed cases were made of.

    Attributes:
        settings: entries of plans and ``dataset.json`` that preprocessing depends on, and the version of nnU-Net.
        cases: {case id: its raw files}.
        labels: of a fold: digest of the labels that it learns; empty beside preprocessed cases, which do not hold them.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    cases: dict[str, CaseFiles] = field(default_factory=dict)
    labels: str = ""


def write_ingredients(path: Path, ingredients: Ingredients) -> None:
    """Write them as one line of JSON: ten thousand cases are 4 MB."""
    write_text_atomically(path, json.dumps(to_plain(ingredients)) + "\n")


def read_ingredients(path: Path) -> Ingredients | None:
    """What :func:`write_ingredients` wrote; None where there is no such file.

    Raises:
        DatasetError: it is damaged.
    """
    return read_json(path, Ingredients) if path.is_file() else None


def settings_of(plans: Plans, configuration: str, dataset_json: DatasetJson) -> dict[str, object]:
    """The settings that preprocessing depends on, by name; absent ones are left out."""
    resolved = PlansManager(dict(plans)).get_configuration(configuration).configuration
    parts = ((resolved, _OF_CONFIGURATION), (plans, _OF_PLANS), (dataset_json, _OF_DATASET))
    found = {name: part[name] for part, names in parts for name in names if name in part}
    return json.loads(json.dumps({**found, "nnU-Net": version("nnunetv2")}))  # type: ignore[no-any-return]


def raw_entries(raw: Path, dataset_json: DatasetJson) -> dict[str, CaseEntry]:
    """{case id: {"images": [path per channel], "label": path}} of the training cases, as nnU-Net finds them.

    Its own search starts twelve processes, in trainings that must not start any. Source: nnunetv2 utilities/utils.py.

    Raises:
        DatasetError: ``dataset.json`` names no file ending.
    """
    if "dataset" in dataset_json:
        listed: dict[str, CaseEntry] = get_filenames_of_train_images_and_targets(str(raw), deepcopy(dict(dataset_json)))
        return listed
    ending = dataset_json.get("file_ending")
    if not isinstance(ending, str) or not ending:
        raise DatasetError(f"{raw / 'dataset.json'}: file_ending expected a text such as .nii.gz, got {ending!r}")
    pattern = re.compile(rf"(.+)_(\d\d\d\d){re.escape(ending)}")
    folder = raw / "imagesTr"
    matches = [pattern.fullmatch(path.name) for path in sorted(folder.iterdir())] if folder.is_dir() else []
    images: dict[str, list[str]] = {}
    for match in filter(None, matches):
        images.setdefault(match[1], []).append(str(folder / match[0]))
    masks = {case_id: str(raw / "labelsTr" / f"{case_id}{ending}") for case_id in images}
    return {case_id: {"images": images[case_id], "label": masks[case_id]} for case_id in sorted(images)}


def mark_file(path: Path, known: FileMark | None = None) -> FileMark:
    """A file's mark; ``known`` spares reading one that has not been touched since. A missing file has an empty digest."""
    if not path.is_file():
        return FileMark("", (0, 0, 0, 0))
    now = path.stat()
    stat = (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)
    return known if known and known.stat == stat else FileMark(file_digest(path), stat)


def mark_cases(
    entries: Mapping[str, CaseEntry], known: Mapping[str, CaseFiles] | None = None, progress: Progress | None = None
) -> dict[str, CaseFiles]:
    """The marks of all files; those that ``known`` has untouched are not read.

    Reading costs what SHA-256 does, about 1 GB a second on a core with its instructions.
    """
    marks = {}
    for index, (case_id, entry) in enumerate(entries.items()):
        before = (known or {}).get(case_id)
        paths = [Path(path) for path in entry["images"]]
        same = before.images if before and len(before.images) == len(paths) else [None] * len(paths)
        images = tuple(mark_file(path, mark) for path, mark in zip(paths, same, strict=True))
        marks[case_id] = CaseFiles(images, mark_file(Path(entry["label"]), before.mask if before else None))
        if progress:
            progress(index + 1, len(entries), f"check {case_id}")
    return marks


def ingredients_of(
    plans: Plans,
    configuration: str,
    dataset_json: DatasetJson,
    entries: Mapping[str, CaseEntry],
    known: Mapping[str, CaseFiles] | None = None,
    progress: Progress | None = None,
) -> Ingredients:
    """What preprocessing takes from these plans and raw files now."""
    return Ingredients(settings_of(plans, configuration, dataset_json), mark_cases(entries, known, progress))


def labels_digest(labels: CaseLabels) -> str:
    """SHA-256 of what a fold learns from the table: values of the tasks, patients and covariates of every case."""
    content = [[task.name, list(task.classes)] for task in labels.tasks], labels.values, labels.groups, labels.covariates
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def changed_settings(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """A phrase per setting that differs, e.g. ``spacing [1.0, 1.0] -> [2.0, 2.0]``."""
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    return [_change(name, before.get(name), now.get(name)) for name in names]


def _change(name: str, before: object, now: object) -> str:
    shown = f"{name} {before} -> {now}"
    return shown if len(shown) <= _LONGEST_VALUE + len(name) else f"{name} (other values)"


def changed_cases(before: Mapping[str, CaseFiles], now: Mapping[str, CaseFiles]) -> list[str]:
    """A phrase per kind of change, with its number and first case, e.g. ``3 masks changed, first case_04``."""
    common = [case_id for case_id in before if case_id in now]
    kinds = {
        "image": [c for c in common if _digests(before[c].images) != _digests(now[c].images)],
        "mask": [c for c in common if before[c].mask.sha256 != now[c].mask.sha256],
    }
    phrases = [_phrase(cases, kind, "changed") for kind, cases in kinds.items()]
    phrases += [_phrase([c for c in now if c not in before], "case", "added")]
    phrases += [_phrase([c for c in before if c not in now], "case", "removed")]
    return [phrase for phrase in phrases if phrase]


def _digests(marks: Sequence[FileMark]) -> list[str]:
    return [mark.sha256 for mark in marks]


def _phrase(cases: Sequence[str], what: str, happened: str) -> str:
    return f"{len(cases)} {what}{'' if len(cases) == 1 else 's'} {happened}, first {min(cases)}" if cases else ""
