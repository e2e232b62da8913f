"""Train the model that comes with nnDuet and write it, with its card, to ``src/nnduet/models/lidc-nodule/``.

    python benchmarks/build_model.py              # all folds of lidc that are not yet trained under --runs; --folds names some

Cross-validated folds: every case trains all but at most one, and the card's figures are of the fold that had not seen it.
Weights are kept in half precision, without the optimiser and the inner heads; the answers must stay what they were.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accuracy import SHOWN, Bench, parser_of
from render_results import cell
from road import DATASET_ID, SETS

from nnduet.console import progress_bar
from nnduet.inference.predictor import Predictor
from nnduet.io.files import write_text_atomically
from nnduet.model_store.folder_files import available_folds, load_checkpoint
from nnduet.model_store.model_files import CASE_HEAD_FILE, CONFORMAL_FILE, CROSS_VALIDATION_FOLDER
from nnduet.model_store.shipped_models import SHIPPED
from nnduet.records import record_object
from nnduet.training.checkpoints import FINAL
from nnduet.training.cross_validation import cross_validate

NAME, SET, ROW = "lidc-nodule", "lidc", "h"
LARGEST_BYTES = 15_000_000
LARGEST_DIFFERENCE = 0.01
"""Of any class probability between the trained folds and what is shipped, over CHECKED cases."""
CHECKED = 20


CARD = """\
---
license: cc-by-3.0
library_name: nnduet
tags: [medical, ct, lung-nodule, segmentation, classification]
---
# lidc-nodule

Outlines a pulmonary nodule in a chest CT crop and rates it, from one encoder pass. **Not a medical device**: for research, for
trying nnDuet out, and as a start for your own training. Do not use it to diagnose or treat anyone.

    nnduet predict -m lidc-nodule -i IMAGES -o OUT

## Input

NIfTI files `<case>_0000.nii.gz` in Hounsfield units, each a crop around one nodule with some lung around it; the training crops
have a median of 44 x 44 x 6 voxels of 0.46 to 0.98 mm in the slice and slices of 0.45 to 2.5 mm. On a whole CT, or on a crop
without a nodule, the masks and answers mean nothing.

## Output

| answer | meaning, from the ratings of up to four radiologists in LIDC-IDRI |
|---|---|
| mask 1 | nodule |
| malignancy3 | 0 benign, 1 indeterminate, 2 malignant (suspicion, not pathology) |
| diagnosis_binary | 1 suspicious of malignancy, 0 not |
| texture | 1 non-solid to 5 solid |

Each answer comes with calibrated probabilities, a prediction set, the spread over the folds and an outlier score; see
docs/how-to-predict.md.

## Training

{total} nodules of {total_patients} patients from LIDC-IDRI; {members} networks of the cpu preset, {epochs} epochs each,
combined at prediction. Each was trained without the cases of one of five folds, patients kept together, so that every case
trained all of them but at most one. Retrain it from the folder of the repository, with the data beside it:

    {command}

## Figures, out of fold

{cases} cases of {patients} patients, each by the one network that had not seen it, without the others' help; 95 % intervals by
resampling patients.

| answer | measure | value | a constant answer |
|---|---|---|---|
{rows}

## Limits

- The reference is what radiologists thought, not pathology; they disagree, above all on the indeterminate class, and the shapes
  of the reference masks themselves do not tell the three classes apart much better (row t of docs/results/accuracy-lidc.md).
- Few nodules are non-solid; texture grades 1 to 4 are little known.
- One research collection from seven US centres; other scanners, reconstructions and populations were not tested.
- Nodule crops were chosen by people who knew where the nodule was. No detection was trained or measured.

## Data and licence

LIDC-IDRI, Creative Commons Attribution 3.0 (https://creativecommons.org/licenses/by/3.0/); these weights are derived
from it and come under the same terms. Cite: Armato SG III et al., The Lung Image Database Consortium (LIDC) and Image Database
Resource Initiative (IDRI): a completed reference database of lung nodules on CT scans. Medical Physics 38:915-931, 2011,
doi:10.1118/1.3528204.
"""


def ship(model: Path, target: Path) -> None:
    """Write what prediction needs of a model folder to ``target``, which is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    for fold in available_folds(model, FINAL):
        place = target / f"fold_{fold}"
        place.mkdir(parents=True)
        torch.save(_slim(load_checkpoint(model / f"fold_{fold}" / FINAL)), place / FINAL)
        _copy_json(model / f"fold_{fold}" / CASE_HEAD_FILE, place / CASE_HEAD_FILE)
    (target / CROSS_VALIDATION_FOLDER).mkdir()
    for name in ("plans.json", "dataset.json", f"{CROSS_VALIDATION_FOLDER}/{CONFORMAL_FILE}"):
        _copy_json(model / name, target / name)


def _slim(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Half-precision weights without the inner heads; tensors that were one stay one."""
    halved: dict[int, torch.Tensor] = {}
    weights = {
        name: halved.setdefault(tensor.data_ptr(), tensor.half())
        for name, tensor in checkpoint["network_weights"].items()
        if not name.startswith("inner_heads.")
    }
    return {
        "network_weights": weights,
        "init_args": {"configuration": checkpoint["init_args"]["configuration"]},
        "inference_allowed_mirroring_axes": checkpoint["inference_allowed_mirroring_axes"],
    }


def _copy_json(source: Path, target: Path) -> None:
    """With seven significant digits."""
    loaded = json.loads(source.read_text(), parse_float=lambda text: float(f"{float(text):.7g}"))
    write_text_atomically(target, json.dumps(loaded, separators=(",", ":")) + "\n")


def largest_difference(model: Path, shipped: Path, images: Path) -> float:
    """Between the class probabilities of both over some cases."""
    before, after = Predictor.load(model), Predictor.load(shipped)
    found = 0.0
    for path in sorted(images.glob("*_0000.nii.gz"))[:CHECKED]:
        old, new = (predictor([path]) for predictor in (before, after))
        for name, answer in old.tasks.items():
            found = max(found, *(abs(p - new.tasks[name].probabilities[c]) for c, p in answer.probabilities.items()))
    return found


def card(metrics: Mapping[str, Any], bench: Bench) -> str:
    """The model card, with figures from the cross-validation; sections as in huggingface.co/docs/hub/model-cards."""
    rows = [f"| {region} | Dice | {cell(metrics['segmentation'][region]['dsc'])} | |" for region in ("nodule",)]
    for task, entry in metrics["tasks"].items():
        constant = f"{entry['majority_baseline']['macro_f1']:.3f}"
        shown = {
            "macro_f1": constant,
            "auroc": "0.500",
            **({"quadratic_kappa": "0"} if entry["type"] == "ordinal" else {}),
            "ece": "",
        }
        rows += [f"| {task} | {SHOWN[name]} | {cell(entry['metrics'][name])} | {other} |" for name, other in shown.items()]
    return CARD.format(
        cases=metrics["num_cases"],
        patients=metrics["num_resampling_units"],
        rows="\n".join(rows),
        epochs=bench.epochs(ROW),
        members=len(metrics["cross_validation"]["folds"]),
        total=len(bench.labels.values),
        total_patients=len(set(bench.labels.patients(list(bench.labels.values)))),
        command=" ".join(["python benchmarks/build_model.py", *sys.argv[1:]]),
    )


def main() -> None:
    """Train what is missing, ship, check, write the card."""
    parser = parser_of(__doc__)
    parser.add_argument("--folds", type=int, nargs="*", help="default: all")
    arguments = parser.parse_args()
    bench, target = Bench.prepare(SET, arguments.data, arguments.runs), SHIPPED / NAME
    with progress_bar("cross-validate") as progress:
        summary = cross_validate(
            DATASET_ID,
            SETS[SET].configuration,
            workspace=bench.workspace,
            plans_name=bench.plans_name(ROW),
            folds=arguments.folds,
            epochs=bench.epochs(ROW),
            resume=True,
            progress=progress,
        )
    ship(Path(summary.model), target)
    write_text_atomically(target / "MODEL_CARD.md", card(record_object(summary.metrics), bench))
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    difference = largest_difference(Path(summary.model), target, arguments.data / SET / "images")
    sys.stdout.write(
        f"{target}: {size / 1e6:.1f} MB; class probabilities differ by at most {difference:.4f} over {CHECKED} cases\n"
    )
    if size > LARGEST_BYTES or difference > LARGEST_DIFFERENCE:
        sys.exit(f"expected at most {LARGEST_BYTES / 1e6:.0f} MB and a difference of at most {LARGEST_DIFFERENCE}")


if __name__ == "__main__":
    main()
