"""Prediction survives rows 35 to 42 and 47 of the list of faults."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
import SimpleITK
import torch
from tiny import SPACING_MM, tiny_case, write_tiny_dataset

from nnduet import Predictor
from nnduet.errors import LockedError, ModelError, TooLargeError
from nnduet.inference.case_pass import CasePass
from nnduet.inference.folder_runs import predict_folder
from nnduet.io.files import locked
from nnduet.io.images import Geometry, write_image

pytestmark = pytest.mark.usefixtures("one_thread")

ORIENTATIONS = ("LPS", "RPS", "LAS", "LPI", "RAI", "PSL", "SLP", "IPR")


def predict_command(model: Path, images: Path, output: Path, *, before: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import sys\n{before}\nfrom nnduet.cli import main\nmain()"
    arguments = ["predict", "-m", str(model), "-i", str(images), "-o", str(output), "--device", "cpu"]
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "--net", "true"]).returncode != 0, reason="needs the rights to unshare"
)
def test_row_35_without_shared_memory_sockets_and_processes_it_predicts_as_ever(model_3d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 3) / "images"
    predict_folder(Predictor.load(model_3d, device="cpu"), images, tmp_path / "expected")
    arguments = ["predict", "-m", str(model_3d), "-i", str(images), "-o", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run(children.in_a_small_container(4096, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "expected").glob("*.nii.gz"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_row_36_one_corrupt_case_of_20_is_listed_and_the_others_are_done(model_3d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 20) / "images"
    broken = images / "case_07_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-12])
    done = predict_command(model_3d, images, tmp_path / "out")
    assert done.returncode == 3
    assert "PARTIAL: 1 of 20 cases failed" in done.stderr and "case_07 (CORRUPT:" in done.stderr
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 19
    assert list(json.loads((tmp_path / "out" / "run.json").read_text())["failed"]) == ["case_07"]


def test_row_37_a_case_beyond_the_memory_limit_is_refused_before_the_work(model_3d: Path, tmp_path: Path) -> None:
    large = Geometry((400, 512, 512), (2.0, 1.0, 1.0))
    write_image(tmp_path / "large_0000.nii.gz", np.zeros(large.shape, np.uint8), large)
    context = multiprocessing.get_context("spawn")
    arguments = (str(model_3d), str(tmp_path / "large_0000.nii.gz"), 2**29)
    child = context.Process(target=children.predict_with_little_memory, args=arguments)
    child.start()
    child.join(120)
    assert child.exitcode == 43


class Device:
    """A device that has room for ``room`` patches at once: it fails as CUDA does."""

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.refused = 0
        original = predictor.passes.of

        def of(member: Any) -> Any:
            run = original(member)

            def limited(patches: torch.Tensor, shares: torch.Tensor) -> Any:
                if len(patches) > room:
                    self.refused += 1
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                return run(patches, shares)

            return limited

        monkeypatch.setattr(predictor.passes, "of", of)


def test_row_38_a_device_without_room_for_several_patches_gets_one_at_a_time(
    model_3d: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, (image, _) = Predictor.load(model_3d, device="cpu"), tiny_case(0, 3)
    expected = predictor(image, spacing_mm=SPACING_MM[3])
    device = Device(predictor, monkeypatch, room=1)
    found = predictor(image, spacing_mm=SPACING_MM[3])
    assert device.refused == len(predictor.model.members)
    np.testing.assert_array_equal(found.segmentation, expected.segmentation)
    assert found.tasks["grade"].probabilities == pytest.approx(expected.tasks["grade"].probabilities, abs=1e-5)


def test_row_38_a_device_without_room_for_a_patch_leaves_it_to_the_cpu(model_3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, (image, _) = Predictor.load(model_3d, device="cpu"), tiny_case(0, 3)
    expected = predictor(image, spacing_mm=SPACING_MM[3])
    original = CasePass._tiles

    def on_gpu(this: CasePass, *arguments: Any, **options: Any) -> Any:
        if this is predictor.case_pass:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(this, *arguments, **options)

    monkeypatch.setattr(CasePass, "_tiles", on_gpu)
    monkeypatch.setattr(predictor.case_pass, "device", torch.device("cuda"))
    found = predictor(image, spacing_mm=SPACING_MM[3])
    np.testing.assert_array_equal(found.segmentation, expected.segmentation)


def test_row_38_a_cpu_without_room_for_a_patch_refuses_the_case(model_3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, (image, _) = Predictor.load(model_3d, device="cpu"), tiny_case(0, 3)
    Device(predictor, monkeypatch, room=0)
    with pytest.raises(TooLargeError, match=r"a patch of .* voxels does not fit"):
        predictor(image, spacing_mm=SPACING_MM[3])


def test_row_39_a_wrong_number_of_channels_is_refused_before_any_work(model_3d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 3) / "images"
    (images / "case_02_0001.nii.gz").write_bytes((images / "case_02_0000.nii.gz").read_bytes())
    with pytest.raises(ModelError, match=r"case_02: expected 1 channel\(s\) .* got 2"):
        predict_folder(Predictor.load(model_3d, device="cpu"), images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_row_40_the_mask_follows_the_anatomy_however_the_axes_are_stored(
    model_3d: Path, orientation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything around the network is real; the network itself says "organ" where the image is bright."""
    predictor = Predictor.load(model_3d, ["0"], device="cpu")
    original = predictor.passes.of

    def of(member: Any) -> Any:
        run = original(member)

        def by_brightness(patches: torch.Tensor, shares: torch.Tensor) -> Any:
            return torch.cat([-patches, patches, -10 - patches.abs()], dim=1), run(patches, shares)[1]

        return by_brightness

    monkeypatch.setattr(predictor.passes, "of", of)
    shape = np.zeros((14, 24, 30), np.int16)
    shape[3:6, 4:14, 5:25] = shape[3:12, 4:9, 5:11] = 1  # no two of its sides are alike
    image = SimpleITK.GetImageFromArray((20 + 200 * shape).astype(np.int16))
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetOrigin((-7.0, 30.0, 11.0))
    (tmp_path / "images").mkdir()
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, orientation), str(tmp_path / "images" / "case_0000.nii.gz"))
    predict_folder(predictor, tmp_path / "images", tmp_path / "out")
    mask = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(tmp_path / "out" / "case.nii.gz")), "LPS")
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
    found = SimpleITK.GetArrayFromImage(mask)
    middles = [np.argwhere(array).mean(axis=0) * (2.0, 1.0, 1.0) for array in (found, shape)]
    np.testing.assert_allclose(
        middles[0], middles[1], atol=1.0
    )  # mm; turned axes are resampled more coarsely, so that edges move a little
    assert 2 * (found * shape).sum() / (found.sum() + shape.sum()) > 0.8


def test_row_41_a_full_output_disk_is_an_error_and_leaves_no_final_file(model_3d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 2) / "images"
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY and hasattr(signal, "SIGXFSZ")
    done = predict_command(model_3d, images, tmp_path / "out", before=limit)
    assert done.returncode == 1
    assert "DISK_FULL" in done.stderr.splitlines()[-2]
    assert [p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".nnduet-lock")] == []


def test_row_42_what_the_model_wrote_is_replaced_case_by_case_and_other_masks_are_left(model_3d: Path, tmp_path: Path) -> None:
    predictor, images = Predictor.load(model_3d, device="cpu"), write_tiny_dataset(tmp_path / "user", 3, 2) / "images"
    predict_folder(predictor, images, tmp_path / "expected")
    predict_folder(predictor, images, tmp_path / "out")
    for name in ("case_00.nii.gz", "another.nii.gz", "classification.csv"):
        (tmp_path / "out" / name).write_text("old")
    predict_folder(predictor, images, tmp_path / "out")
    for name in ("case_00.nii.gz", "classification.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    assert (tmp_path / "out" / "another.nii.gz").read_text() == "old"


def test_row_42_a_second_writer_is_refused(model_3d: Path, tmp_path: Path) -> None:
    predictor, images = Predictor.load(model_3d, device="cpu"), write_tiny_dataset(tmp_path / "user", 3, 2) / "images"
    with locked(tmp_path / "out"), pytest.raises(LockedError, match="another process is writing here"):
        predict_folder(predictor, images, tmp_path / "out")
    predict_folder(predictor, images, tmp_path / "out")


@pytest.mark.slow
def test_after_kill_9_the_same_command_with_resume_completes_the_folder(model_3d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 12) / "images"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from nnduet.inference.folder_runs import predict_folder\n"
        "from nnduet.inference.predictor import Predictor\n"
        "def die(done, total, text):\n"
        "    done == 5 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "model, images, output = sys.argv[1:]\n"
        "predict_folder(Predictor.load(model, device='cpu'), Path(images), Path(output), progress=die)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(model_3d), str(images), str(tmp_path / "out")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert 0 < len(list((tmp_path / "out").glob("*.nii.gz"))) < 12
    assert not (tmp_path / "out" / "run.json").exists()
    command = [sys.executable, "-m", "nnduet.cli", "predict", "-m", str(model_3d), "-i", str(images), "--device", "cpu", "-o"]
    subprocess.run([*command, str(tmp_path / "out"), "--resume"], check=True, stderr=subprocess.DEVNULL)
    subprocess.run([*command, str(tmp_path / "whole")], check=True, stderr=subprocess.DEVNULL)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.name.endswith((".nii.gz", ".csv"))}
        for name in ("out", "whole")
    )
    assert first == second and len(first) == 12 + 3  # masks and tables


def test_row_47_prediction_and_its_imports_open_no_connection(tmp_path: Path) -> None:
    """An audit hook of the interpreter refuses every connection and every look-up of a name."""
    z, y, x = np.ogrid[:8, :32, :32]
    image = np.where((z - 4) ** 2 + (y - 16) ** 2 + (x - 16) ** 2 < 30, 30, -850).astype(np.int16)
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "ball_0000.nii.gz", image, Geometry(image.shape, (1.5, 0.7, 0.7)))
    refuse = (
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'urllib.Request'):\n"
        "        raise SystemExit(f'network: {event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
    )
    done = predict_command(Path("lidc-nodule"), tmp_path / "images", tmp_path / "out", before=refuse)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "ball.nii.gz").is_file() and os.path.isfile(tmp_path / "out" / "run.json")
