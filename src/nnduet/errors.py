"""The exceptions nnDuet raises on purpose: one tree, each leaf with a stable code.

A message says what was expected, what came, and in which file or case; ``remedy`` says in one line what usually helps.
Codes and exit statuses are part of the interface: the command line prints them and ``--json`` carries them, so that scripts
can react without parsing prose. ``docs/reference-errors.md`` lists all of them.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

__all__ = [
    "DISK_FULL_NUMBERS",
    "AmbiguousFileError",
    "CorruptFileError",
    "DatasetError",
    "DiskFullError",
    "DivergedError",
    "GeometryError",
    "InterruptionError",
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
    "StaleError",
    "StoppedError",
    "StorageError",
    "TableError",
    "TooLargeError",
    "UnreadableFileError",
    "ValuesError",
    "WorkerError",
    "listed",
]

DISK_FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where no more can be written: disk, quota, or a limit for file sizes."""


_MOST_FAULTS = 20


def listed(faults: Sequence[str]) -> str:
    """Faults as the end of a message that ends in a colon: one behind it, several in a line each, set in, at most 20.

    Where there is one line only, as in JSON, ``; `` parts them.
    """
    more = len(faults) - _MOST_FAULTS
    lines = [" ".join(fault.split()) for fault in faults[:_MOST_FAULTS]] + ([f"and {more} more"] if more > 0 else [])
    return "".join(f" {line}" if len(lines) == 1 else f"\n  {line}" for line in lines)


class NNDuetError(Exception):
    """Root of every error raised on purpose; ``code`` and ``exit_status`` are stable across releases."""

    code = "NNDUET"
    exit_status = 1
    remedy = "mend what the message names and run the same command again"

    def __init__(self, message: str = "", *, remedy: str | None = None) -> None:
        super().__init__(message)
        if remedy is not None:  # what helps in this place rather than as a rule
            self.remedy = remedy


class UnreadableFileError(NNDuetError):
    """The file is missing or is not of the format that its name promises."""

    code = "UNREADABLE"
    remedy = "check the path, and that another program opens the file; where Git LFS or a download left it, fetch it again"


class CorruptFileError(NNDuetError):
    """The file is of the right format, but bytes are missing or changed."""

    code = "CORRUPT"
    remedy = "copy or download the file again; one that nnDuet wrote can be deleted and made again by the same command"


class AmbiguousFileError(NNDuetError):
    """Two files claim the same case."""

    code = "AMBIGUOUS"
    remedy = "keep one of the files and move the other one away"


class TooLargeError(NNDuetError):
    """The file would need more memory than is allowed, whether honest or a decompression bomb."""

    code = "TOO_LARGE"
    remedy = "crop or resample the image, or use a machine with more memory; if the size is absurd, the header is wrong"


class GeometryError(NNDuetError):
    """Shape, spacing, origin or direction are impossible, or differ where they must agree."""

    code = "GEOMETRY"
    remedy = "export image and mask from the same series again, or resample a mask onto the grid of its image"


class ValuesError(NNDuetError):
    """Numbers that float32 cannot hold: an image's values, or what a network or a head makes of them."""

    code = "VALUES"
    remedy = "rescale the image to usual intensities, such as Hounsfield units; where no case works, the model is damaged"


class LabelError(NNDuetError):
    """A mask holds values that the dataset does not declare."""

    code = "LABEL"
    remedy = "correct the mask, or declare the value among the labels"


class TableError(NNDuetError):
    """The case table is malformed or disagrees with the images; the message names the line."""

    code = "TABLE"
    remedy = "correct the named line or column of the table, then run the same command again"


class LeakError(NNDuetError):
    """A patient stands on both sides of a split."""

    code = "LEAK"
    remedy = "put all cases of a patient on one side of the split, or remove the folds: `nnduet convert` makes them by patients"


class DatasetError(NNDuetError):
    """A dataset folder lacks something, or holds something that contradicts the rest."""

    code = "DATASET"
    remedy = "complete or correct what the message names, then run the same command again"


class SettingsError(NNDuetError):
    """A setting or a command line option is impossible."""

    code = "SETTINGS"
    remedy = "`nnduet COMMAND --help` lists the options and what they take"


class ModelError(NNDuetError):
    """A model folder is incomplete, or does not fit the input."""

    code = "MODEL"
    remedy = "name a whole model folder or bundle, for images like those it was trained on; if it is damaged, fetch it again"


class StaleError(NNDuetError):
    """What was made of raw data or plans is older than their last change."""

    code = "STALE"
    remedy = "run the command that the message names, then this one again"


class ResumeError(NNDuetError):
    """Training cannot go on from what is there."""

    code = "RESUME"
    remedy = "bring back what the training began with, or move the folder of the fold away and train anew"


class StoppedError(NNDuetError):
    """A signal stopped a training that can go on later."""

    code = "STOPPED"
    exit_status = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later
    remedy = "the same command with --resume goes on after the last finished epoch"


class InterruptionError(NNDuetError):
    """A signal ended a command; ``exit_status`` is 128 and its number."""

    code = "INTERRUPTED"
    exit_status = 130  # SIGINT; 143 for SIGTERM
    remedy = "nothing was left half-written; run the same command again"


class DivergedError(NNDuetError):
    """The loss of a training is no number any more."""

    code = "DIVERGED"
    remedy = "look at the named cases, lower the learning rate, then go on with --resume"


class OutputExistsError(NNDuetError):
    """Something else already stands where the output should go."""

    code = "OUTPUT_EXISTS"
    remedy = "choose another output, or move the old one away"


class LockedError(NNDuetError):
    """Another process is writing to the same folder."""

    code = "LOCKED"
    remedy = "wait for the other process, or choose another folder; a process that died holds no lock"


class DiskFullError(NNDuetError):
    """The disk is full; nothing half-written was left under a final name."""

    code = "DISK_FULL"
    remedy = "make room and run the same command again; what was finished is kept"


class StorageError(NNDuetError):
    """The operating system could not read or write a file: rights, a failing disk, a lost network drive."""

    code = "STORAGE"
    remedy = "check that the file exists, that you may read or write there, and that the disk is sound; then try again"


class WorkerError(NNDuetError):
    """A background process died."""

    code = "WORKER"
    remedy = "use fewer processes (--num-processes) or a machine with more memory, then run the same command again"


class PartialFailureError(NNDuetError):
    """Some cases failed and the others were finished; the message lists the failed ones."""

    code = "PARTIAL"
    exit_status = 3
    remedy = "the failed cases and their reasons stand in run.json; mend them and run the same command with --resume"


class QualityError(NNDuetError):
    """A run finished but its measured quality lies below the promised floor."""

    code = "QUALITY"
    remedy = "look at the log of the training: the machine or the installation computes something else than expected"
