"""The cases that a report shows: their files, read on one grid, as pictures and as volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from nnduet.errors import GeometryError, NNDuetError
from nnduet.inference.outlines import PLANES, render_overlay
from nnduet.io.case_names import channel_files, find_case_file
from nnduet.io.files import write_bytes_atomically
from nnduet.io.images import Image, read_image, read_segmentation
from nnduet.report.explained_cases import ExplainedCases
from nnduet.report.report_folder import ReportFolder
from nnduet.report.runs import Run
from nnduet.report.stored_model import StoredModel
from nnduet.report.volumes import CaseVolumes

__all__ = ["ShownCases"]

_LARGEST_LABEL = 255  # that a viewer can show
_HEIGHT, _MOST_FAILURES = 220, 5
_Masks = list[NDArray[np.integer[Any]] | None]


class ShownCases:
    """Which cases are wanted, the pictures that were drawn, and why some could not be.

    Attributes:
        wanted: cases that need a picture, in the order in which they were asked for.
        pictures: {case: file below the report's folder}.
        failed: {case: code and message}.
        labels: names and values of everything that was drawn, for the legend.
        explained: {case: what its evidence map shows}.
    """

    def __init__(self, run: Run, folder: ReportFolder, explain: ExplainedCases | None = None) -> None:
        self.run, self.folder, self.explain = run, folder, explain
        self.explained: dict[str, str] = {}
        self.wanted: dict[str, None] = {}
        self.pictures: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        own = run.labels or _labels_of(run.model or run.answered_by)
        self.labels: dict[str, int] = dict(run.codes.labels if run.codes else own)

    def want(self, cases: Sequence[str]) -> list[str]:
        """Note cases to be drawn; returns those that have an image."""
        found = [case for case in cases if self.has_image(case)]
        self.wanted |= dict.fromkeys(found)
        return found

    def has_image(self, case: str) -> bool:
        """Whether there is an image of the case."""
        return self.run.images is not None and find_case_file(self.run.images, case) is not None

    def read(self, case: str) -> list[CaseVolumes]:
        """Image and masks of a case on one grid; several masks of a case give an entry each, on the channel of their number.

        Empty, with the reason in ``failed``, where a file is missing, damaged or on another grid.
        """
        try:
            images = self._images(case)
            predictions, references = (
                self._masks(folder, case, images[0]) for folder in (self.run.predictions, self.run.references)
            )
        except NNDuetError as error:
            self.failed[case] = f"{error.code}: {error}"
            return []
        labels = self._labels([*predictions, *references])
        return [
            CaseVolumes(images[place % len(images)].array, images[0].geometry, prediction, reference, None, labels)
            for place, (prediction, reference) in enumerate(zip(predictions, references, strict=True))
        ]

    def volumes_ml(self, case: str) -> dict[str, float] | None:
        """{label: ml} of the predicted mask, of several masks together; None where there is no mask.

        Raises:
            NNDuetError: it cannot be read.
        """
        path = find_case_file(self.run.predictions, case) if self.run.predictions else None
        if path is None:
            return None
        image, codes = read_segmentation(path)[0], self.run.codes
        masks = list(codes.decode(image.array).values()) if codes else [image.array]
        voxel_ml = float(np.prod(image.geometry.spacing_mm)) / 1000
        return {
            name: voxel_ml * sum(int(np.count_nonzero(mask == value)) for mask in masks)
            for name, value in self._labels(list(masks)).items()
        }

    def warnings(self) -> list[str]:
        """A sentence about the cases that could not be shown; none where all could."""
        listed = [f"{case} ({reason})" for case, reason in list(self.failed.items())[:_MOST_FAILURES]]
        return [f"{len(self.failed)} cases could not be shown: {'; '.join(listed)}."] if listed else []

    def with_evidence(self, case: str, part: CaseVolumes) -> CaseVolumes:
        """With the evidence map of the case where maps are wanted; as it was, its reason in ``failed``, where none can be."""
        if self.explain is None or self.run.images is None or (image := find_case_file(self.run.images, case)) is None:
            return part
        try:
            evidence, self.explained[case] = self.explain(case, image)
        except NNDuetError as error:
            self.failed[case] = f"{error.code}: {error}"
            return part
        return replace(part, evidence=evidence)

    def draw(self, case: str, parts: Sequence[CaseVolumes]) -> None:
        """Write a picture: a row of planes for each mask."""
        rows = [self._row(part) for part in parts]
        picture = Pillow.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
        top = 0
        for row in rows:
            picture.paste(row, (0, top))
            top += row.height
        buffer = BytesIO()
        picture.save(buffer, "png")  # at its best a quarter smaller, in ten times the time
        name = self.folder.picture(len(self.pictures))
        write_bytes_atomically(self.folder.place / name, buffer.getvalue())
        self.pictures[case] = name

    def _row(self, part: CaseVolumes) -> Pillow.Image:
        return render_overlay(
            part.image,
            part.prediction,
            part.reference,
            spacing_mm=part.geometry.spacing_mm,
            direction=part.geometry.direction,
            labels=part.labels,
            size=_HEIGHT,
            planes=PLANES[:1] if part.geometry.shape[0] == 1 else PLANES,
        )

    def _images(self, case: str) -> list[Image]:
        """The first channel; for several masks as many channels as there are, if they have one shape."""
        assert self.run.images is not None
        first = find_case_file(self.run.images, case)
        assert first is not None
        _, *others = channel_files(first, len(self.run.codes.names) if self.run.codes else 1)
        images = [read_image(first), *(read_image(path) for path in others if path.is_file())]
        return images if len({image.array.shape for image in images}) == 1 else images[:1]

    def _masks(self, folder: Path | None, case: str, image: Image) -> _Masks:
        """The masks of a case in one folder, None for those that are not there."""
        codes = self.run.codes
        path = find_case_file(folder, case) if folder else None
        if path is None:
            return [None] * (len(codes.names) if codes else 1)
        mask = read_segmentation(path)[0].array
        if mask.shape != image.array.shape:
            raise GeometryError(f"{path}: expected the shape {image.array.shape} of the image, got {mask.shape}")
        return list(codes.decode(mask).values()) if codes else [mask]

    def _labels(self, masks: _Masks) -> dict[str, int]:
        """Names of all values of the masks; those without a name are called by their number."""
        names = {value: name for name, value in self.labels.items()}
        values = {int(value) for mask in masks if mask is not None for value in np.unique(mask) if value > 0}
        if not values <= set(names):  # all up to the largest, so that a label has one colour in all cases
            shown = {*range(1, min(max(values), _LARGEST_LABEL) + 1), *values}
            names |= {value: f"label {value}" for value in sorted(shown - set(names))}
        self.labels |= {name: value for value, name in names.items() if value <= _LARGEST_LABEL}
        return {name: value for value, name in names.items()}


def _labels_of(model: StoredModel | None) -> dict[str, int]:
    """Names and values of the labels of a model; regions, which share values, have none."""
    labels = model.dataset.labels if model else {}
    plain = {name: value for name, value in labels.items() if isinstance(value, int) and value > 0}
    return plain if len(plain) == len([value for value in labels.values() if value != 0]) else {}
