"""Time stock nnU-Net against nnDuet on a ResEnc-M network and quiz-sized cases, on this machine.

    python benchmarks/speed.py                   # trains for half an hour on synthetic CT, then measures; resumable
    python benchmarks/speed.py --precision bfloat16

Writes ``docs/results/speed-<precision>.json``: the arms of ``nnduet benchmark`` with the model loaded (same weights, tiles and
mirroring), whole commands of one case, resampling of an image, what a pass of the network asks of the processor and what that
can do at all, and each target beside what was measured. The training is only there to give the weights margins like those of a
trained network.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from road import REPOSITORY, commit, machine
from torch.utils.flop_counter import FlopCounterMode

from nnduet.benchmark.cold_start import OWN
from nnduet.benchmark.speed import DICE_BOUND, compare_speed
from nnduet.console import progress_bar
from nnduet.datasets.conversion import convert
from nnduet.datasets.phantom import write_phantom
from nnduet.datasets.subtype_folders import read_subtype_folders
from nnduet.inference.resampling import Resampling
from nnduet.io.files import write_json_atomically
from nnduet.model_store.model_folder import load_model
from nnduet.model_store.shipped_models import open_model
from nnduet.network.network import PLANS_KEY
from nnduet.schema import Workspace
from nnduet.training.checkpoints import FINAL, LATEST
from nnduet.training.nnunet_environment import host_environment
from nnduet.training.planners import plans_name_of
from nnduet.training.planning import plan
from nnduet.training.settings import TrainingSettings
from nnduet.training.trainer import nnUNetTrainerMultitask

NUM_CASES = 2
SIZE = (64, 118, 181)
"""Voxels (Z, Y, X) of a case, about those of the pancreas quiz's crops."""
SETTINGS = TrainingSettings(
    num_epochs=25, iterations_per_epoch=16, validation_iterations=2, optimizer="adamw", learning_rate=1e-3, save_every=5
)
"""On small patches, so that structures are learned in minutes."""
LAST_SETTINGS = replace(SETTINGS, num_epochs=5, iterations_per_epoch=12, validation_iterations=1, save_every=1)
"""Then on the planned patch, one at a time: the statistics of the norms are others there."""
CONFIGURATION = "3d_fullres"
RESAMPLED = ((1, 75, 274, 274), (100, 256, 256))
"""Shape of an image and the shape it is resampled to, see docs/explanation-evidence.md."""
TARGETS: dict[str, Any] = {"warm": {"float32": 2.0, "bfloat16": 8.0}, "cold": 5.0, "resampling": 10.0, "probability": 0.01}


def prepare(folder: Path) -> tuple[Path, Path]:
    """Synthetic cases and a briefly trained ResEnc-M model; returns model and test images."""
    workspace, data = Workspace.from_environment({}, folder / "nnduet_data"), folder / "images"
    if not (data / "train").is_dir():
        write_phantom(data, num_train=9, num_validation=3, seed=0, size=SIZE)
        with progress_bar("convert") as progress:
            convert(read_subtype_folders(data), workspace=workspace, dataset_id=1, name="Quiz", progress=progress)
        with progress_bar("plan") as progress:
            plan(1, "resenc-m", workspace=workspace, configurations=(CONFIGURATION,), progress=progress)
    dataset = workspace.dataset_name(1)
    plans = json.loads((workspace.preprocessed / dataset / f"{plans_name_of('resenc-m')}.json").read_text())
    cases = folder / "cases"
    if not cases.is_dir():
        write_phantom(cases, num_train=0, num_validation=0, num_test=NUM_CASES, seed=1, size=SIZE)
    with host_environment(workspace.environment() | {"nnUNet_n_proc_DA": "0"}):
        model = _train(workspace.preprocessed / dataset, plans)
    return model, cases / "test"


def _train(prepared: Path, plans: dict[str, Any]) -> Path:
    """Train on small patches, and from there on the planned one; returns the model folder."""
    configuration = plans["configurations"][CONFIGURATION]
    strides = np.prod(configuration["architecture"]["arch_kwargs"]["strides"], axis=0)
    small = [int(min(2 * s, p)) for s, p in zip(strides, configuration["patch_size"], strict=True)]
    first = plans | {"plans_name": f"{plans['plans_name']}SmallPatches"}
    first["configurations"] = {CONFIGURATION: configuration | {"patch_size": small}}
    trained = _train_on(prepared, first, SETTINGS) / FINAL
    last = plans | {"configurations": {CONFIGURATION: configuration | {"batch_size": 1}}}
    return _train_on(prepared, last, LAST_SETTINGS, trained).parent


def _train_on(prepared: Path, plans: dict[str, Any], settings: TrainingSettings, start: Path | None = None) -> Path:
    """Train what these plans say, from the weights of a checkpoint if one is given, unless that is done; returns the fold's
    folder."""
    plans = plans | {PLANS_KEY: {"training": settings.to_json()}, "continue_training": True}
    dataset = json.loads((prepared / "dataset.json").read_text())
    trainer = nnUNetTrainerMultitask(plans, CONFIGURATION, 0, dataset, torch.device("cpu"))
    folder = Path(trainer.output_folder)
    if not (folder / FINAL).is_file():
        trainer.initialize()
        if (folder / LATEST).is_file():
            trainer.load_checkpoint(str(folder / LATEST))
        elif start is not None:
            trainer.network.load_state_dict(torch.load(start, weights_only=False)["network_weights"])
        with progress_bar(f"train {plans['plans_name']}") as progress:
            trainer.progress = progress
            trainer.run_training()
    return folder


def time_resampling(rounds: int) -> dict[str, Any]:
    """nnU-Net's default resampling of an image against nnDuet's, in turns, and their largest difference."""
    old, new = RESAMPLED
    image = np.random.default_rng(0).normal(size=old).astype(np.float32)
    spacing, target = (2.5, 1.0, 1.0), tuple(s * a / b for s, a, b in zip((2.5, 1.0, 1.0), old[1:], new, strict=True))
    options: dict[str, Any] = {"order": 3, "order_z": 0, "force_separate_z": None}
    seconds: dict[str, list[float]] = {"nnU-Net": [], "nnDuet": []}
    for _ in range(rounds):
        started = time.perf_counter()
        theirs = resample_data_or_seg_to_shape(image, new, spacing, target, is_seg=False, **options)
        between = time.perf_counter()
        ours = Resampling.of(old[1:], new, spacing, target, **options)(torch.from_numpy(image)).numpy()
        seconds["nnU-Net"].append(between - started)
        seconds["nnDuet"].append(time.perf_counter() - between)
    return {
        "shapes": RESAMPLED,
        "seconds": seconds,
        "times_faster": float(np.median(np.array(seconds["nnU-Net"]) / np.array(seconds["nnDuet"]))),
        "largest_difference": float(np.abs(theirs - ours).max()),
    }


def time_network(model: Path) -> dict[str, Any]:
    """A pass of the network by torch, as nnU-Net calls it, beside a product of matrices, whose rate few codes exceed."""
    network = load_model(open_model(model)).network
    plan = json.loads((model / "plans.json").read_text())["configurations"][CONFIGURATION]
    patch = torch.zeros(1, 1, *plan["patch_size"])
    meta = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        meta.decoder(meta.encoder(patch.to("meta")))
    matrix = torch.rand(2048, 2048)
    with torch.inference_mode():
        product = _least_seconds(lambda: matrix @ matrix, 15)
        whole = _least_seconds(lambda: network.decoder(network.encoder(patch)), 2)
    operations = counter.get_total_flops()
    return {
        "gigaflop_of_a_pass": round(operations / 1e9, 1),
        "seconds_of_a_pass": round(whole, 2),
        "gigaflop_per_second": round(operations / whole / 1e9, 1),
        "gigaflop_per_second_of_a_matrix_product": round(2 * len(matrix) ** 3 / product / 1e9, 1),
    }


def _least_seconds(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each target, what was measured, and whether it is met."""
    own, found = result["ratios"][OWN], result["agreement"][OWN]
    precision = result["arms"][OWN]["computed_by"].split()[-1]
    least = min(found["dice"].values(), default=float("nan"))
    rows = [
        ("times faster, model loaded", TARGETS["warm"][precision], own["times_faster"], True),
        ("times faster, one case with a whole command", TARGETS["cold"], result["cold"].get("times_faster"), True),
        ("times faster, resampling an image", TARGETS["resampling"], result["resampling"]["times_faster"], True),
        ("Dice of the least label against nnU-Net", DICE_BOUND[precision], least, True),
        ("difference of a class probability", TARGETS["probability"], found["largest_probability_difference"], False),
        ("peak memory by nnU-Net's", 1.0, 1 / own["times_less_memory"], False),
    ]
    return [
        {"what": w, "target": t, "measured": m, "met": m is not None and (m >= t if at_least else m <= t)}
        for w, t, m, at_least in rows
    ]


def main() -> None:
    """Prepare, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--prepare", action="store_true", help="train only")
    arguments = parser.parse_args()
    folder = arguments.runs / "speed"
    model, images = prepare(folder)
    if arguments.prepare:
        return
    # stock commands look trainers up by name, which imports torchvision; it fails beside a CPU build of torch
    paths = [str(REPOSITORY / "tests" / "torchvision_stand_in"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    resampling, network = time_resampling(max(arguments.rounds, 5)), time_network(model)
    with progress_bar("measure") as progress:
        compared = compare_speed(
            model,
            images,
            folder / "comparison",
            rounds=arguments.rounds,
            runtime=arguments.runtime,
            precision=arguments.precision,
            progress=progress,
        )
    plans = json.loads((model / "plans.json").read_text())["configurations"][CONFIGURATION]
    result: dict[str, Any] = {
        **compared.to_json(),
        "resampling": resampling,
        "patch_size": plans["patch_size"],
        "spacing_mm": plans["spacing"],
    }
    result |= {"network": network, "images": f"{NUM_CASES} synthetic cases", "targets": targets(result), "commit": commit()}
    result["machine"] |= machine() | {"torch_threads": torch.get_num_threads()}
    write_json_atomically(REPOSITORY / "docs" / "results" / f"speed-{arguments.precision}.json", result)
    for row in result["targets"]:
        sys.stdout.write(f"{row['what']}: {row['measured']} (target {row['target']}): {'met' if row['met'] else 'MISSED'}\n")


if __name__ == "__main__":
    main()
