"""Writes what a conversion has checked, and nothing over files that no conversion of nnDuet wrote.

Files are written atomically, ``dataset.json`` last: a raw dataset with a ``dataset.json`` is complete. Before each file, its
name and SHA-256 go into :data:`MANIFEST_FILE`; what stands there with another content is the user's and stays.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnduet.datasets.checking import CheckedCase, CheckedFile, read_mask
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.datasets.sources import Source
from nnduet.errors import DatasetError, OutputExistsError
from nnduet.io.case_names import channel_name, mask_name
from nnduet.io.files import copy_atomically, file_digest, is_temporary, locked, remove_temporaries, write_bytes_atomically
from nnduet.io.images import encode_image, encode_segmentation, read_image
from nnduet.records import parse_json, read_json
from nnduet.schema import LABELS_FILE, SPLITS_FILE, Workspace

__all__ = ["DATASET_FILE", "MANIFEST_FILE", "DatasetPlan", "check_existing", "check_places", "locked_dataset", "write_dataset"]

DATASET_FILE = "dataset.json"
MANIFEST_FILE = ".nnduet-written"
"""In the raw folder: a line ``<sha256>  <name>`` for everything that conversions wrote there and beside preprocessed data."""
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs")


@dataclass(frozen=True)
class DatasetPlan:
    """Everything that is to be written, after all checks. ``texts`` are the tables by file name, dataset.json last."""

    source: Source
    codes: MaskCodes | None
    cases: Sequence[CheckedCase]
    tests: Sequence[CheckedCase]
    texts: dict[str, str]
    raw: Path
    preprocessed: Path
    ending: str
    max_bytes: int


@contextmanager
def locked_dataset(workspace: Workspace, dataset_id: int) -> Iterator[None]:
    """Be the only conversion to a dataset id, whatever its name.

    Raises:
        LockedError: another process converts to it.
    """
    with ExitStack() as stack:
        for root in dict.fromkeys((workspace.raw.resolve(), workspace.preprocessed.resolve())):
            stack.enter_context(locked(root / f".nnduet-convert-{dataset_id:03d}"))
        yield


def check_places(source: Source, raw: Path, preprocessed: Path) -> None:
    """Refuse to write where the source's files lie: in place, around or below them, and through links.

    Raises:
        OutputExistsError: naming both places; nothing was touched.
    """
    for target in (raw, preprocessed, *(raw / name for name in _FOLDERS)):
        if target.is_symlink():
            raise OutputExistsError(f"{target}: a link, behind which files of others may lie; remove it or use another id")
    files = [path for case in (*source.cases, *source.test_cases) for path in (*case.images, *case.masks)]
    for folder in dict.fromkeys(path.parent for path in files):
        for target in (raw, preprocessed):
            if _lies_in(folder, target) or _lies_in(target, folder):
                raise OutputExistsError(
                    f"{target}: the dataset would be written into the folder of its own images or masks, {folder}; nothing was "
                    "changed; use another --workspace or --dataset-id, or move the cases out first"
                )


def _lies_in(inner: Path, outer: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())


def check_existing(plan: DatasetPlan, replace: bool) -> None:
    """Refuse to mix with what is not this dataset, and to replace what no conversion wrote.

    Raises:
        OutputExistsError: files of other cases or of the user, or a finished dataset with other labels, tasks or folds and no
            ``replace``.
    """
    raw, expected = plan.raw, _file_names(plan)
    present = [path for name in _FOLDERS if (raw / name).is_dir() for path in (raw / name).iterdir() if not is_temporary(path)]
    strange = sorted({path.relative_to(raw).as_posix() for path in present} - expected)
    if strange:
        raise OutputExistsError(
            f"{raw}: holds {len(strange)} files of other cases ({', '.join(strange[:10])}); remove the folder or use another id"
        )
    foreign = _foreign(plan, expected)
    if foreign:
        raise OutputExistsError(
            f"{len(foreign)} files stand here that `nnduet convert` did not write, or that were changed since: "
            f"{', '.join(map(str, foreign[:10]))}; nothing was changed; move them away or use another id"
        )
    if replace or not (raw / DATASET_FILE).exists():
        return
    roots = (raw, plan.preprocessed)
    differing = [root / name for root in roots for name, text in plan.texts.items() if _differs(root / name, text)]
    if differing:
        help_here = "add --replace (replace=True) to put the new dataset in its place, or choose another --dataset-id"
        names = ", ".join(map(str, differing))
        raise OutputExistsError(f"a finished dataset differs in {names}; --replace replaces it", remedy=help_here)


def _file_names(plan: DatasetPlan) -> set[str]:
    """Names relative to the raw folder of all images and masks."""
    names = {f"labelsTr/{mask_name(case.case_id, plan.ending)}" for case in plan.cases}
    for folder, cases in (("imagesTr", plan.cases), ("imagesTs", plan.tests)):
        names |= {f"{folder}/{channel_name(case.case_id, i, plan.ending)}" for case in cases for i in range(len(case.images))}
    return names


def _foreign(plan: DatasetPlan, expected: set[str]) -> list[Path]:
    """Present files that this conversion would replace and that none wrote. (nnU-Net itself copies dataset.json.)"""
    written = _Manifest(plan.raw)
    found = [plan.raw / name for name in sorted(expected) if not written.allows(name, plan.raw / name)]
    tables = [(plan.raw, name) for name in plan.texts] + [(plan.preprocessed, name) for name in (SPLITS_FILE, LABELS_FILE)]
    return found + [
        root / name
        for root, name in tables
        if _differs(root / name, plan.texts[name]) and not written.allows(name, root / name)
    ]


class _Manifest:
    """What conversions wrote into a raw folder, by name and content."""

    def __init__(self, raw: Path) -> None:
        self._path = raw / MANIFEST_FILE
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines() if self._path.is_file() else []
        self._written = {tuple(line.split("  ", 1)) for line in lines}

    def allows(self, name: str, path: Path) -> bool:
        """Whether ``path`` may be replaced: it does not exist, or has a content that was written under ``name``."""
        if not path.exists() and not path.is_symlink():
            return True
        return path.is_file() and not path.is_symlink() and (file_digest(path), name) in self._written

    def add(self, name: str, digest: str) -> None:
        """To be called before a file of that content is written, so that a kill cannot part the two."""
        if (digest, name) in self._written:
            return
        self._written.add((digest, name))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"{digest}  {name}\n")
            stream.flush()
            os.fsync(stream.fileno())


def _differs(path: Path, text: str) -> bool:
    if not path.exists():
        return False
    present = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".json" or present == text:
        return present != text
    try:
        return bool(read_json(path) != parse_json(text.encode(), path.name))
    except DatasetError:
        return True


def write_dataset(plan: DatasetPlan, report: Callable[[str], None]) -> None:
    """Write images, masks, then tables; ``report`` gets each case. What is as it should be is left alone."""
    raw, written = plan.raw, _Manifest(plan.raw)
    for place in (raw, plan.preprocessed, *(raw / name for name in _FOLDERS)):
        remove_temporaries(place)
    if any(_differs(raw / name, text) for name, text in plan.texts.items()):
        (raw / DATASET_FILE).unlink(missing_ok=True)  # while tables change, the dataset is not complete
    for folder, cases in (("imagesTr", plan.cases), ("imagesTs", plan.tests)):
        for case in cases:
            for channel, file in enumerate(case.images):
                _write_image(file, f"{folder}/{channel_name(case.case_id, channel, plan.ending)}", plan, written)
            if case.label:
                _write_masks(case, f"labelsTr/{mask_name(case.case_id, plan.ending)}", plan, written)
            report(case.case_id)
    for root in (plan.preprocessed, raw):
        for table, text in plan.texts.items():
            if not (root / table).exists() or _differs(root / table, text):
                _write(text.encode("utf-8"), table, root, written)


def _write(content: bytes, name: str, root: Path, written: _Manifest) -> None:
    written.add(name, hashlib.sha256(content).hexdigest())
    write_bytes_atomically(root / name, content)


def _copy(source: Path, name: str, root: Path, written: _Manifest) -> None:
    written.add(name, file_digest(source))
    copy_atomically(source, root / name)


def _write_image(file: CheckedFile, name: str, plan: DatasetPlan, written: _Manifest) -> None:
    if file.copy:
        _copy(file.path, name, plan.raw, written)
        return
    array = read_image(file.path, max_bytes=plan.max_bytes).array
    narrow = array if array.dtype.itemsize <= 4 else array.astype(np.float32)
    _write(encode_image(plan.raw / name, narrow, file.geometry), name, plan.raw, written)


def _write_masks(case: CheckedCase, name: str, plan: DatasetPlan, written: _Manifest) -> None:
    """The mask of a case, or the codes of its masks."""
    first = case.masks[0]
    if first.copy:
        _copy(first.path, name, plan.raw, written)
        return
    arrays = [read_mask(m.path, plan.source.label_map, max_bytes=plan.max_bytes)[0].array for m in case.masks]
    codes = plan.codes.encode(arrays) if plan.codes else arrays[0]
    _write(encode_segmentation(plan.raw / name, codes, first.geometry), name, plan.raw, written)
