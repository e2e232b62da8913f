"""Stock nnU-Net against nnDuet on the same cases with the same weights: time, memory, and whether the outputs agree.

Every arm runs in fresh processes, in ABBA order, after a warm-up. A ratio of times is called a speed-up only where the outputs
agree within stated bounds.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np

from nnduet.benchmark.agreement import agreement
from nnduet.benchmark.children import child_environment, module_command
from nnduet.benchmark.cold_start import OWN, STOCK, cold_start
from nnduet.benchmark.comparison import Agreement, ArmResult, Machine, Ratio, SpeedComparison
from nnduet.benchmark.timed_arm import Arm, ArmRun, Specification
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
) -> SpeedComparison:
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
    alike = {arm.name: agreement(output / STOCK, output / arm.name, output / REFERENCE) for arm in arms[1:]}
    result = SpeedComparison(
        images=str(images),
        num_cases=len(measured[STOCK][0].seconds),
        rounds=rounds,
        arms={arm.name: _summary(arm, measured[arm.name]) for arm in arms},
        ratios={name: _judged(_against(measured[STOCK], measured[name]), measured[name], alike[name]) for name in alike},
        agreement=alike,
        machine=Machine(processor_name(), os.cpu_count(), cpu_has_bf16(), platform.platform()),
        versions={name: version(name) for name in ("nnduet", "nnunetv2", "torch", "numpy")},
        cold=cold_start(model, images, output, rounds, _own(arms), MAKER) if cold else None,
    )
    write_json_atomically(output / SPEED_FILE, result)
    return result


def _judged(ratio: Ratio, runs: Sequence[ArmRun], alike: Agreement) -> Ratio:
    """The ratio with the verdict, by the bound of the number format that computed it."""
    why_not = _why_no_speed_up(ratio, alike, DICE_BOUND["bfloat16" if "bfloat16" in runs[0].computed_by else "float32"])
    return replace(ratio, is_speed_up=not why_not, why_not=tuple(why_not))


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
) -> dict[str, list[ArmRun]]:
    """{arm: what it measured in each round}, in ABBA order."""
    measured: dict[str, list[ArmRun]] = {arm.name: [] for arm in arms}
    _run(_own(arms), model, images, output, warm_up_only=True)  # or the first round's memory would be that of converting
    for turn in range(rounds):
        for place, arm in enumerate(_abba(arms, turn)):
            measured[arm.name].append(_run(arm, model, images, output))
            if progress:
                progress(turn * len(arms) + place + 1, rounds * len(arms), f"round {turn + 1}: {arm.name}")
    return measured


def _abba(arms: list[T], turn: int) -> list[T]:
    return arms if turn % 2 == 0 else arms[::-1]


def _run(arm: Arm, model: Path, images: Path, output: Path, *, warm_up_only: bool = False) -> ArmRun:
    """One arm in a fresh process; its masks and tables stay in ``output/<arm>``."""
    place = output / arm.name
    remove_claimed(place, MAKER)
    claim_folder(place, MAKER)
    specification, result = output / "specification.json", output / "result.json"
    places = [str(path.absolute()) for path in (model, images, place, result)]
    write_json_atomically(specification, Specification(arm, places[0], places[1], places[2], places[3], warm_up_only))
    command = module_command("nnduet.benchmark.timed_arm", str(specification.absolute()))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    if done.returncode:
        raise NNDuetError(f"benchmark: {arm.name} failed: {done.stderr.strip()[-1000:]}")
    loaded: ArmRun = read_json(result, ArmRun)
    specification.unlink()
    result.unlink()
    return loaded


def _summary(arm: Arm, runs: Sequence[ArmRun]) -> ArmResult:
    cases = list(runs[0].seconds)
    return ArmResult(
        **vars(arm),
        computed_by=runs[0].computed_by,
        load_seconds=float(np.median([run.load_seconds for run in runs])),
        median_seconds=float(np.median([run.seconds[case] for run in runs for case in cases])),
        median_cpu_seconds=float(np.median([run.cpu_seconds[case] for run in runs for case in cases])),
        peak_bytes=int(np.median([run.peak_bytes for run in runs])),
        seconds={case: [round(run.seconds[case], 4) for run in runs] for case in cases},
    )


def _against(stock: Sequence[ArmRun], other: Sequence[ArmRun]) -> Ratio:
    """Geometric mean over cases of stock time by the other's in the same round, with its interval over cases."""
    cases = list(stock[0].seconds)
    logs = np.array([np.mean([np.log(a.seconds[c] / b.seconds[c]) for a, b in zip(stock, other, strict=True)]) for c in cases])
    resamples = draw_resamples(cases, num_resamples=1000, seed=0)
    found = resamples.estimate(weighted_mean(logs, resamples.weights), n_defined=len(cases), reason="no_cases")
    memory = [a.peak_bytes / b.peak_bytes for a, b in zip(stock, other, strict=True)]
    assert found.value is not None  # a comparison has at least one case
    interval = found.ci95 and (float(np.exp(found.ci95[0])), float(np.exp(found.ci95[1])))
    return Ratio(float(np.exp(found.value)), interval, float(np.median(memory)))


def _why_no_speed_up(ratio: Ratio, found: Agreement, bound: float) -> list[str]:
    """Why a ratio may not be called a speed-up; nothing where it may."""
    reasons = [f"Dice of label {k} against nnU-Net is {v:.4f}, below {bound}" for k, v in found.dice.items() if v < bound]
    if found.largest_probability_difference is not None and found.largest_probability_difference > PROBABILITY_BOUND:
        reasons.append(f"a class probability differs by {found.largest_probability_difference:.4f}, above {PROBABILITY_BOUND}")
    if not ratio.ci95:
        reasons.append("one case gives no interval of the ratio; name a folder of several")
    elif ratio.ci95[0] <= 1:
        reasons.append("the interval of the ratio does not lie above 1")
    return reasons
