"""What the model says of one case: masks and answers, and what can be done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnduet.inference.task_predictions import CaseAnswers, TaskPrediction
from nnduet.io.case_inputs import ImageInput
from nnduet.io.geometry import Geometry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nnduet.inference.predictor import Predictor

__all__ = ["Origin", "Prediction"]


@dataclass(frozen=True)
class Origin:
    """What a prediction was made of: the predictor and what it was given. The image is the caller's own, no copy."""

    predictor: Predictor
    image: ImageInput
    spacing_mm: Sequence[float] | None
    covariates: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, repr=False)
class Prediction:
    """What the model says of one case.

    Attributes:
        segmentation: (Z, Y, X) integer labels on the grid of the input; codes of all masks where cases have several.
        tasks: {task name: answer}.
        spacing_mm: (Z, Y, X).
        geometry: of the input file or image; None for arrays.
        features: {fold: (F,) features of the case}, float32, NaN where undefined; ``model.layout`` names the columns.
        outlier_score: share of training cases, in [0, 1], that are more usual than this case, as the mean over folds; None for
            a model without outlier statistics.
        masks: {mask name: (Z, Y, X) integer labels} for models of several masks, else empty.
        origin: what it was made of; None for a prediction of preprocessed data, and for one that was pickled.
    """

    segmentation: NDArray[np.integer[Any]]
    tasks: dict[str, TaskPrediction]
    spacing_mm: tuple[float, float, float]
    geometry: Geometry | None
    features: dict[str, NDArray[np.float32]]
    outlier_score: float | None = None
    masks: dict[str, NDArray[np.integer[Any]]] = field(default_factory=dict)
    origin: Origin | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.segmentation.shape))
        labels = ", ".join(str(label) for label in np.unique(self.segmentation))
        said = [f"  {name}: {answer}" for name, answer in self.tasks.items()]
        score = [] if self.outlier_score is None else [f"  outlier score {self.outlier_score:.2f}"]
        masks = [f"  masks {', '.join(self.masks)}"] if self.masks else []
        return "\n".join([f"Prediction: {shape} voxels with labels {labels}", *masks, *said, *score])

    @property
    def answers(self) -> CaseAnswers:
        """What the tables need, without the arrays."""
        return CaseAnswers(self.tasks, self.outlier_score)

    def __getstate__(self) -> dict[str, object]:
        """Without the model and the image, so that predictions pass between processes."""
        return {**self.__dict__, "origin": None}

    def save(self, place: str | Path, case_id: str | None = None) -> Path:
        """Write what ``nnduet predict`` writes for this case, atomically and over nothing that it would not replace.

        In a folder that is the mask ``<case>`` (those of several masks below their names), ``classification.csv``,
        ``<task>_results.csv``, ``run.json`` and ``cases.jsonl``. Cases that the same model with the same settings wrote there
        before keep their rows. A path that ends like an image gets the mask alone, of models with one.

        Args:
            place: a folder, made if it is missing, or a file that is not there yet.
            case_id: name of the case; None takes that of the file that the image was read from.

        Returns:
            The mask's path.

        Raises:
            SettingsError: the case has no name, the name or place is impossible, or the prediction does not know its model.
            OutputExistsError: files that this model did not write, or a mask of that name, stand there.
            LockedError: another process writes there.
            DiskFullError: the disk is full; nothing half-written has a final name.
        """
        from nnduet.inference.saving import save_prediction

        return save_prediction(self, Path(place), case_id)

    def plot(
        self,
        *,
        planes: Sequence[str] = ("axial",),
        channel: int = 0,
        mask: str | None = None,
        margin_mm: float | None = 20.0,
        size: int = 480,
    ) -> Figure:
        """Draw the outlines over the slice of each plane with most foreground; the answers stand above.

        The figure belongs to the caller: nothing is shown, no style is changed, and pyplot does not know it.

        Args:
            planes: some of "axial", "coronal", "sagittal", from left to right.
            channel: of the image, from 0 on.
            mask: for models of several masks, which one; None draws the first.
            margin_mm: what is shown around the foreground; None shows the whole slice.
            size: height of the picture in pixels.

        Raises:
            SettingsError: a plane, channel, mask or size that there is not, or the prediction does not know its image.
            NNDuetError: the image's file cannot be read any more.
        """
        from nnduet.inference.plotting import plot_prediction

        return plot_prediction(self, planes=planes, channel=channel, mask=mask, margin_mm=margin_mm, size=size)
