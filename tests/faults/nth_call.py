"""Run a stage of the road again and again, each time with another open, write or fsync that fails: row 62.

    LD_PRELOAD=failing.so python nth_call.py STAGE FOLDER MOST

Forks a process per failing call (at most MOST, spread over all of them) from one that has imported everything. After each:
the error must be one that nnDuet or the system names; every file under a final name must be one of the undisturbed run; and
the same command again must complete what that run gave. Prints the number of calls, of those that failed, and what broke.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from small_dataset import edit_plans, write_volumes
from tiny import tiny_case, write_tiny_model

from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.errors import NNDuetError, ResumeError
from nnduet.evaluation.evaluate import evaluate
from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.predictor import Predictor
from nnduet.io.files import is_temporary
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_image
from nnduet.model_store.bundles import write_bundle
from nnduet.model_store.folder_files import FolderFiles, load_checkpoint
from nnduet.records import read_json
from nnduet.report.page import write_report
from nnduet.report.runs import read_run
from nnduet.runtimes.export import export_model
from nnduet.schema import Workspace
from nnduet.training.checkpoints import FINAL, LATEST, PREVIOUS
from nnduet.training.ingredients import INGREDIENTS_FILE, Ingredients
from nnduet.training.planning import plan
from nnduet.training.run import train

OPEN, WRITE, SYNC = 1, 2, 4
NAMED, SURPRISED = 1, 2
CHANGING = (".nnduet-written", "run.json", "cases.jsonl", "debug.json", "progress.png", "progress.csv", ".nnduet-lock")
"""Files that say when or how long; they must be whole, not equal."""
TURN_OF_A_REPORT = re.compile(r"(?<=/pictures|./volumes)/[0-9a-f]{8}-")
"""Each page has its own pictures, so that an open one keeps its."""
LIBRARY = ctypes.CDLL(None)
CASES = 3


def workspace_in(folder: Path) -> Workspace:
    return Workspace(folder / "raw", folder / "preprocessed", folder / "results")


def convert_all(given: Path, work: Path) -> None:
    source = read_folder(given / "cases", task_specs=["grade:binary"])
    convert(source, workspace=workspace_in(work), dataset_id=1, name="Small", num_folds=2)


def plan_all(given: Path, work: Path) -> None:
    plan(1, "cpu", workspace=workspace_in(work), configurations=("3d_fullres",), num_processes=1)


def train_all(given: Path, work: Path) -> None:
    def run(*, resume: bool) -> None:
        train(1, "3d_fullres", 0, workspace=workspace_in(work), epochs=2, device="cpu", resume=resume)

    fold = work / "results/Dataset001_Small/nnUNetTrainerMultitask__nnDuetCpuPlans__3d_fullres/fold_0"
    if not any(fold.glob("checkpoint_*.pth")):
        shutil.rmtree(fold, ignore_errors=True)
        run(resume=False)
        return
    try:
        run(resume=True)
    except ResumeError:  # which says: move the folder away and train again
        shutil.rmtree(fold)
        run(resume=False)


def predict_all(given: Path, work: Path) -> None:
    predict_folder(Predictor.load(given / "model", device="cpu"), given / "images", work / "out")


def evaluate_all(given: Path, work: Path) -> None:
    labels = {"background": 0, "organ": 1, "lesion": 2}
    evaluate(given / "cases" / "labels", given / "cases" / "labels", labels=labels, output=work / "out", num_bootstrap=20)


def export_all(given: Path, work: Path) -> None:
    write_bundle(FolderFiles(given / "model"), work / "model.nnduet")


def export_graph(given: Path, work: Path) -> None:
    export_model(given / "model", work / "model.onnx")


def report_all(given: Path, work: Path) -> None:
    write_report(read_run(work / "out", images=given / "cases" / "images"), work / "page", viewer_cases=1)


STAGES: dict[str, tuple[Callable[[Path, Path], None], ...]] = {
    "convert": (convert_all,),
    "plan": (convert_all, plan_all),
    "train": (convert_all, plan_all, train_all),
    "predict": (predict_all,),
    "evaluate": (evaluate_all,),
    "export": (export_all,),
    "export ONNX": (export_graph,),
    "report": (evaluate_all, report_all),
}
"""{stage: what must have run before it, then the stage itself}."""


def write_given(given: Path) -> None:
    write_volumes(given / "cases")
    write_tiny_model(given / "model", 3)
    for index in range(CASES):
        image = tiny_case(index, 3)[0]
        write_image(given / "images" / f"case_{index:02d}_0000.nii.gz", image, Geometry(image.shape, (2.0, 1.0, 1.0)))


def forked(stage: Callable[[Path, Path], None], given: Path, work: Path, position: int, number: int) -> tuple[int, int]:
    """Run a stage in a process of its own, the call of that position failing; its exit code and the number of calls."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        with open(work.parent / "said", "a", encoding="utf-8") as said:
            os.dup2(said.fileno(), 2)
            os.dup2(said.fileno(), 1)
            LIBRARY.fault_arm(str(work).encode(), OPEN | WRITE | SYNC, position, number)
            try:
                stage(given, work)
            except NNDuetError:
                code = NAMED
            except OSError as error:
                code = NAMED if error.errno else SURPRISED
                traceback.print_exc()
            except BaseException:
                code = SURPRISED
                traceback.print_exc()
            calls = LIBRARY.fault_count()
            LIBRARY.fault_arm(b"", 0, 0, 0)
        os.write(writer, str(calls).encode())
        os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    calls = int(os.read(reader, 20) or b"0")
    os.close(reader)
    return os.waitstatus_to_exitcode(status), calls


def content_of(path: Path) -> object:
    """What must be equal in two files of one name: all of it, the weights of a checkpoint, or that it is whole."""
    if path.name in CHANGING:
        return json.loads(path.read_text()) and None if path.suffix == ".json" else None
    if path.name == FINAL:
        return {name: tensor.numpy().tobytes() for name, tensor in load_checkpoint(path)["network_weights"].items()}
    if path.name.endswith(INGREDIENTS_FILE):
        made_of: Ingredients = read_json(path, Ingredients)
        cases = {case_id: [m.sha256 for m in (*files.images, files.mask)] for case_id, files in made_of.cases.items()}
        return made_of.settings, cases, made_of.labels
    if path.name == "final_metrics.json":
        metrics = json.loads(path.read_text())
        return {key: metrics[key] for key in ("tasks", "segmentation")}
    if path.suffix in (".pth", ".sha256") or path.name == "metrics.json":
        return None
    if path.name == "index.html":
        return path.read_text().rstrip().endswith("</html>")
    if path.parent.name == "volumes":
        return re.sub(rb"[0-9a-f]{8}-", b"", path.read_bytes())
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return {name: stored[name].tobytes() for name in stored.files}
    return path.read_bytes()


def tree(folder: Path) -> dict[str, object]:
    """Every file under a final name; the logs of trainings bear the time in theirs."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not is_temporary(path))
    final = (path for path in files if not any(part.endswith(".partial") for part in path.parts))
    kept = (path for path in final if not path.name.startswith("training_log"))
    return {TURN_OF_A_REPORT.sub("/", path.relative_to(folder).as_posix()): content_of(path) for path in kept}


def agrees(path: str, found: object, expected: dict[str, object]) -> bool:
    """Whether a file is one of the undisturbed run; where a case failed, a table lacks its row; checkpoints may be there."""
    if Path(path).name.startswith((LATEST, PREVIOUS)):
        return True  # a training that goes on shows what they are worth
    if path.endswith(".csv") and isinstance(found, bytes) and isinstance(whole := expected.get(path), bytes):
        return set(found.splitlines()) <= set(whole.splitlines())
    return path in expected and found == expected[path]


def faults(name: str, folder: Path, most: int) -> dict[str, object]:
    """Run the stage with each of ``most`` calls failing, every other time for want of space, else by an error of the disk."""
    *before, stage = STAGES[name]
    given, start, work = folder / "given", folder / "start", folder / "work"
    write_given(given)
    start.mkdir()
    for earlier in before:
        earlier(given, start)
    if name == "train":
        (plans,) = start.glob("preprocessed/*/nnDuetCpuPlans.json")
        edit_plans(plans, iterations_per_epoch=2, validation_iterations=1)
    shutil.copytree(start, work)
    code, calls = forked(stage, given, work, 0, 0)
    expected, problems, failed = tree(work), [], 0
    if code or not calls:
        raise SystemExit(f"undisturbed, {name} ended with {code} after {calls} calls: {(folder / 'said').read_text()[-2000:]}")
    for position in sorted({int(p) for p in np.linspace(1, calls, min(most, calls))}):
        (folder / "said").write_text("")
        shutil.rmtree(work)
        shutil.copytree(start, work)
        code, _ = forked(stage, given, work, position, (errno.EIO, errno.ENOSPC)[position % 2])
        failed += code == NAMED
        found = tree(work)
        wrong = [path for path, content in found.items() if not agrees(path, content, expected)]
        again, _ = forked(stage, given, work, 0, 0)
        found = tree(work)
        rest = [path for path in expected | found if path not in found or found[path] != expected.get(path, found[path])]
        if code not in (0, NAMED) or wrong or again or rest:
            said = (folder / "said").read_text()[-1500:]
            problems.append({"call": position, "exit": code, "wrong": wrong, "again": again, "rest": rest, "said": said})
    return {"calls": calls, "failed": failed, "problems": problems}


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(faults(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
