"""The exceptions nnDuet raises on purpose: one tree, each leaf with a stable code.

A message says what was expected, what came, and in which file or case. Codes are part of the interface: the command line
prints them and ``--json`` carries them, so that scripts can react without parsing prose.
"""

from __future__ import annotations

__all__ = [
    "AmbiguousFileError",
    "CorruptFileError",
    "DatasetError",
    "DiskFullError",
    "DivergedError",
    "GeometryError",
    "LabelError",
    "LeakError",
    "LockedError",
    "ModelError",
    "NNDuetError",
    "OutputExistsError",
    "PartialFailureError",
    "QualityError",
    "ResumeError",
    "SettingsError",
    "StoppedError",
    "TableError",
    "TooLargeError",
    "UnreadableFileError",
    "WorkerError",
]


class NNDuetError(Exception):
    """Root of every error raised on purpose; ``code`` is stable across releases."""

    code = "NNDUET"


class UnreadableFileError(NNDuetError):
    """The file is missing or is not of the format that its name promises."""

    code = "UNREADABLE"


class CorruptFileError(NNDuetError):
    """The file is of the right format, but bytes are missing or changed."""

    code = "CORRUPT"


class AmbiguousFileError(NNDuetError):
    """Two files claim the same case."""

    code = "AMBIGUOUS"


class TooLargeError(NNDuetError):
    """The file would need more memory than is allowed, whether honest or a decompression bomb."""

    code = "TOO_LARGE"


class GeometryError(NNDuetError):
    """Shape, spacing, origin or direction are impossible, or differ where they must agree."""

    code = "GEOMETRY"


class LabelError(NNDuetError):
    """A mask holds values that the dataset does not declare."""

    code = "LABEL"


class TableError(NNDuetError):
    """The case table is malformed or disagrees with the images; the message names the line."""

    code = "TABLE"


class LeakError(NNDuetError):
    """A patient stands on both sides of a split."""

    code = "LEAK"


class DatasetError(NNDuetError):
    """A dataset folder lacks something, or holds something that contradicts the rest."""

    code = "DATASET"


class SettingsError(NNDuetError):
    """A setting or a command line option is impossible."""

    code = "SETTINGS"


class ModelError(NNDuetError):
    """A model folder is incomplete, or does not fit the input."""

    code = "MODEL"


class ResumeError(NNDuetError):
    """Training cannot go on from what is there."""

    code = "RESUME"


class StoppedError(NNDuetError):
    """A signal stopped a training that can go on later."""

    code = "STOPPED"


class DivergedError(NNDuetError):
    """The loss of a training is no number any more."""

    code = "DIVERGED"


class OutputExistsError(NNDuetError):
    """Something else already stands where the output should go."""

    code = "OUTPUT_EXISTS"


class LockedError(NNDuetError):
    """Another process is writing to the same folder."""

    code = "LOCKED"


class DiskFullError(NNDuetError):
    """The disk is full; nothing half-written was left under a final name."""

    code = "DISK_FULL"


class WorkerError(NNDuetError):
    """A background process died."""

    code = "WORKER"


class PartialFailureError(NNDuetError):
    """Some cases failed and the others were finished; the message lists the failed ones."""

    code = "PARTIAL"


class QualityError(NNDuetError):
    """A run finished but its measured quality lies below the promised floor."""

    code = "QUALITY"
