"""The rows of the table of metrics that are about one class against the rest, or one label of several."""

from __future__ import annotations

from nnduet.evaluation.metrics import answers, classification
from nnduet.evaluation.metrics.metric import ClassMetric

__all__ = ["CLASS_METRICS"]

_RELOADED = "Maier-Hein et al., Metrics Reloaded, Nature Methods 21 (2024)"

CLASS_METRICS: tuple[ClassMetric, ...] = (
    ClassMetric(
        key="precision",
        label="precision",
        better="higher",
        definition="share of right answers among those that name the class",
        source="scikit-learn, precision_score",
        function=lambda part: classification.precision_per_class(part.sample.counts)[:, part.index],
        reason=answers.why_no_precision,
    ),
    ClassMetric(
        key="recall",
        label="recall",
        better="higher",
        definition="share of the cases of the class that are named right; its sensitivity",
        source="scikit-learn, recall_score",
        function=lambda part: classification.recall_per_class(part.sample.counts)[:, part.index],
        reason=answers.why_no_recall,
    ),
    ClassMetric(
        key="specificity",
        label="specificity",
        better="higher",
        definition="share of the cases of other classes that are not given this one",
        source=_RELOADED,
        function=lambda part: classification.specificity_per_class(part.sample.counts)[:, part.index],
        reason=answers.why_no_specificity,
    ),
    ClassMetric(
        key="f1",
        label="F1",
        better="higher",
        definition="2 TP / (2 TP + FP + FN) of the class against the rest",
        source="scikit-learn, f1_score",
        function=lambda part: classification.f1_per_class(part.sample.counts)[:, part.index],
        reason=answers.why_no_recall,
    ),
    ClassMetric(
        key="auroc",
        label="AUROC",
        better="higher",
        definition="chance that a case of the class has a higher probability of it than another case, ties counting half",
        source="Hanley and McNeil, Radiology 143 (1982)",
        function=lambda part: part.sample.aurocs[:, part.index],
        reason=answers.why_no_area,
    ),
    ClassMetric(
        key="lr_plus",
        label="positive likelihood ratio",
        better="higher",
        definition="sensitivity / (1 - specificity), one against the rest",
        source="Deeks and Altman, BMJ 329 (2004)",
        function=lambda part: classification.positive_likelihood_ratio_per_class(part.sample.counts)[:, part.index],
        reason=answers.why_no_likelihood_ratio,
    ),
)
