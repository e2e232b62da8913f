"""Converted networks answer as torch does."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import pytest
import torch
from tiny import SPACING_MM, TASKS, tiny_case, tiny_network

from nnduet.errors import SettingsError
from nnduet.inference.predictor import Predictor
from nnduet.network.heads import task_probabilities
from nnduet.runtimes import joint_graph, member_passes
from nnduet.runtimes.all_runtimes import RUNTIMES
from nnduet.runtimes.joint_pass import JointPass
from nnduet.runtimes.member_passes import patches_per_pass
from nnduet.runtimes.onnx_graph import write_onnx
from nnduet.runtimes.runtime import PassSpec
from nnduet.runtimes.torch_runtime import torch_pass

CPU = torch.device("cpu")
CONVERTING = {runtime.name: runtime for runtime in RUNTIMES if runtime.conversion}


def converted_pass(
    network: Any, shape: tuple[int, ...], folder: Path, runtime: str = "openvino", precision: str = "float32", streams: int = 1
) -> JointPass:
    """The network, converted into ``folder`` and opened."""
    conversion = CONVERTING[runtime].conversion
    assert conversion is not None
    path = folder / f"network{conversion.endings[-1]}"
    conversion.convert(network, shape, precision)(path)
    return CONVERTING[runtime].joint_pass(PassSpec(network, CPU, shape, precision, streams), path)


@pytest.fixture
def folder(model_3d: Path, tmp_path: Path) -> Path:
    """A copy of the 3d model, into which converted networks may be written."""
    return Path(shutil.copytree(model_3d, tmp_path / "model"))


@pytest.mark.parametrize("runtime", CONVERTING)
@pytest.mark.parametrize("dim", [2, 3])
def test_a_converted_network_gives_the_same_logits_and_sums(runtime: str, dim: int, tmp_path: Path) -> None:
    network, shape = tiny_network(dim).eval(), (4, 1, *[8] * dim)
    converted = converted_pass(network, shape, tmp_path, runtime)
    for number in (4, 3):  # a last batch that is not full
        patches, shares = torch.randn(number, *shape[1:]), torch.rand(number, 1, *shape[2:])
        with torch.inference_mode():
            logits, sums = torch_pass(network.forward_joint, CPU)(patches, shares)
        found, found_sums = converted(patches, shares)
        torch.testing.assert_close(found, logits, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found_sums.features(), sums.features(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("number", [4, 3, 1])
def test_batches_side_by_side_give_the_same_logits_and_sums(number: int, tmp_path: Path) -> None:
    network = tiny_network(3).eval()
    converted = converted_pass(network, (2, 1, 8, 8, 8), tmp_path, streams=2)
    patches, shares = torch.randn(number, 1, 8, 8, 8), torch.rand(number, 1, 8, 8, 8)
    with torch.inference_mode():
        logits, sums = torch_pass(network.forward_joint, CPU)(patches, shares)
    found, found_sums = converted(patches, shares)
    torch.testing.assert_close(found, logits, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found_sums.features(), sums.features(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_network_converted_for_bfloat16_computes_the_same(dim: int, tmp_path: Path) -> None:
    network, shape = tiny_network(dim).eval(), (1, 1, *[8] * dim)
    converted = converted_pass(network, shape, tmp_path, precision="bfloat16")
    patches, shares = torch.randn(shape), torch.ones(shape)
    with torch.inference_mode():
        logits, sums = torch_pass(network.forward_joint, CPU)(patches, shares)
    found, found_sums = converted(patches, shares)
    assert (found - logits).abs().max() < 0.05 * logits.abs().max()  # each of some layers rounds to eight bits
    torch.testing.assert_close(found_sums.volumes, sums.volumes, atol=5.0, rtol=0.02)


def test_batches_are_computed_side_by_side_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    openvino = CONVERTING["openvino"]
    assert openvino.num_streams("bfloat16", 8) == 2
    assert openvino.num_streams("bfloat16", 1) == openvino.num_streams("float32", 8) == 1
    assert [runtime.num_streams("bfloat16", 8) for runtime in RUNTIMES if runtime is not openvino] == [1, 1, 1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert openvino.num_streams("bfloat16", 8) == 1


@pytest.mark.parametrize("runtime", CONVERTING)
def test_a_prediction_does_not_depend_on_the_runtime(runtime: str, folder: Path) -> None:
    image, _ = tiny_case(0, 3)
    expected = Predictor.load(folder, device="cpu", runtime="torch", precision="float32")(image, spacing_mm=SPACING_MM[3])
    found = Predictor.load(folder, device="cpu", runtime=runtime, precision="float32")(image, spacing_mm=SPACING_MM[3])
    np.testing.assert_array_equal(found.segmentation, expected.segmentation)
    assert found.tasks["grade"].probabilities == pytest.approx(expected.tasks["grade"].probabilities, abs=1e-3)
    assert found.tasks["age"].value == pytest.approx(expected.tasks["age"].value, rel=1e-3)


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch compiles with the system's C++ compiler")
def test_a_compiled_network_answers_the_same_for_every_fold(folder: Path) -> None:
    image, _ = tiny_case(0, 3)
    expected = Predictor.load(folder, device="cpu", runtime="torch", precision="float32")(image, spacing_mm=SPACING_MM[3])
    found = Predictor.load(folder, device="cpu", runtime="torch-compile", precision="float32")(image, spacing_mm=SPACING_MM[3])
    np.testing.assert_array_equal(found.segmentation, expected.segmentation)
    assert found.tasks["grade"].probabilities == pytest.approx(expected.tasks["grade"].probabilities, abs=1e-3)


def test_without_a_compiler_compiling_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    torch.compiler.reset()
    predictor = Predictor.load(folder, ["0"], device="cpu", runtime="torch-compile", precision="float32")
    with pytest.raises(SettingsError, match=r"runtime torch-compile: torch could not compile the network: .*; use torch"):
        predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3])


def test_a_converted_network_is_kept_and_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = tiny_case(0, 3)
    Predictor.load(folder, device="cpu", runtime="openvino")(image, spacing_mm=SPACING_MM[3])
    assert len(list((folder / "converted").glob("*.xml"))) == 2  # one for each fold
    monkeypatch.setattr("nnduet.runtimes.openvino.openvino_graph.openvino_graph", None)
    again = Predictor.load(folder, device="cpu")
    assert again.passes.name == "openvino"
    again(image, spacing_mm=SPACING_MM[3])


def test_other_weights_are_converted_anew(folder: Path) -> None:
    image, _ = tiny_case(0, 3)
    Predictor.load(folder, ["0"], device="cpu", runtime="openvino")(image, spacing_mm=SPACING_MM[3])
    path = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    next(iter(checkpoint["network_weights"].values())).add_(0.1)
    torch.save(checkpoint, path)
    assert Predictor.load(folder, ["0"], device="cpu").passes.name == "torch"
    Predictor.load(folder, ["0"], device="cpu", runtime="openvino")(image, spacing_mm=SPACING_MM[3])
    assert len(list((folder / "converted").glob("*.xml"))) == 2


def test_another_version_of_the_converter_converts_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = tiny_case(0, 3)
    for number in (1, 2):
        monkeypatch.setattr(joint_graph, "CONVERTER_VERSION", number)
        Predictor.load(folder, ["0"], device="cpu", runtime="openvino")(image, spacing_mm=SPACING_MM[3])
        assert len(list((folder / "converted").glob("*.xml"))) == number


def test_auto_is_torch_for_a_small_network_that_was_never_converted(folder: Path) -> None:
    assert Predictor.load(folder, device="cpu").passes.name == "torch"


def test_auto_converts_a_large_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_passes, "WORTH_CONVERTING", 1)
    assert Predictor.load(folder, device="cpu").passes.name == "openvino"


def test_auto_is_torch_without_openvino(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_passes, "WORTH_CONVERTING", 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Predictor.load(folder, device="cpu").passes.name == "torch"
    with pytest.raises(SettingsError, match=r"runtime onnx: needs onnxruntime, onnxscript; run `pip install nnduet\[onnx\]`"):
        Predictor.load(folder, device="cpu", runtime="onnx")


def test_an_unknown_runtime_is_refused(folder: Path) -> None:
    known = r"\('auto', 'torch', 'torch-compile', 'openvino', 'onnx'\)"
    with pytest.raises(SettingsError, match=rf"runtime: expected one of {known}, got 'fast'"):
        Predictor.load(folder, device="cpu", runtime="fast")


def test_a_format_that_a_runtime_does_not_compute_in_is_refused(folder: Path) -> None:
    for runtime, precision in (("onnx", "bfloat16"), ("openvino", "float16")):
        with pytest.raises(SettingsError, match=f"precision: runtime {runtime} on CPUs does not compute in {precision}"):
            Predictor.load(folder, device="cpu", runtime=runtime, precision=precision)
    assert Predictor.load(folder, device="cpu", runtime="onnx").passes.precision == "float32"


def test_a_runtime_that_converts_is_refused_on_other_devices(folder: Path) -> None:
    model = Predictor.load(folder, device="cpu").model
    with pytest.raises(SettingsError, match="runtime onnx: computes on CPUs, got device cuda; use torch"):
        member_passes.MemberPasses(model, torch.device("cuda"), "onnx", 1)


@pytest.mark.parametrize("dim", [2, 3])
def test_an_onnx_file_answers_without_torch(dim: int, tmp_path: Path) -> None:
    network, path = tiny_network(dim).eval(), tmp_path / "network.onnx"
    write_onnx(network, (1, 1, *[8] * dim), TASKS, path)
    session = onnxruntime.InferenceSession(path)
    image = torch.randn(1, 1, *[8] * dim)
    answers: dict[str, Any] = dict(
        zip(
            [output.name for output in session.get_outputs()],
            session.run(None, {"image": image.numpy(), "share": np.ones_like(image.numpy())}),
            strict=True,
        )
    )
    with torch.inference_mode():
        logits, sums = network.forward_joint(image, torch.ones_like(image))
        outputs = network.heads(sums.features())
    np.testing.assert_allclose(answers["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(answers["task_grade"], task_probabilities(TASKS[0], outputs["grade"]), atol=1e-4)
    np.testing.assert_allclose(answers["task_age"], outputs["age"], atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


@pytest.mark.parametrize(
    ("patch", "mirrored", "device", "expected"),
    [
        ((8, 8, 8), 8, "cpu", 8),
        ((8, 8, 8), 1, "cpu", 1),
        ((64, 128, 192), 8, "cpu", 1),
        ((7, 48, 200), 8, "cpu", 4),
        ((64, 128, 192), 8, "cuda", 2),
    ],
)
def test_a_batch_is_a_power_of_two(patch: tuple[int, ...], mirrored: int, device: str, expected: int) -> None:
    assert patches_per_pass(patch, mirrored, torch.device(device)) == expected


def test_a_single_fold_that_was_converted_holds_its_weights_once(folder: Path) -> None:
    image, _ = tiny_case(0, 3)
    expected = Predictor.load(folder, ["0"], device="cpu", runtime="torch")(image, spacing_mm=SPACING_MM[3])
    predictor = Predictor.load(folder, ["0"], device="cpu", runtime="openvino")
    for _ in range(2):
        found = predictor(image, spacing_mm=SPACING_MM[3])
        assert found.tasks["grade"].probabilities == pytest.approx(expected.tasks["grade"].probabilities, abs=1e-3)
    assert sum(p.numel() for p in predictor.network.encoder.parameters()) == 0
    assert not predictor.model.members[0].weights


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the memory is left to the system")
def test_the_files_of_a_converted_network_take_no_memory_beside_it(folder: Path) -> None:
    """In bfloat16 OpenVINO computes with copies of all weights; in float32 it reads some from the file again."""
    image, _ = tiny_case(0, 3)
    predictor = Predictor.load(folder, ["0"], device="cpu", runtime="openvino", precision="bfloat16")
    predictor(image, spacing_mm=SPACING_MM[3])
    origin = predictor.model.members[0].origin
    assert origin is not None and origin.converted is not None
    kept = origin.converted.resolve()
    files = [part for part in psutil.Process().memory_maps(grouped=False) if Path(part.path).parent == kept]
    assert files and sum(part.rss for part in files) == 0
