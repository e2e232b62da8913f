"""Fit a case head: which of two classes a case has, from a table of features, with calibrated answers and prediction sets.

python examples/fit_head.py
"""

from __future__ import annotations

import numpy as np

from nnduet.case_head.fit import fit_case_head
from nnduet.case_head.head import describe_head
from nnduet.schema import Task

TASK = Task("malignant", "binary", ("no", "yes"))


def features_and_labels(num_cases: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Six features (N, 6), of which the first two tell the classes (N,) apart; every tenth value of the third is missing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_cases).astype(float)
    features = rng.normal(size=(num_cases, 6))
    features[:, :2] += labels[:, None] * 1.2
    features[::10, 2] = np.nan
    return features, labels


def main() -> None:
    features, labels = features_and_labels(240, seed=0)
    patients = [f"patient {number // 2}" for number in range(240)]  # two cases each, which the inner folds keep together
    blocks = {"shape": range(3), "intensity": range(3, 6)}
    head = fit_case_head(TASK, features, labels, patients, blocks=blocks, models=["shrinkage LDA", "ridge logistic regression"])
    assert head is not None, "too few cases of a class"
    print(describe_head(head))

    new, truth = features_and_labels(2000, seed=1)
    probabilities = head(new)
    right = (probabilities.argmax(axis=1) == truth).mean()
    sets = [TASK.kind.prediction_set(row, head.threshold(error_rate=0.1)) for row in probabilities]
    held = np.mean([truth[n] in found for n, found in enumerate(sets)])
    print(f"2000 new cases: {right:.2f} are right; sets that promise 0.90 hold {held:.2f} of the truths")
    print(f"{np.mean([len(found) > 1 for found in sets]):.2f} of the sets leave both classes open")


if __name__ == "__main__":
    main()
