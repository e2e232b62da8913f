"""What is known of a metric: a row of the table, by what it measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nnduet.evaluation.bootstrap import FloatArray
from nnduet.evaluation.metrics.answer_samples import NO_CASES, AnswerSample, ClassSample
from nnduet.evaluation.metrics.mask_pairs import MaskPair

__all__ = ["TASK_UNIT", "AnswerMetric", "ClassMetric", "Metric", "RegionMetric"]

TASK_UNIT = "unit of the task"
Prominence = Literal["first", "headline", "section", "file"]
Scope = Literal["region", "classification", "ranks", "labels", "values", "class"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A row of the table.

    Attributes:
        key: under which files hold it.
        label: what people call it; ``short`` where there is little room, if it differs.
        unit: empty for a plain number.
        better: None where neither is.
        scope: what it measures: a region of a segmentation, a class against the rest, or the answers to a task, whose type says
            which scopes score it, see :class:`~nnduet.tasks.base.TaskKind`.
        definition: in a sentence.
        source: paper or program whose definition it is.
        prominence: "first" in one line about a result; "headline" in the first table of a report, too; "section" in tables and
            figures about a region or task and on the console; "file" in files only.
        compared: whether ``nnduet compare`` tests its difference; each comparison more makes all of them less certain.
        beside: what of the setting or the finding stands beside the value in files.
    """

    key: str
    label: str
    short: str = ""
    unit: str = ""
    better: Literal["higher", "lower"] | None
    scope: Scope
    definition: str
    source: str
    prominence: Prominence = "section"
    compared: bool = False
    beside: Literal["tolerance_mm", "absent_classes"] | None = None

    @property
    def is_headline(self) -> bool:
        """Whether the first table of a report has it."""
        return self.prominence in ("first", "headline")

    @property
    def is_shown(self) -> bool:
        """Whether people see it without opening a file."""
        return self.prominence != "file"

    @property
    def text(self) -> str:
        """Label and unit, as a table has them; the unit of a task is known to the task only."""
        return self._with_unit(self.label)

    @property
    def short_text(self) -> str:
        """The same where there is little room."""
        return self._with_unit(self.short or self.label)

    def _with_unit(self, label: str) -> str:
        return f"{label} ({self.unit})" if self.unit not in ("", TASK_UNIT) else label


@dataclass(frozen=True, kw_only=True)
class RegionMetric(Metric):
    """A metric of masks: ``function`` gives one region's value in one case, None where it is undefined.

    Attributes:
        reason: why no case has a value, if none has.
        worst: of a case without a usable prediction; None takes the value of an empty mask.
    """

    scope: Scope = "region"
    function: Callable[[MaskPair], float | None]
    reason: str
    worst: float | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerMetric(Metric):
    """A metric of answers: ``function`` gives its value in R resamples, NaN where undefined, ``reason`` says then why."""

    function: Callable[[AnswerSample], FloatArray]
    reason: Callable[[AnswerSample], str] = lambda _: NO_CASES


@dataclass(frozen=True, kw_only=True)
class ClassMetric(Metric):
    """A metric of one class against the rest, otherwise as :class:`AnswerMetric`."""

    scope: Scope = "class"
    function: Callable[[ClassSample], FloatArray]
    reason: Callable[[ClassSample], str]
