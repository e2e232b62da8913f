"""Stock nnU-Net against nnDuet on the same cases with the same weights: time, memory, and whether the outputs agree.

Every arm runs in fresh processes, in ABBA order, after a warm-up. A ratio of times is called a speed-up only where the outputs
agree within stated bounds.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnduet.data.case_files import find_cases, list_images
from nnduet.data.files import write_json_atomically
from nnduet.data.images import read_segmentation
from nnduet.errors import NNDuetError, SettingsError
from nnduet.evaluation.answers import read_rows
from nnduet.evaluation.bootstrap import draw_resamples, weighted_mean
from nnduet.inference.model_folder import FINAL_CHECKPOINT, available_folds
from nnduet.inference.tables import CLASSIFICATION_FILE
from nnduet.inference.timed_arm import Arm
from nnduet.model.hardware import cpu_has_bf16, processor_name
from nnduet.model.plans import check_dataset
from nnduet.records import read_json

__all__ = ["DICE_BOUND", "PROBABILITY_BOUND", "SPEED_FILE", "agreement", "compare_speed"]

SPEED_FILE = "speed_comparison.json"
STOCK, OWN, REFERENCE = "nnU-Net", "nnDuet", "nnDuet, torch float32"
_STOCK_COMMAND = str(Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder"))
CHEAPER = "nnU-Net, no mirroring, step 0.75"
DICE_BOUND = {"float32": 0.999, "bfloat16": 0.995}
"""Least Dice of every label against nnU-Net's masks, all cases pooled."""
PROBABILITY_BOUND = 0.01
"""Largest difference of any class probability from that of torch in float32."""

Progress = Callable[[int, int, str], None]
T = TypeVar("T")


def compare_speed(
    model: Path,
    images: Path,
    output: Path,
    *,
    rounds: int = 3,
    runtime: str = "auto",
    precision: str = "auto",
    device: str = "cpu",
    folds: Sequence[str] = (),
    cold: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time stock nnU-Net and nnDuet, compare what they wrote, and write ``speed_comparison.json`` to ``output``.

    Arms: nnU-Net's predictor, and nnDuet with the runtime and precision that are asked for, both with mirroring and half-patch
    steps; nnDuet with torch in float32, as the reference of class probabilities; nnU-Net without mirroring and with larger
    steps, which is what has been sold as a speed-up before.

    Args:
        rounds: every second one goes through the arms backwards.
        cold: also time whole commands with one case, from the start of the process to its end.

    Raises:
        SettingsError: fewer than two rounds, or a bundle, which stock nnU-Net cannot read.
        NNDuetError: an arm failed; its last words are in the message.
    """
    if rounds < 2:
        raise SettingsError(f"rounds: expected at least 2, got {rounds}; one run says nothing of its own noise")
    if not model.is_dir():
        raise SettingsError(f"{model}: expected a model folder; stock nnU-Net reads nothing else")
    arms = _arms(runtime, precision, device, list(folds))
    output.mkdir(parents=True, exist_ok=True)
    measured = _measure(arms, model, images, output, rounds, progress)
    result: dict[str, Any] = {
        "images": str(images),
        "num_cases": len(measured[STOCK][0]["seconds"]),
        "rounds": rounds,
        "arms": {arm.name: {**arm.to_json(), **_summary(measured[arm.name])} for arm in arms},
        "ratios": {arm.name: _against(measured[STOCK], measured[arm.name]) for arm in arms[1:]},
        "agreement": {arm.name: agreement(output / STOCK, output / arm.name, output / REFERENCE) for arm in arms[1:]},
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "bfloat16": cpu_has_bf16(),
            "system": platform.platform(),
        },
        "versions": {name: version(name) for name in ("nnduet", "nnunetv2", "torch", "numpy")},
    }
    if cold:
        result["cold"] = _cold(model, images, output, rounds, _own(arms))
    for arm in arms[1:]:
        bound = DICE_BOUND["bfloat16" if "bfloat16" in result["arms"][arm.name]["computed_by"] else "float32"]
        result["ratios"][arm.name] |= _verdict(result["ratios"][arm.name], result["agreement"][arm.name], bound)
    write_json_atomically(output / SPEED_FILE, result)
    return result


def _arms(runtime: str, precision: str, device: str, folds: list[str]) -> list[Arm]:
    """What is compared, stock nnU-Net first."""
    return [
        Arm(STOCK, True, True, 0.5, "torch", "auto", device, folds),
        Arm(OWN, False, True, 0.5, runtime, precision, device, folds),
        Arm(REFERENCE, False, True, 0.5, "torch", "float32", device, folds),
        Arm(CHEAPER, True, False, 0.75, "torch", "auto", device, folds),
    ]


def _own(arms: Sequence[Arm]) -> Arm:
    return next(arm for arm in arms if arm.name == OWN)


def _measure(
    arms: list[Arm], model: Path, images: Path, output: Path, rounds: int, progress: Progress | None
) -> dict[str, list[dict[str, Any]]]:
    """{arm: what it measured in each round}, in ABBA order."""
    measured: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
    _run(_own(arms), model, images, output, warm_up_only=True)  # or the first round's memory would be that of converting
    for turn in range(rounds):
        for place, arm in enumerate(_abba(arms, turn)):
            measured[arm.name].append(_run(arm, model, images, output))
            if progress:
                progress(turn * len(arms) + place + 1, rounds * len(arms), f"round {turn + 1}: {arm.name}")
    return measured


def _abba(arms: list[T], turn: int) -> list[T]:
    return arms if turn % 2 == 0 else arms[::-1]


def _run(arm: Arm, model: Path, images: Path, output: Path, *, warm_up_only: bool = False) -> dict[str, Any]:
    """One arm in a fresh process; its masks and tables stay in ``output/<arm>``."""
    place = output / arm.name
    shutil.rmtree(place, ignore_errors=True)
    specification, result = output / "specification.json", output / "result.json"
    places = {"model": model, "images": images, "output": place, "result": result}
    given = {name: str(path.absolute()) for name, path in places.items()}
    write_json_atomically(specification, given | {"arm": arm.to_json(), "warm_up_only": warm_up_only})
    command = [sys.executable, "-m", "nnduet.inference.timed_arm", str(specification)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NNDuetError(f"benchmark: {arm.name} failed: {done.stderr.strip()[-1000:]}")
    loaded: dict[str, Any] = read_json(result, dict[str, Any])
    specification.unlink()
    result.unlink()
    return loaded


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cases = list(runs[0]["seconds"])
    return {
        "computed_by": runs[0]["computed_by"],
        "load_seconds": float(np.median([run["load_seconds"] for run in runs])),
        "median_seconds": float(np.median([run["seconds"][case] for run in runs for case in cases])),
        "median_cpu_seconds": float(np.median([run["cpu_seconds"][case] for run in runs for case in cases])),
        "peak_bytes": int(np.median([run["peak_bytes"] for run in runs])),
        "seconds": {case: [round(run["seconds"][case], 4) for run in runs] for case in cases},
    }


def _against(stock: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Geometric mean over cases of stock time by the other's in the same round, with its interval over cases."""
    cases = list(stock[0]["seconds"])
    logs = np.array(
        [np.mean([np.log(a["seconds"][c] / b["seconds"][c]) for a, b in zip(stock, other, strict=True)]) for c in cases]
    )
    resamples = draw_resamples(cases, num_resamples=1000, seed=0)
    found = resamples.estimate(weighted_mean(logs, resamples.weights), n_defined=len(cases), reason="no_cases")
    memory = [a["peak_bytes"] / b["peak_bytes"] for a, b in zip(stock, other, strict=True)]
    return {
        "times_faster": float(np.exp(found["value"])),
        "ci95": [float(np.exp(bound)) for bound in found["ci95"]] if found["ci95"] else None,
        "times_less_memory": float(np.median(memory)),
    }


def agreement(stock: Path, other: Path, reference: Path) -> dict[str, Any]:
    """How alike the outputs of two arms are.

    Args:
        stock, other: folders with a mask per case.
        reference: folder with the classification.csv that ``other``'s is compared with.

    Returns:
        ``equal_voxels`` (share), ``dice`` by label (all cases pooled; labels that neither has are left out), and, where
        ``other`` classifies, ``largest_probability_difference`` and ``equal_classes`` (share).
    """
    equal, total = 0, 0
    both: dict[int, NDArray[np.int64]] = {}
    for name in [paths[0].name for paths in list_images(stock).cases.values()]:
        a, b = (read_segmentation(folder / name)[0].array for folder in (stock, other))
        equal, total = equal + int((a == b).sum()), total + a.size
        for label in np.union1d(np.unique(a), np.unique(b)).tolist():
            first, second = a == label, b == label
            counts = np.array([(first & second).sum(), first.sum() + second.sum()], dtype=np.int64)
            both[label] = both.get(label, np.zeros(2, dtype=np.int64)) + counts
    dice = {str(label): 2 * int(overlap) / int(size) for label, (overlap, size) in sorted(both.items()) if label}
    found = {"equal_voxels": equal / total, "dice": dice}
    return {**found, **_answers(other, reference)} if (other / CLASSIFICATION_FILE).is_file() else found


def _answers(other: Path, reference: Path) -> dict[str, Any]:
    ours, theirs = (read_rows(folder / CLASSIFICATION_FILE, []) for folder in (other, reference))
    columns = list(next(iter(theirs.values())).cells)
    shares = [column for column in columns if "_p_" in column]
    classes = [column for column in columns if any(share.startswith(f"{column}_p_") for share in shares)]
    pairs = [(row.cells, theirs[case_id].cells) for case_id, row in ours.items()]
    return {
        "largest_probability_difference": max((abs(float(a[c]) - float(b[c])) for a, b in pairs for c in shares), default=0.0),
        "equal_classes": float(np.mean([a[c] == b[c] for a, b in pairs for c in classes])) if classes else 1.0,
    }


def _verdict(ratio: Mapping[str, Any], found: Mapping[str, Any], bound: float) -> dict[str, Any]:
    """Whether the ratio may be called a speed-up, and why not."""
    reasons = [f"Dice of label {k} against nnU-Net is {v:.4f}, below {bound}" for k, v in found["dice"].items() if v < bound]
    if found.get("largest_probability_difference", 0.0) > PROBABILITY_BOUND:
        reasons.append(
            f"a class probability differs by {found['largest_probability_difference']:.4f}, above {PROBABILITY_BOUND}"
        )
    if not ratio["ci95"] or ratio["ci95"][0] <= 1:
        reasons.append("the interval of the ratio does not lie above 1")
    return {"is_speed_up": not reasons, "why_not": reasons}


def _cold(model: Path, images: Path, output: Path, rounds: int, own: Arm) -> dict[str, Any]:
    """Whole commands with the first case: seconds per round, or why there are none."""
    ending = str(check_dataset(read_json(model / "dataset.json"), str(model / "dataset.json"))["file_ending"])
    one = output / "one_case"
    shutil.rmtree(one, ignore_errors=True)
    one.mkdir()
    for path in next(iter(find_cases(images, ending=ending).cases.values())):
        shutil.copy(path, one / path.name)
    folds = own.folds or available_folds(model, FINAL_CHECKPOINT)
    places = {name: ["-i", str(one), "-o", str(output / f"one_case, {name}"), "-m", str(model)] for name in (STOCK, OWN)}
    device = ["--device", own.device, "--runtime", own.runtime, "--precision", own.precision]
    commands = {
        STOCK: [_STOCK_COMMAND, *places[STOCK], "-device", own.device, "-f", *folds],
        OWN: [sys.executable, "-m", "nnduet.cli", "predict", *places[OWN], *device, "--folds", ",".join(folds)],
    }
    plugin = str(Path(__file__).resolve().parents[1] / "_nnunet_plugin")
    environment = {**os.environ, "nnUNet_extTrainer": plugin}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds):
        for name in _abba(list(commands), turn):
            started = time.perf_counter()
            done = subprocess.run(commands[name], capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                return {"reason": f"{name}: {done.stderr.strip()[-500:]}"}
            seconds[name].append(round(time.perf_counter() - started, 3))
    ratio = float(np.median(np.array(seconds[STOCK]) / np.array(seconds[OWN])))
    return {"seconds": seconds, "times_faster": ratio}
