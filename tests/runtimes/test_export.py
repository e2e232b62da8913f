"""Models leave as one file: a bundle, or an ONNX graph; stock models come in as bundles."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny import (
    SHAPES,
    SPACING_MM,
    Canary,
    change_weights,
    tiny_network,
    write_stock_model,
    write_tiny_dataset,
    write_tiny_model,
)

from nnduet import Predictor
from nnduet.errors import DiskFullError, ModelError, SettingsError
from nnduet.inference.folder_runs import predict_folder
from nnduet.model_store.model_folder import load_model
from nnduet.model_store.shipped_models import open_model
from nnduet.network.heads import task_probabilities
from nnduet.runtimes.all_runtimes import find_runtime
from nnduet.runtimes.converted import keep, private_folder
from nnduet.runtimes.export import export_model, import_stock_model
from nnduet.runtimes.openvino.openvino_graph import openvino_graph
from nnduet.schema import Task

FINAL = "checkpoint_final.pth"


@pytest.fixture
def stock(model_3d: Path, tmp_path: Path) -> Path:
    """The 3d model as nnU-Net's own trainer would have left it."""
    return write_stock_model(model_3d, tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres")


def test_a_stock_model_segments_as_before_and_answers_nothing(stock: Path, model_3d: Path, tmp_path: Path) -> None:
    summary = import_stock_model(stock, tmp_path / "stock.nnduet")
    assert summary["folds"] == ["0", "1"]
    image = np.random.default_rng(0).normal(60, 20, SHAPES[3]).astype(np.float32)
    predicted = Predictor.load(tmp_path / "stock.nnduet")(image, spacing_mm=SPACING_MM[3])
    np.testing.assert_array_equal(
        predicted.segmentation, Predictor.load(model_3d)(image, spacing_mm=SPACING_MM[3]).segmentation
    )
    assert predicted.tasks == {}


def test_an_imported_model_predicts_a_folder_without_classes(stock: Path, tmp_path: Path) -> None:
    import_stock_model(stock, tmp_path / "stock.nnduet")
    images = write_tiny_dataset(tmp_path / "user", 3, 2) / "images"
    predict_folder(Predictor.load(tmp_path / "stock.nnduet"), images, tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith("."))
    assert names == ["case_00.nii.gz", "case_01.nii.gz", "cases.jsonl", "run.json"]


def test_one_checkpoint_is_imported_alone(stock: Path, tmp_path: Path) -> None:
    assert import_stock_model(stock / "fold_1" / FINAL, tmp_path / "one.nnduet")["folds"] == ["1"]


def test_a_model_of_nnduet_is_not_imported_without_its_answers(model_3d: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nnduet export"):
        import_stock_model(model_3d, tmp_path / "bad.nnduet")


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", f"fold_0/{FINAL}"])
def test_an_incomplete_stock_model_is_refused(stock: Path, tmp_path: Path, name: str) -> None:
    (stock / name).unlink()
    shutil.rmtree(stock / "fold_1")
    with pytest.raises(ModelError, match=Path(name).name):
        import_stock_model(stock, tmp_path / "bad.nnduet")
    assert not (tmp_path / "bad.nnduet").exists()


def test_weights_of_another_network_are_refused(stock: Path, tmp_path: Path) -> None:
    change_weights(stock / "fold_1" / FINAL, lambda weights: {**weights, "classifier.weight": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"fold 1 does not fit its plans: missing \[\], unknown \['classifier\.weight'\]"):
        import_stock_model(stock, tmp_path / "bad.nnduet")


def test_code_in_a_stock_checkpoint_is_not_run(stock: Path, tmp_path: Path) -> None:
    torch.save({"network_weights": {}, "init_args": Canary(tmp_path / "canary")}, stock / "fold_0" / FINAL)
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        import_stock_model(stock, tmp_path / "bad.nnduet")
    assert not (tmp_path / "canary").exists()


def test_an_onnx_file_has_both_outputs_and_needs_onnx_runtime_alone(model_3d: Path, tmp_path: Path) -> None:
    summary = export_model(model_3d, tmp_path / "fold.onnx", ["1"])
    assert list(summary["inputs"]) == ["image", "share"]
    assert {"logits", "volumes", "task_grade", "task_age"} <= set(summary["outputs"])
    program = (
        "import sys, numpy, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(tmp_path / 'fold.onnx')!r})\n"
        "zeros = {i.name: numpy.ones(i.shape, numpy.float32) for i in session.get_inputs()}\n"
        "logits, grade = session.run(['logits', 'task_grade'], zeros)\n"
        "assert numpy.isfinite(logits).all() and abs(grade.sum() - 1) < 1e-5\n"
        "assert not {'torch', 'nnunetv2', 'nnduet'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


EVERY_TYPE = (
    Task("grade", "binary", ("high", "low")),
    Task("kind", "multiclass", ("a", "b", "c")),
    Task("stage", "ordinal", ("I", "II", "III", "IV")),
    Task("age in years", "regression"),
)


def answers_of_torch_and_onnx(model: Path | str, file: Path, fold: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """{task: what a fold's network says of one random patch}, of torch and of the exported file."""
    loaded = load_model(open_model(model), [fold])
    session = onnxruntime.InferenceSession(file)
    shape = session.get_inputs()[0].shape
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    shares = torch.ones(shape[0], 1, *shape[2:])
    with torch.inference_mode():
        logits, sums = loaded.network.eval().forward_joint(image, shares)
        answers = loaded.network.heads(sums.features())
    expected = {"logits": logits.numpy()} | {
        f"task_{t.name}": (task_probabilities(t, answers[t.name]) if t.is_classification else answers[t.name]).numpy()
        for t in loaded.tasks
    }
    found = session.run(list(expected), {"image": image.numpy(), "share": shares.numpy()})
    return expected, dict(zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("dim", "channels", "masks", "tasks"),
    [(2, 3, (), EVERY_TYPE), (3, 2, ("first", "second"), EVERY_TYPE[2:]), (2, 1, (), ())],
)
def test_row_66_an_onnx_file_of_every_task_answers_as_torch(
    dim: int, channels: int, masks: tuple[str, ...], tasks: tuple[Task, ...], tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "model", dim, num_channels=channels, masks=masks, tasks=tasks)
    change_weights(model / "fold_0" / FINAL, with_crossing_thresholds)
    export_model(model, tmp_path / "fold.onnx")
    expected, found = answers_of_torch_and_onnx(model, tmp_path / "fold.onnx", "0")
    assert list(expected) == ["logits", *(f"task_{task.name}" for task in tasks)]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)
    if tasks:
        assert found["task_stage"][0, 1] == 0  # the second threshold lies above the first, and is held to it


def with_crossing_thresholds(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights with which P(y > 1) of the stage would be larger than P(y > 0)."""
    return {name: torch.tensor([-1.0, 3.0, -2.0]) if name.endswith("task_stage.bias") else t for name, t in weights.items()}


def test_row_66_the_shipped_model_answers_as_torch(tmp_path: Path) -> None:
    export_model("lidc-nodule", tmp_path / "nodule.onnx", ["0"])
    expected, found = answers_of_torch_and_onnx("lidc-nodule", tmp_path / "nodule.onnx", "0")
    assert len(expected) > 1
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-3, err_msg=name)


def test_an_onnx_file_of_several_folds_is_refused(model_3d: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"one fold; name one of \['0', '1'\]"):
        export_model(model_3d, tmp_path / "folds.onnx")


@pytest.mark.parametrize("name", ["model.zip", "model", "model.pth"])
def test_another_ending_is_refused(model_3d: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=r"expected a name ending in \.nnduet"):
        export_model(model_3d, tmp_path / name)
    with pytest.raises(SettingsError, match=r"expected a name ending in \.nnduet"):
        import_stock_model(model_3d, tmp_path / name)


READERS = [
    ("plans.json", {"image_reader_writer": "NibabelIO"}, "NibabelIO"),
    ("plans.json", {"image_reader_writer": "NibabelIOWithReorient"}, "NibabelIOWithReorient"),
    ("plans.json", {"image_reader_writer": "Tiff3DIO"}, "Tiff3DIO"),
    ("dataset.json", {"file_ending": ".nrrd"}, ".nrrd"),
    ("dataset.json", {"file_ending": ".bmp"}, ".bmp"),
]


@pytest.mark.parametrize(("name", "change", "said"), READERS)
def test_row_96_a_stock_model_whose_images_are_not_read_is_refused_before_anything_is_written(
    stock: Path, tmp_path: Path, name: str, change: dict[str, Any], said: str
) -> None:
    content = json.loads((stock / name).read_text())
    (stock / name).write_text(json.dumps(content | change))
    with pytest.raises(ModelError, match=said):
        import_stock_model(stock, tmp_path / "stock.nnduet")
    assert not list(tmp_path.glob("*.nnduet"))


def test_row_96_a_stock_model_of_colour_pictures_is_refused(tmp_path: Path) -> None:
    model = write_stock_model(
        write_tiny_model(tmp_path / "model", 2, num_channels=3), tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    )
    description = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps(description | {"channel_names": {"0": "R", "1": "G", "2": "B"}}))
    with pytest.raises(ModelError, match="pictures in colour"):
        import_stock_model(model, tmp_path / "stock.nnduet")


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """As on a full disk, no file can grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["model.nnduet", "model.onnx"])
def test_row_140_a_full_disk_while_exporting_leaves_what_was_there(name: str, model_2d: Path, tmp_path: Path) -> None:
    target = tmp_path / name
    target.write_bytes(b"before")
    with no_file_over(40_000), pytest.raises(DiskFullError):
        export_model(model_2d, target)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"before"}
    assert export_model(model_2d, target)["bytes"] == target.stat().st_size > 40_000


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_row_140_a_full_disk_while_converting_leaves_nothing(runtime: str, tmp_path: Path) -> None:
    found = find_runtime(runtime)
    assert found is not None and found.conversion is not None
    conversion = found.conversion
    place, name = private_folder(tmp_path / "kept"), f"a{conversion.endings[-1]}"
    save = conversion.convert(tiny_network(2), (1, 1, 16, 16), "float32")
    with no_file_over(20_000):
        assert keep(place, name, save) is None
    assert [path.name for path in place.folder.iterdir() if path.name != ".nnduet-lock"] == []
    assert keep(place, name, save) == place.folder / name


def test_row_87_exports_and_conversions_sync_only_what_they_may_write(
    model_2d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to sync what is open for reading."""
    fsync = os.fsync

    def strict(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", strict)
    export_model(model_2d, tmp_path / "model.nnduet")
    save = openvino_graph(tiny_network(2), (1, 1, 16, 16), "float32")
    assert keep(private_folder(tmp_path / "kept"), "a.xml", save)
