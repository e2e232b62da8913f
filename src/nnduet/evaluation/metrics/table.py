"""The table of metrics: a row says all that is known of one, and everything that tells of metrics reads the rows.

``evaluate`` computes them and writes them under their keys, with their definitions; ``compare``, reports, the console and
docs/reference-metrics.md take labels, units and directions from here. A new metric is a function and a row.
The rows about single classes are in :mod:`nnduet.evaluation.metrics.class_table`.
"""

from __future__ import annotations

from nnduet.evaluation.metrics import answers, classification, labels
from nnduet.evaluation.metrics.calibration import brier_score
from nnduet.evaluation.metrics.class_table import CLASS_METRICS
from nnduet.evaluation.metrics.metric import TASK_UNIT, AnswerMetric, Metric, RegionMetric
from nnduet.evaluation.metrics.segmentation import (
    dice_coefficient,
    hausdorff_distance_95,
    normalized_surface_distance,
    relative_volume_difference,
    volume_difference_ml,
)
from nnduet.schema import Task

__all__ = ["ANSWER_METRICS", "CLASS_METRICS", "METRICS", "REGION_METRICS", "answer_metrics_of", "definitions"]

_RELOADED = "Maier-Hein et al., Metrics Reloaded, Nature Methods 21 (2024)"

REGION_METRICS: tuple[RegionMetric, ...] = (
    RegionMetric(
        key="dsc",
        label="Dice",
        short="DSC",
        better="higher",
        definition="2|A and B| / (|A|+|B|), mean over cases where reference or prediction is not empty",
        source="Dice, Ecology 26 (1945)",
        prominence="first",
        compared=True,
        function=dice_coefficient,
        reason="both_empty",
        worst=0.0,
    ),
    RegionMetric(
        key="nsd",
        label="NSD",
        better="higher",
        definition="share of both surfaces within tolerance_mm of the other, mean over the same cases",
        source="Nikolov et al., JMIR 23 (2021), and DeepMind's surface-distance",
        prominence="headline",
        compared=True,
        beside="tolerance_mm",
        function=normalized_surface_distance,
        reason="both_empty",
        worst=0.0,
    ),
    RegionMetric(
        key="hd95",
        label="HD95",
        unit="mm",
        better="lower",
        definition="distance within which 95 % of the one surface lie from the other, the larger of both directions, mean over "
        "cases where neither mask is empty: those without a prediction are left out, so that it must be read beside DSC",
        source="Maier-Hein et al., Metrics Reloaded, Nature Methods 21 (2024); by area as in DeepMind's surface-distance",
        function=hausdorff_distance_95,
        reason="an_empty_mask",
    ),
    RegionMetric(
        key="avd_ml",
        label="AVD",
        unit="ml",
        better="lower",
        definition="|prediction volume - reference volume| in millilitres, mean over all cases that are not ignored",
        source=_RELOADED,
        compared=True,
        function=volume_difference_ml,
        reason="no_cases",
    ),
    RegionMetric(
        key="avd_ratio",
        label="relative AVD",
        better="lower",
        definition="the same divided by the reference volume, mean over cases with a non-empty reference",
        source=_RELOADED,
        prominence="file",
        function=relative_volume_difference,
        reason="empty_reference",
    ),
)

ANSWER_METRICS: tuple[AnswerMetric, ...] = (
    AnswerMetric(
        key="accuracy",
        label="accuracy",
        better="higher",
        scope="classification",
        definition="share of cases whose class is named right",
        source="scikit-learn, accuracy_score",
        compared=True,
        function=lambda sample: classification.accuracy(sample.counts),
    ),
    AnswerMetric(
        key="balanced_accuracy",
        label="balanced accuracy",
        better="higher",
        scope="classification",
        definition="mean recall over classes present in the reference",
        source="scikit-learn, balanced_accuracy_score",
        prominence="headline",
        beside="absent_classes",
        function=lambda sample: classification.balanced_accuracy(sample.counts),
    ),
    AnswerMetric(
        key="macro_f1",
        label="macro-F1",
        better="higher",
        scope="classification",
        definition="mean F1 over classes in the reference or the predictions",
        source="scikit-learn, f1_score(average=macro)",
        prominence="first",
        compared=True,
        function=lambda sample: classification.macro_f1(sample.counts),
    ),
    AnswerMetric(
        key="mcc",
        label="Matthews correlation (MCC)",
        short="MCC",
        better="higher",
        scope="classification",
        definition="correlation of truth and answers over all classes, R_K; 0 is chance, also where classes are rare",
        source="Gorodkin, Computational Biology and Chemistry 28 (2004), equation 8; scikit-learn, matthews_corrcoef",
        function=lambda sample: classification.matthews_correlation(sample.counts),
        reason=answers.why_no_kappa,
    ),
    AnswerMetric(
        key="auroc",
        label="AUROC",
        better="higher",
        scope="classification",
        definition="two classes: the second is positive; more: mean over classes of one against the rest",
        source="Hanley and McNeil, Radiology 143 (1982)",
        prominence="first",
        compared=True,
        function=answers.mean_area,
        reason=answers.why_no_mean_area,
    ),
    AnswerMetric(
        key="brier",
        label="Brier score",
        better="lower",
        scope="classification",
        definition="squared error summed over classes, mean over cases, 0 to 2",
        source="Brier, Monthly Weather Review 78 (1950), equation 2",
        compared=True,
        function=lambda sample: brier_score(sample.answers.probabilities, sample.reference, sample.weights),
    ),
    AnswerMetric(
        key="ece",
        label="calibration error (ECE)",
        better="lower",
        scope="classification",
        definition="expected calibration error of the most probable class, 15 equal bins, L1",
        source="Guo et al., ICML (2017), equation 3",
        prominence="headline",
        function=answers.calibration_error,
    ),
    AnswerMetric(
        key="quadratic_kappa",
        label="quadratic kappa",
        better="higher",
        scope="ranks",
        definition="Cohen's kappa, a disagreement counting as the square of the distance of the ranks",
        source="Cohen, Psychological Bulletin 70 (1968)",
        prominence="headline",
        function=lambda sample: classification.quadratic_kappa(sample.rank_counts),
        reason=answers.why_no_kappa,
    ),
    AnswerMetric(
        key="rank_mae",
        label="mean rank error",
        unit="ranks",
        better="lower",
        scope="ranks",
        definition="mean absolute difference of class ranks",
        source=_RELOADED,
        function=answers.rank_error,
    ),
    AnswerMetric(
        key="accuracy",
        label="accuracy",
        better="higher",
        scope="labels",
        definition="share of cases of which every label is told right",
        source="scikit-learn, accuracy_score of indicators",
        compared=True,
        function=labels.share_all_right,
    ),
    AnswerMetric(
        key="macro_f1",
        label="macro-F1",
        better="higher",
        scope="labels",
        definition="mean F1 over the labels that hold in the reference or the predictions",
        source="scikit-learn, f1_score(average=macro)",
        prominence="first",
        compared=True,
        function=labels.macro_f1_of_labels,
    ),
    AnswerMetric(
        key="auroc",
        label="AUROC",
        better="higher",
        scope="labels",
        definition="mean over labels",
        source="Hanley and McNeil, Radiology 143 (1982)",
        prominence="first",
        compared=True,
        function=labels.mean_label_area,
        reason=labels.why_no_label_area,
    ),
    AnswerMetric(
        key="brier",
        label="Brier score",
        better="lower",
        scope="labels",
        definition="squared error summed over yes and no, mean over labels and cases, 0 to 2",
        source="Brier, Monthly Weather Review 78 (1950), equation 2",
        compared=True,
        function=labels.mean_brier,
    ),
    AnswerMetric(
        key="ece",
        label="calibration error (ECE)",
        better="lower",
        scope="labels",
        definition="mean over labels of the calibration error of the probability that it holds, 15 equal bins, L1",
        source="Guo et al., ICML (2017), equation 3",
        prominence="headline",
        function=labels.label_calibration,
    ),
    AnswerMetric(
        key="mae",
        label="mean absolute error",
        unit=TASK_UNIT,
        better="lower",
        scope="values",
        definition="mean absolute error, in the unit of the task",
        source="scikit-learn, mean_absolute_error",
        prominence="first",
        compared=True,
        function=answers.absolute_error,
        reason=answers.why_no_error,
    ),
    AnswerMetric(
        key="spearman",
        label="Spearman",
        better="higher",
        scope="values",
        definition="Pearson correlation of the ranks, ties sharing the mean of theirs",
        source="Spearman, American Journal of Psychology 15 (1904)",
        prominence="first",
        function=answers.rank_correlation,
        reason=answers.why_no_error,
    ),
)

METRICS: tuple[Metric, ...] = (*REGION_METRICS, *ANSWER_METRICS, *CLASS_METRICS)
"""All rows."""


def answer_metrics_of(task: Task) -> tuple[AnswerMetric, ...]:
    """The rows for the whole of a task."""
    return tuple(metric for metric in ANSWER_METRICS if metric.scope in task.kind.scopes)


def definitions() -> dict[str, str]:
    """{key: definition}; of a key with several rows the first one's."""
    found: dict[str, str] = {}
    for metric in METRICS:
        found.setdefault(metric.key, metric.definition)
    return found
