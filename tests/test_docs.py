"""Every command line that README and docs print runs as printed, in a folder like a user's.

The lines of a page run in their order, in this process, in a folder that holds what the page takes for granted. What would take
minutes is made smaller, and said here: networks of the ``cpu`` preset, one epoch of two iterations. Lines that cannot run
everywhere are parsed only, each for the reason below.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny import tiny_case, write_stock_model, write_tiny_dataset, write_tiny_model
from typer.testing import CliRunner

import nnduet
from nnduet.cli import app
from nnduet.datasets.phantom import write_phantom
from nnduet.io.images import Geometry, write_segmentation

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")))
NOT_RUN = {
    "make": "CI runs the targets",
    "python3": "makes a virtual environment",
    "source": "activates it",
    "pip": "installs from the network",
    "torchrun": "wants several GPUs",
    "nnUNetv2_train": "tests/test_stock_commands.py runs stock nnU-Net",
    "nnduet benchmark": "starts a process per arm and round: tests/benchmark/test_speed.py",
}
SETTINGS: dict[str, Any] = {"iterations_per_epoch": 2, "validation_iterations": 1}
MODEL_OF = "nnduet_data/nnUNet_results/Dataset{}/nnUNetTrainerMultitask__nnDuetCpuPlans__3d_fullres"
NUM_CASES = 10


def _lines(page: str) -> list[str]:
    """The command lines of the bash blocks, those that end with a backslash joined with the next."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)
    lines = re.sub(r"\\\n\s*", "", "".join(blocks)).splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def _reason_not_to_run(words: list[str]) -> str | None:
    return next((why for start, why in NOT_RUN.items() if words[: len(start.split())] == start.split()), None)


def _faster(words: list[str]) -> list[str]:
    """The same command with a small network and one epoch."""
    words = ["cpu" if before == "--preset" else word for before, word in zip(["", *words], words, strict=False)]
    words = ["1" if before == "--epochs" else word for before, word in zip(["", *words], words, strict=False)]
    needs_epochs = words[0] in ("train", "cross-validate") and "--epochs" not in words
    return words + ["--epochs", "1"] * needs_epochs + ["--device", "cpu"] * (words[0] in ("train", "predict"))


class Shell:
    """Runs lines as a shell in ``folder`` would, commands of nnDuet in this process."""

    def __init__(self, before: Callable[[list[str]], None]) -> None:
        self.before = before
        self.ran: list[str] = []

    def run(self, line: str) -> None:
        line = re.sub(r"\$\(nnduet (.*?)\)", lambda inner: self._nnduet(inner[1].split()).strip(), line)
        words = [os.path.expandvars(word) for word in shlex.split(line, comments=True)]
        variables = words[1:] if words[0] == "export" else words
        if all(re.match(r"\w+=", word) for word in variables):
            os.environ.update({name: value for name, _, value in (word.partition("=") for word in variables)})
        elif _reason_not_to_run(words):
            self._parse(words)
        else:
            assert words[0] == "nnduet", f"{line}: neither nnduet nor listed as one that is not run"
            self.before(words[1:])
            self._nnduet(_faster(words[1:]))
            self.ran.append(line)

    def _nnduet(self, arguments: list[str]) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"nnduet {shlex.join(arguments)}\n{result.output[-2000:]}\n{result.exception!r}"
        return result.stdout

    def _parse(self, words: list[str]) -> None:
        name = "nnduet" if words[0] == "nnduet" else "nnduet.cli"
        if name in words:
            name, *arguments = words[words.index(name) + 1 :]
            command: Any = typer.main.get_command(app)
            command.commands[name].make_context(name, arguments)


def _write_answers(path: Path, *, identifier: str = "case_id", num_cases: int = NUM_CASES) -> None:
    """A table of the tiny cases with every column that the pages name."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([identifier, "grade", "malignant", "patient_id", "age", "psa"])
        table.writerows(
            [f"case_{n:02d}", 1 + n % 3, ("no", "yes")[n % 2], f"p{n}", 40 + 2.5 * n, 0.5 * n] for n in range(num_cases)
        )


def _write_cases(folder: Path, num_cases: int = NUM_CASES) -> None:
    write_tiny_dataset(folder, 3, num_cases)
    _write_answers(folder / "cases.csv", num_cases=num_cases)


def _readme() -> None:
    _write_cases(Path("my_cases"))
    shutil.copytree("my_cases/images", "new_images")
    shutil.copytree("my_cases/images", "IMAGES")
    shutil.copytree("my_cases/labels", "true_masks")
    shutil.copy("my_cases/cases.csv", "true_answers.csv")


def _before_readme(words: list[str]) -> None:
    if words[0] == "predict" and "MODEL_FOLDER" in words:
        shutil.copytree(MODEL_OF.format("007_Liver"), "MODEL_FOLDER")
        shutil.copy("new_images/case_00_0000.nii.gz", "case_0000.nii.gz")


def _tutorial() -> None:
    write_phantom(Path("nnduet_demo/images"), num_train=12, num_validation=3, num_test=3, seed=1, size=(12, 32, 36))
    _write_cases(Path("FOLDER"))
    table = Path("FOLDER/cases.csv")
    table.write_text(table.read_text().replace("malignant", "COLUMN", 1))


def _converting() -> None:
    _write_cases(Path("my_cases"))
    acdc = write_tiny_dataset(Path("acdc"), 3, NUM_CASES)
    shutil.copytree(acdc / "labels", acdc / "labels_ES")
    (acdc / "cases.csv").write_text("case_id,group\n" + "".join(f"case_{n:02d},{'AB'[n % 2]}\n" for n in range(NUM_CASES)))
    write_phantom(Path("challenge"), num_train=12, num_validation=3, num_test=3, seed=1, size=(12, 32, 36))


def _trained(options: str, training: str, num_cases: int = NUM_CASES) -> None:
    """Dataset 2, planned; its model as MODEL."""
    shell = Shell(lambda words: None)
    _write_cases(Path("user"), num_cases)
    shell.run(f"nnduet convert user --dataset-id 2 --name Two --task grade:ordinal --task malignant {options}")
    shell.run("nnduet plan 2 --preset cpu --configuration 3d_fullres")
    shell.run(training)
    shutil.copytree(MODEL_OF.format("002_Two"), "MODEL")


def _training() -> None:
    _trained("--num-folds 2", "nnduet cross-validate 2 3d_fullres")
    shutil.rmtree("nnduet_data/nnUNet_results")
    shutil.copy("nnduet_data/nnUNet_raw/Dataset002_Two/classification_labels.csv", "corrected.csv")


def _before_training(words: list[str]) -> None:
    folder = Path("nnduet_data/nnUNet_preprocessed/Dataset002_Two")
    if "nnUNetPlans" in words:
        plans = json.loads((folder / "nnDuetCpuPlans.json").read_text())
        (folder / "nnUNetPlans.json").write_text(json.dumps(plans | {"plans_name": "nnUNetPlans"}))
    else:
        (folder / "nnUNetPlans.json").unlink(missing_ok=True)  # or train would ask which
    if words[:1] == ["cross-validate"] and "--resume" not in words:
        shutil.rmtree("nnduet_data/nnUNet_results")


def _predicting() -> None:
    # 20 training cases, so that the outlier score is known; few to predict
    _trained("--covariate age --covariate psa --num-folds 5", "nnduet train 2 3d_fullres --fold 0", num_cases=25)
    Path("IMAGES").mkdir()
    for number in range(3):
        shutil.copy(f"user/images/case_{number:02d}_0000.nii.gz", "IMAGES")
    for place in ("IMAGES/case_0000.nii.gz", "case_0000.nii.gz"):
        shutil.copy("user/images/case_00_0000.nii.gz", place)
    _write_answers(Path("cases.csv"), identifier="scan")
    write_stock_model(write_tiny_model(Path("tiny"), 3), Path("nnUNetTrainer__nnUNetPlans__3d_fullres"))


def _before_predicting(words: list[str]) -> None:
    if "OUT" in words and "--resume" not in words:
        shutil.rmtree("OUT", ignore_errors=True)


def _looking() -> None:
    _trained("--num-folds 2", "nnduet cross-validate 2 3d_fullres")
    shell = Shell(lambda words: None)
    shell.run("nnduet predict -i user/images -o answers -m MODEL")
    shell.run("nnduet evaluate -p answers -m MODEL -r user/labels --table user/cases.csv -o metrics")
    for name in ("RUN_A", "RUN_B"):
        shutil.copytree("metrics", name)
    _write_answers(Path("cases.csv"))
    shutil.copy("user/images/case_00_0000.nii.gz", "case_0000.nii.gz")
    for name in ("case.nii.gz", "truth.nii.gz"):
        write_segmentation(Path(name), tiny_case(0, 3)[1], Geometry((12, 20, 20), (2.0, 1.0, 1.0)))


def _nothing() -> None:
    pass


def _ignore(words: list[str]) -> None:
    pass


USERS = {
    "README.md": (_readme, _before_readme),
    "docs/tutorial.md": (_tutorial, _ignore),
    "docs/how-to-convert.md": (_converting, _ignore),
    "docs/how-to-train.md": (_training, _before_training),
    "docs/how-to-predict.md": (_predicting, _before_predicting),
    "docs/how-to-look.md": (_looking, _ignore),
}
"""By page: what a user has there when the page begins, and what else is done before a line."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[Path]:
    """The current folder; the environment and the small settings are undone afterwards."""
    from nnduet.training import planners

    planner, settings = planners.PRESETS["cpu"]
    monkeypatch.setitem(planners.PRESETS, "cpu", (planner, dataclasses.replace(settings, **SETTINGS)))
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "MODEL"):
        os.environ.pop(name, None)
    os.environ |= {"PWD": str(tmp_path), "nnUNet_n_proc_DA": "0"}
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if _lines(page)])
def test_row_115_every_command_line_of_a_page_runs_as_printed(page: str, folder: Path) -> None:
    prepare, before = USERS.get(page, (_nothing, _ignore))
    prepare()
    shell = Shell(before)
    for line in _lines(page):
        shell.run(line)
    assert shell.ran
    known = {"nnduet": nnduet}  # a page's blocks follow each other, as its command lines do
    for code in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M):
        exec(compile(code, page, "exec"), known)


def test_row_115_every_line_that_is_not_run_is_still_in_a_page() -> None:
    words = [shlex.split(line, comments=True) for page in PAGES for line in _lines(page)]
    for start in NOT_RUN:
        assert any(line[: len(start.split())] == start.split() for line in words), start


def test_no_page_or_docstring_points_at_what_is_not_in_the_repository() -> None:
    """Links of the pages, and notes of the developers that lie outside of it."""
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            inside = (ROOT / page).parent.joinpath(link).resolve()
            assert "://" in link or (inside.exists() and inside.is_relative_to(ROOT)), f"{page}: {link}"
    sources = [path for folder in ("src/nnduet", "benchmarks", "docs", ".ci") for path in (ROOT / folder).rglob("*.*")]
    for path in [path for path in sources if path.suffix in (".py", ".md")]:
        assert not re.search(r"shared/[A-Z]+\.md", path.read_text(encoding="utf-8")), path


def test_row_115_the_make_targets_that_are_named_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    named = [line.split()[1] for page in PAGES for line in _lines(page) if line.startswith("make ")]
    assert named and set(named) <= set(targets)
