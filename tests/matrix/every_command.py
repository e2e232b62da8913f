"""Every command of nnDuet on one kind of data set, one after the other, as a user would type them."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from figure_texts import check_texts_of_figures
from kinds import ENDINGS, NUM_CASES, Kind, write_user_folder
from typer.testing import CliRunner

from nnduet.benchmark import speed, timed_arm
from nnduet.cli import app
from nnduet.model_store.folder_files import load_checkpoint

__all__ = ["Commands", "run_every_command"]

OWN_WEIGHTS = ("heads.", "inner_heads.")


@dataclass
class Commands:
    """Runs commands as a user types them, in a folder; every one must end as it should."""

    folder: Path

    def run(self, *arguments: object, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """The JSON line of a command that must give a result and end with one of these codes."""
        code, found = self._run(*arguments)
        assert code in codes and "error" not in found, f"nnduet {' '.join(map(str, arguments))}\n{found.get('error', found)}"
        return found

    def refused(self, *arguments: object) -> dict[str, str]:
        """The error of a command that must be refused by name."""
        code, found = self._run(*arguments)
        assert code in (1, 2) and found["error"]["code"] not in ("INTERNAL", "NNDUET"), f"{arguments}: {code} {found}"
        assert found["error"]["message"]
        return dict(found["error"])

    def _run(self, *arguments: object) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, [*(str(argument) for argument in arguments), "--json"])
        assert isinstance(result.exception, SystemExit | None), repr(result.exception)
        assert "Traceback" not in result.stderr, result.stderr
        found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return result.exit_code, found


def run_every_command(kind: Kind, commands: Commands, *, processes: bool) -> None:
    """From a user's folder to a bundle, and a benchmark; the figures of a report are looked at in a browser.

    Args:
        processes: whether the benchmark starts its nine processes, or runs in this one what each of them would.
    """
    cases = write_user_folder(commands.folder / "my_cases", kind)
    model = train(kind, cases, commands)
    answers = predict_and_evaluate(kind, cases, model, commands)
    look(kind, cases, model, answers, commands)
    refit(kind, model, commands)
    pass_on(kind, cases, model, commands)
    with pytest.MonkeyPatch.context() as patch:
        if not processes:
            patch.setattr(speed, "subprocess", SimpleNamespace(run=run_arm_here))
        benchmark(cases, model, commands)
    assert check_texts_of_figures(commands.folder / "page_1" / "index.html", width=1200) >= 2  # last: skips without Chromium


def train(kind: Kind, cases: Path, commands: Commands) -> Path:
    """Convert, plan, train: the model folder."""
    convert = ("convert", cases, "--dataset-id", 7, "--name", "Kind", "--num-folds", 2, *kind.convert_options)
    assert commands.run(*convert, "--dry-run")["num_cases"] == NUM_CASES
    assert commands.run(*convert)["num_cases"] == NUM_CASES
    configuration = "2d" if kind.dim == 2 else "3d_fullres"
    planned = commands.run("plan", 7, "--preset", "cpu", "--configuration", configuration)
    shorten(Path(planned["plans_file"]))
    if kind.cross_validation:
        return Path(commands.run("cross-validate", 7, configuration, "--epochs", 1, "--plans", planned["plans_name"])["model"])
    return Path(commands.run("train", 7, configuration, "--fold", 0, "--epochs", 1, "--preset", "cpu")["model"])


def shorten(plans_file: Path) -> None:
    plans = json.loads(plans_file.read_text())
    plans["nnduet"]["training"].update(iterations_per_epoch=2, validation_iterations=1)
    plans_file.write_text(json.dumps(plans))


def predict_and_evaluate(kind: Kind, cases: Path, model: Path, commands: Commands) -> Path:
    """Answers to the test cases by the kind's runtime, scored; the metrics of the validation beside them."""
    covariates = ["--covariates", cases / "cases.csv"] if kind.covariates else []
    found = commands.run(
        "predict", "-i", cases / "test_images", "-o", "answers", "-m", model, "--runtime", kind.runtime, *covariates
    )
    assert sorted(found["cases"]) == ["new_00", "new_01", "new_02"] and not found["failed"]
    fold = model / "fold_0" / "validation"
    metrics = commands.run("evaluate", "-p", fold, "--dataset-id", 7, "--fold", 0, "-o", "metrics")
    assert set(metrics["tasks"]) == set(kind.task_names) and metrics["segmentation"]
    if kind.masks != "several":
        scored = commands.run(
            "evaluate", "-p", "answers", "-r", cases / "test_masks", "--dataset-json", model / "dataset.json", "-o", "scored"
        )
        assert scored["segmentation"] and not scored["missing_predictions"]
    return commands.folder / "answers"


def look(kind: Kind, cases: Path, model: Path, answers: Path, commands: Commands) -> None:
    """Pages of a fold, a model, a cross-validation, answers and metrics; a comparison; a picture."""
    places = [model / "fold_0", model, answers, commands.folder / "metrics"]
    places += [model / "cross_validation"] if kind.cross_validation else []
    for number, place in enumerate(places):
        page = commands.folder / f"page_{number}"
        commands.run("report", place, "-o", page, "--viewer-cases", 1)
        text = (page / "index.html").read_text(encoding="utf-8")
        assert all(name in text for name in kind.task_names), place
        assert "{'" not in text, "a record is shown as Python writes it"
    compared = commands.run("compare", model / "fold_0", "metrics")
    assert compared["segmentation"] and set(compared["tasks"]) == set(kind.task_names)
    ending = ENDINGS[kind.dim]
    commands.run("preview", cases / f"test_images/new_00_0000{ending}", answers / f"new_00{ending}", "-o", "picture.png")
    assert (commands.folder / "picture.png").stat().st_size > 1000


def refit(kind: Kind, model: Path, commands: Commands) -> None:
    """Heads and probes work on tasks; without any, both say so."""
    if kind.tasks == "none":
        for command in ("fit-head", "probe"):
            assert "task" in commands.refused(command, model)["message"]
        return
    commands.run("fit-head", model)
    commands.run("probe", model, "-o", "probed")


def pass_on(kind: Kind, cases: Path, model: Path, commands: Commands) -> None:
    """A bundle answers as its folder does; a fold becomes ONNX; the same network without heads is a stock model to import."""
    commands.run("export", model, "model.nnduet")
    for name, source in (("by_folder", model), ("by_bundle", "model.nnduet")):
        commands.run("predict", "-i", cases / "test_images", "-o", name, "-m", source, "--runtime", "torch")
    masks, tables = ((f"by_{way}" for way in ("folder", "bundle")) for _ in range(2))
    ending = ENDINGS[kind.dim]
    first, second = ((commands.folder / name / f"new_00{ending}").read_bytes() for name in masks)
    assert first == second
    if kind.tasks != "none":
        first, second = ((commands.folder / name / "classification.csv").read_bytes() for name in tables)
        assert first == second
    commands.run("export", model, "model.onnx", "--fold", 0)
    stock = write_stock_model(model, commands.folder / "nnUNetTrainer__nnUNetPlans__stock")
    commands.run("import", stock, "stock.nnduet")
    commands.run("predict", "-i", cases / "test_images", "-o", "by_stock", "-m", "stock.nnduet", "--runtime", "torch")


def write_stock_model(model: Path, target: Path) -> Path:
    """What nnU-Net's own trainer would have left for this network: neither heads nor anything of nnDuet's in its files."""
    plans = json.loads((model / "plans.json").read_text())
    dataset = json.loads((model / "dataset.json").read_text())
    del plans["nnduet"]
    for name in ("classification", "covariates", "masks"):
        dataset.pop(name, None)
    (target / "fold_0").mkdir(parents=True)
    (target / "plans.json").write_text(json.dumps(plans))
    (target / "dataset.json").write_text(json.dumps(dataset))
    checkpoint = load_checkpoint(model / "fold_0" / "checkpoint_final.pth")
    weights = checkpoint["network_weights"]
    checkpoint["network_weights"] = {name: tensor for name, tensor in weights.items() if not name.startswith(OWN_WEIGHTS)}
    checkpoint["trainer_name"] = "nnUNetTrainer"
    checkpoint["init_args"] |= {"plans": plans, "dataset_json": dataset}
    torch.save(checkpoint, target / "fold_0" / "checkpoint_final.pth")
    return target


def benchmark(cases: Path, model: Path, commands: Commands) -> None:
    """Stock nnU-Net against nnDuet on the three test cases."""
    images = cases / "test_images"
    found = commands.run("benchmark", "-i", images, "-m", model, "-o", "speed", "--rounds", 2, "--no-cold", codes=(0, 1))
    assert found["num_cases"] == 3  # 1: what is so small need not be faster


def run_arm_here(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """What the process of an arm of the benchmark does, in this one: all of its work, and no second start of Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [timed_arm.__name__, command[-1]])
        try:
            timed_arm.main()
        except Exception:
            return subprocess.CompletedProcess(command, 1, "", traceback.format_exc())
    return subprocess.CompletedProcess(command, 0, "", "")
