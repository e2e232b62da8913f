"""What ``speed_comparison.json`` holds: the arms, their ratios, how alike their outputs are, and on what machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnduet.records import left_out_when, record_object

__all__ = ["Agreement", "ArmResult", "ColdStart", "Machine", "Ratio", "SpeedComparison"]


@dataclass(frozen=True)
class ArmResult:
    """One arm: fields as in :class:`~nnduet.benchmark.timed_arm.Arm`, then what it measured.

    Attributes:
        computed_by: runtime and number format that computed the network.
        load_seconds: from the model's files to a predictor; median over the rounds.
        median_seconds, median_cpu_seconds: of a case, wall and processor time, over cases and rounds.
        peak_bytes: most memory that the process held; median over the rounds.
        seconds: {case: wall time per round}.
    """

    name: str
    stock: bool
    tta: bool
    step_size: float
    runtime: str
    precision: str
    device: str
    folds: list[str]
    computed_by: str
    load_seconds: float
    median_seconds: float
    median_cpu_seconds: float
    peak_bytes: int
    seconds: Mapping[str, list[float]]


@dataclass(frozen=True)
class Ratio:
    """An arm against stock nnU-Net.

    Attributes:
        times_faster: geometric mean over the cases of stock nnU-Net's time by the arm's in the same round.
        ci95: its 95 % interval over the cases; None for one case.
        times_less_memory: median over the rounds of stock nnU-Net's peak memory by the arm's.
        is_speed_up: whether it may be called one; ``why_not`` says why not, in sentences.
    """

    times_faster: float
    ci95: tuple[float, float] | None
    times_less_memory: float
    is_speed_up: bool = False
    why_not: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """How alike the outputs of an arm and of stock nnU-Net are, or of its answers and those of torch in float32.

    Attributes:
        equal_voxels: share, in [0, 1].
        dice: by label, all cases pooled; labels that neither has are left out.
        largest_probability_difference, equal_classes: of any class, and share of the answers; None where it does not classify.
    """

    equal_voxels: float
    dice: Mapping[str, float]
    largest_probability_difference: float | None = left_out_when(None)
    equal_classes: float | None = left_out_when(None)


@dataclass(frozen=True)
class ColdStart:
    """Whole commands with one case: ``seconds`` per round by program and ``times_faster``, the median ratio.

    None of both where one of the commands cannot be run; ``reason`` then says why, in words.
    """

    seconds: Mapping[str, list[float]] | None = left_out_when(None)
    times_faster: float | None = left_out_when(None)
    reason: str = left_out_when("")


@dataclass(frozen=True)
class Machine:
    """What the times depend on: ``bfloat16`` says whether the processor computes in it."""

    processor: str
    cores: int | None
    bfloat16: bool
    system: str


@dataclass(frozen=True)
class SpeedComparison:
    """``speed_comparison.json``, and what ``nnduet benchmark --json`` prints.

    Attributes:
        arms: by name, stock nnU-Net first.
        ratios, agreement: of every other arm.
        versions: of the packages that compute.
        cold: None where whole commands were not asked for.
    """

    images: str
    num_cases: int
    rounds: int
    arms: Mapping[str, ArmResult]
    ratios: Mapping[str, Ratio]
    agreement: Mapping[str, Agreement]
    machine: Machine
    versions: Mapping[str, str]
    cold: ColdStart | None = left_out_when(None)

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field."""
        return record_object(self)
