"""One arm of a speed comparison in a process of its own: ``python -m nnduet.benchmark.timed_arm SPECIFICATION.json``.

Loads a model, predicts the first case once without mirroring to warm up, then every case from its files to its written mask,
and writes how long each took. The stock arm is nnU-Net's own predictor with the same weights, one case after the other in this
process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nnduet.io.files import write_json_atomically
from nnduet.records import read_json

__all__ = ["Arm", "ArmRun", "Specification", "run_arm"]

Predict = Callable[[str, list[Path], bool], None]
"""Predicts a case from its files, mirrored or not, and writes its mask."""


@dataclass(frozen=True)
class Arm:
    """What is timed.

    Attributes:
        name: how the results call it.
        stock: nnU-Net's predictor, or nnDuet's.
        runtime, precision: what computes nnDuet's network, and in which number format.
    """

    name: str
    stock: bool
    tta: bool = True
    step_size: float = 0.5
    runtime: str = "auto"
    precision: str = "auto"
    device: str = "cpu"
    folds: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ArmRun:
    """What one process measured of an arm.

    Attributes:
        load_seconds: from the model's files to a predictor.
        seconds, cpu_seconds: {case: wall, and processor time}; empty after a warm-up alone.
        peak_bytes: most memory that the process held.
        computed_by: runtime and number format that computed the network.
    """

    load_seconds: float
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    peak_bytes: int
    computed_by: str


def run_arm(arm: Arm, model: Path, images: Path, output: Path, *, warm_up_only: bool = False) -> ArmRun:
    """Predict all cases of a folder into ``output``; see the module for what is timed.

    Args:
        warm_up_only: predict the first case once, which converts the network where the runtime needs that, and time nothing.
    """
    from nnduet.inference.memory import peak_bytes
    from nnduet.io.case_files import find_cases

    output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    predict, finish, ending, computed_by = (_stock if arm.stock else _own)(arm, model, output)
    loaded = time.perf_counter() - started
    cases = {case_id: list(paths) for case_id, paths in find_cases(images, ending=ending).cases.items()}
    predict(*next(iter(cases.items())), False)
    seconds, cpu = {}, {}
    for case_id, paths in () if warm_up_only else cases.items():
        wall, process = time.perf_counter(), time.process_time()
        predict(case_id, paths, arm.tta)
        seconds[case_id], cpu[case_id] = time.perf_counter() - wall, time.process_time() - process
    finish()
    return ArmRun(loaded, seconds, cpu, peak_bytes(), computed_by)


def _own(arm: Arm, model: Path, output: Path) -> tuple[Predict, Callable[[], None], str, str]:
    from nnduet.inference.folder_runs import predict_case
    from nnduet.inference.predictor import Predictor
    from nnduet.inference.result_tables import write_tables
    from nnduet.inference.task_predictions import CaseAnswers

    predictor = Predictor.load(
        model,
        arm.folds or None,
        device=arm.device,
        step_size=arm.step_size,
        tta=arm.tta,
        runtime=arm.runtime,
        precision=arm.precision,
    )
    ending = str(predictor.model.dataset_json["file_ending"])
    answers: dict[str, CaseAnswers] = {}
    axes = predictor.mirror_axes

    def predict(case_id: str, paths: list[Path], mirrored: bool) -> None:
        predictor.mirror_axes = axes if mirrored else ()
        answers[case_id] = predict_case(predictor, paths, {}, output, f"{case_id}{ending}")

    return (
        predict,
        lambda: write_tables(output, predictor.tasks, answers),
        ending,
        f"{predictor.passes.name} {predictor.passes.precision}",
    )


def _stock(arm: Arm, model: Path, output: Path) -> tuple[Predict, Callable[[], None], str, str]:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnduet.model_store.model_folder import load_model
    from nnduet.model_store.shipped_models import open_model

    loaded = load_model(open_model(model), arm.folds or None)
    predictor = nnUNetPredictor(
        tile_step_size=arm.step_size,
        use_mirroring=arm.tta,
        perform_everything_on_device=arm.device == "cuda",
        device=torch.device(arm.device),
        allow_tqdm=False,
    )
    network = loaded.network.to(arm.device).eval()
    weights = [{**network.state_dict(), **member.weights} for member in loaded.members]
    predictor.manual_initialization(
        network, loaded.plans, loaded.configuration, weights, loaded.dataset_json, "", loaded.mirror_axes or None
    )

    def predict(case_id: str, paths: list[Path], mirrored: bool) -> None:
        predictor.use_mirroring = mirrored
        with contextlib.redirect_stdout(None):
            predictor.predict_from_files_sequential([[str(path) for path in paths]], [str(output / case_id)])

    return predict, lambda: None, str(loaded.dataset_json["file_ending"]), "nnU-Net"


@dataclass(frozen=True)
class Specification:
    """What a process is told to run, with absolute paths; it writes an :class:`ArmRun` to ``result``."""

    arm: Arm
    model: str
    images: str
    output: str
    result: str
    warm_up_only: bool


def main() -> None:
    """Read the specification, run, write ``result`` beside it."""
    specification = Path(sys.argv[1])
    given: Specification = read_json(specification, Specification)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, str(specification.parent))  # or nnU-Net prints warnings; nothing is written there
    places = (Path(place) for place in (given.model, given.images, given.output))
    write_json_atomically(Path(given.result), run_arm(given.arm, *places, warm_up_only=given.warm_up_only))


if __name__ == "__main__":
    main()
