"""Stock nnU-Net against nnDuet on the same cases with the same weights: time, memory, and whether the outputs agree.

Every arm runs in fresh processes, in ABBA order, after a warm-up. A ratio of times is called a speed-up only where the outputs
agree within stated bounds.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nnduet.benchmark.agreement import agreement
from nnduet.benchmark.children import child_environment, module_command
from nnduet.benchmark.cold_start import OWN, STOCK, cold_start
from nnduet.benchmark.timed_arm import Arm
from nnduet.errors import NNDuetError, SettingsError
from nnduet.evaluation.bootstrap import draw_resamples, weighted_mean
from nnduet.io.claimed_folders import claim_folder, remove_claimed
from nnduet.io.files import write_json_atomically
from nnduet.network.hardware import cpu_has_bf16, processor_name
from nnduet.progress import Progress
from nnduet.records import read_json

__all__ = ["DICE_BOUND", "PROBABILITY_BOUND", "SPEED_FILE", "compare_speed"]

SPEED_FILE = "speed_comparison.json"
REFERENCE, CHEAPER = "nnDuet, torch float32", "nnU-Net, no mirroring, step 0.75"
MAKER = "nnduet benchmark"
DICE_BOUND = {"float32": 0.999, "bfloat16": 0.995}
"""Least Dice of every label against nnU-Net's masks, all cases pooled."""
PROBABILITY_BOUND = 0.01
"""Largest difference of any class probability from that of torch in float32."""

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
        OutputExistsError: ``output`` holds files that no benchmark wrote.
        NNDuetError: an arm failed; its last words are in the message.
    """
    if rounds < 2:
        raise SettingsError(f"rounds: expected at least 2, got {rounds}; one run says nothing of its own noise")
    if not model.is_dir():
        raise SettingsError(f"{model}: expected a model folder; stock nnU-Net reads nothing else")
    arms = _arms(runtime, precision, device, list(folds))
    claim_folder(output, MAKER)
    measured = _measure(arms, model, images, output, rounds, progress)
    result: dict[str, Any] = {
        "images": str(images),
        "num_cases": len(measured[STOCK][0]["seconds"]),
        "rounds": rounds,
        "arms": {arm.name: {**arm.to_json(), **_summary(measured[arm.name])} for arm in arms},
        "ratios": {arm.name: _against(measured[STOCK], measured[arm.name]) for arm in arms[1:]},
        "agreement": {arm.name: agreement(output / STOCK, output / arm.name, output / REFERENCE) for arm in arms[1:]},
        "machine": _machine(),
        "versions": {name: version(name) for name in ("nnduet", "nnunetv2", "torch", "numpy")},
    }
    if cold:
        result["cold"] = cold_start(model, images, output, rounds, _own(arms), MAKER)
    for arm in arms[1:]:
        bound = DICE_BOUND["bfloat16" if "bfloat16" in result["arms"][arm.name]["computed_by"] else "float32"]
        result["ratios"][arm.name] |= _verdict(result["ratios"][arm.name], result["agreement"][arm.name], bound)
    write_json_atomically(output / SPEED_FILE, result)
    return result


def _machine() -> dict[str, Any]:
    """What the times depend on."""
    system = platform.platform()
    return {"processor": processor_name(), "cores": os.cpu_count(), "bfloat16": cpu_has_bf16(), "system": system}


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
    remove_claimed(place, MAKER)
    claim_folder(place, MAKER)
    specification, result = output / "specification.json", output / "result.json"
    places = {"model": model, "images": images, "output": place, "result": result}
    given = {name: str(path.absolute()) for name, path in places.items()}
    write_json_atomically(specification, given | {"arm": arm.to_json(), "warm_up_only": warm_up_only})
    command = module_command("nnduet.benchmark.timed_arm", str(specification.absolute()))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
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
        "times_faster": float(np.exp(found.value)),
        "ci95": [float(np.exp(bound)) for bound in found.ci95] if found.ci95 else None,
        "times_less_memory": float(np.median(memory)),
    }


def _verdict(ratio: Mapping[str, Any], found: Mapping[str, Any], bound: float) -> dict[str, Any]:
    """Whether the ratio may be called a speed-up, and why not."""
    reasons = [f"Dice of label {k} against nnU-Net is {v:.4f}, below {bound}" for k, v in found["dice"].items() if v < bound]
    if found.get("largest_probability_difference", 0.0) > PROBABILITY_BOUND:
        reasons.append(
            f"a class probability differs by {found['largest_probability_difference']:.4f}, above {PROBABILITY_BOUND}"
        )
    if not ratio["ci95"]:
        reasons.append("one case gives no interval of the ratio; name a folder of several")
    elif ratio["ci95"][0] <= 1:
        reasons.append("the interval of the ratio does not lie above 1")
    return {"is_speed_up": not reasons, "why_not": reasons}
