"""What ``run.json`` holds: which cases a prediction finished, what answered them, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnduet.records import left_out_when

__all__ = ["PredictionRun"]


@dataclass(frozen=True)
class PredictionRun:
    """A prediction of many cases, as ``run.json`` has it, and ``nnduet predict --json`` prints it.

    On reading, what a file of an earlier version lacks has its default.

    Attributes:
        output: the folder with the masks.
        cases: finished cases.
        failed: {case: why it failed}.
        seconds: wall time from a case's files to its last mask.
        folds: of the model, that were combined.
        heads: {task: what answers it}.
        error_rate: share of cases whose true class may lie outside the prediction set.
        abstention: the rules by which cases are left to a person.
        num_abstained: finished cases that are left to a person for any task; ``abstained`` counts them by task.
        missing_covariates: {covariate: finished cases of which it was not given}, where there are such cases.
        model: path of the model.
        model_files: SHA-256 of every file of the model, by its name there.
        step_size: distance of the tiles as a share of the patch.
        mirror_axes: axes of the patch over which each tile is mirrored, too.
        device, runtime, precision: what computed the network, and in which number format.
        fast: whether fewer tiles were looked at, see ``sliding_window``.
        not_used: which files are no cases, and why, in sentences.
        answers: {case: {task: answer as text}}.
        versions: of the packages that compute.
        images: the folder of the images; None where the summary of a single file or the command line's line lacks it.
    """

    output: str = ""
    cases: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    folds: tuple[str, ...] = ()
    heads: Mapping[str, str] = field(default_factory=dict)
    error_rate: float | None = None
    abstention: tuple[str, ...] = ()
    num_abstained: int = 0
    abstained: Mapping[str, int] = field(default_factory=dict)
    missing_covariates: Mapping[str, int] = field(default_factory=dict)
    model: str = ""
    model_files: Mapping[str, str] = field(default_factory=dict)
    step_size: float | None = None
    mirror_axes: tuple[int, ...] = ()
    device: str = ""
    runtime: str = ""
    precision: str = ""
    fast: bool = False
    not_used: tuple[str, ...] = ()
    answers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    images: str | None = left_out_when(None)

    def model_path(self) -> Path | None:
        """Where the model lay that predicted, if the file says so."""
        return Path(self.model) if self.model and "\0" not in self.model else None
