"""Does a network outline the cases that it has learned from better than new ones?

    python benchmarks/training_fit.py --set busbra --fold 0       # a fold that benchmarks/accuracy.py has trained under --runs

A network that is too small, or was trained too briefly, errs on both alike; one that has learned by heart what it cannot know
of new cases errs on these alone. Writes ``docs/results/training-fit-<set>.json``: Dice of some training cases, predicted as new
ones are, beside that of the fold's validation cases.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from accuracy import RESULTS, Bench, dice_by_case, mean_dice, parser_of
from road import DATASET_ID, SETS, commit, images_of_cases, machine

from nnduet.console import progress_bar
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.reference_sets import references_of_dataset
from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.predictor import Predictor
from nnduet.io.files import write_json_atomically

CASES = 100
"""Training cases that are predicted, drawn at random."""


def training_fit(bench: Bench, fold: int) -> dict[str, Any]:
    """Mean Dice of training and of validation cases of a fold."""
    held_out = dice_by_case(bench.model() / f"fold_{fold}" / "validation")
    training = sorted(set(bench.labels.values) - set(held_out))
    drawn = tuple(random.Random(0).sample(training, min(CASES, len(training))))
    references = references_of_dataset(bench.workspace, DATASET_ID)
    with tempfile.TemporaryDirectory() as place, progress_bar("predict") as progress:
        images, masks, metrics = (Path(place) / name for name in ("images", "masks", "metrics"))
        images_of_cases(bench.workspace, drawn, images)
        predict_folder(Predictor.load(bench.model(), [fold]), images, masks, progress=progress)
        evaluate(masks, references.masks, labels=references.labels, case_ids=drawn, output=metrics)
        learned = dice_by_case(metrics)
    return {
        "set": bench.name,
        "fold": fold,
        "command": "python benchmarks/training_fit.py " + " ".join(sys.argv[1:]),
        "num_training": len(learned),
        "num_held_out": len(held_out),
        "training": mean_dice(bench, learned),
        "held_out": mean_dice(bench, held_out),
        "machine": machine(),
        "commit": commit(),
    }


def main() -> None:
    """Predict, measure and write."""
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=sorted(SETS), required=True)
    parser.add_argument("--fold", type=int, default=0)
    arguments = parser.parse_args()
    result = training_fit(Bench.prepare(arguments.set, arguments.data, arguments.runs), arguments.fold)
    write_json_atomically(RESULTS / f"training-fit-{arguments.set}.json", result)
    for region, entry in result["training"].items():
        sys.stdout.write(
            f"{region}: {entry['value']:.3f} of training cases, {result['held_out'][region]['value']:.3f} of new ones\n"
        )


if __name__ == "__main__":
    main()
