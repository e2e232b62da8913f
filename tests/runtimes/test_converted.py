"""A converted network is computed with only if its bytes are those that its conversion wrote, wherever it is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SPACING_MM, tiny_case

from nnduet.errors import DiskFullError
from nnduet.inference.prediction import Prediction
from nnduet.inference.predictor import Predictor
from nnduet.runtimes import cache_folder, converted
from nnduet.runtimes.converted import Place, find, keep, private_folder

IMAGE = tiny_case(0, 3)[0]
RUNTIMES = ("openvino", "onnx")
POSIX = pytest.mark.skipif(os.name != "posix", reason="Windows has other rights")


@pytest.fixture
def folder(model_3d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the 3d model, into which converted networks may be written, and a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_folder, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return Path(shutil.copytree(model_3d, tmp_path / "model"))


@pytest.fixture(scope="module")
def expected(model_3d: Path) -> Prediction:
    return predict(model_3d, "torch")[0]


def predict(model: Path, runtime: str) -> tuple[Prediction, Predictor]:
    predictor = Predictor.load(model, ["0"], device="cpu", runtime=runtime, precision="float32")
    return predictor(IMAGE, spacing_mm=SPACING_MM[3]), predictor


def assert_same(found: Prediction, expected: Prediction) -> None:
    np.testing.assert_array_equal(found.segmentation, expected.segmentation)
    assert found.tasks["grade"].probabilities == pytest.approx(expected.tasks["grade"].probabilities, abs=1e-3)


def network_of(folder: Path, runtime: str) -> Path:
    (path,) = folder.glob("*.xml" if runtime == "openvino" else "*.onnx")
    return path


def flip(path: Path) -> None:
    """Change the sign of many weights."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 + 3 :: 64] = bytes(byte ^ 0x80 for byte in content[len(content) // 2 + 3 :: 64])
    path.write_bytes(content)


def plant(path: Path) -> None:
    """Put a whole other network in the place of one, which answers the opposite."""
    import onnx
    import openvino as ov

    if path.suffix == ".onnx":
        model = onnx.load(path)
        model.graph.node.append(onnx.helper.make_node("Neg", ["logits_before"], ["logits"]))
        next(n for n in model.graph.node if "logits" in n.output).output[0] = "logits_before"
        onnx.save(model, path)
        return
    model = ov.Core().read_model(path)
    negative = ov.opset13.negative(model.outputs[0].get_node().input_value(0))
    outputs = [ov.opset13.result(negative), *(r.output(0).get_node() for r in model.get_results()[1:])]
    other = path.with_name("other.xml")
    ov.save_model(ov.Model(outputs, model.get_parameters()), other, compress_to_fp16=False)
    del model
    other.replace(path)
    other.with_suffix(".bin").replace(path.with_suffix(".bin"))


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def save(path: Path) -> None:
    """Stands in for a conversion."""
    path.write_bytes(b"graph" * 100)
    path.with_suffix(".bin").write_bytes(b"weights" * 100)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The .xml of a network that is kept in a private folder."""
    path = keep(private_folder(tmp_path / "kept"), "a.xml", save)
    assert path is not None
    return path


DAMAGES: dict[str, Callable[[Path], object]] = {
    "graph flipped": lambda path: flip(path),
    "weights flipped": lambda path: flip(path.with_suffix(".bin")),
    "weights truncated": lambda path: shorten(path.with_suffix(".bin")),
    "weights missing": lambda path: path.with_suffix(".bin").unlink(),
    "sums missing": lambda path: path.with_suffix(".json").unlink(),
    "sums empty": lambda path: path.with_suffix(".json").write_text("{}"),
    "sums cut": lambda path: shorten(path.with_suffix(".json")),
    "sums without the weights": lambda path: path.with_suffix(".json").write_text(
        json.dumps({path.name: hashlib.sha256(path.read_bytes()).hexdigest()})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_row_86_a_changed_network_does_not_count_and_is_written_again(damage: str, kept: Path) -> None:
    place = private_folder(kept.parent)
    assert find([place], "a.xml") == kept
    DAMAGES[damage](kept)
    assert find([place], "a.xml") is None
    assert keep(place, "a.xml", save) == find([place], "a.xml") == kept


def test_row_86_a_network_planted_beside_the_model_is_converted_again(
    folder: Path, expected: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(folder, "openvino")
    path = network_of(folder / "converted", "openvino")
    plant(path)
    assert_same(predict(folder, "openvino")[0], expected)
    assert network_of(folder / "converted", "openvino") == path
    monkeypatch.setattr("nnduet.runtimes.openvino.openvino_graph.openvino_graph", None)
    assert_same(predict(folder, "openvino")[0], expected)  # it is kept, and sound


def test_row_86_a_changed_onnx_network_is_converted_again(folder: Path, expected: Prediction) -> None:
    predict(folder, "onnx")
    path = network_of(folder / "converted", "onnx")
    sound = path.read_bytes()
    plant(path)
    assert path.read_bytes() != sound
    assert_same(predict(folder, "onnx")[0], expected)
    flip(path)
    assert_same(predict(folder, "onnx")[0], expected)


def test_row_86_a_changed_network_is_never_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(folder, "openvino")
    flip(network_of(folder / "converted", "openvino"))
    monkeypatch.setattr(converted, "keep", lambda *_: None)
    with pytest.warns(UserWarning, match="no folder takes the converted network, torch computes"):
        assert predict(folder, "openvino")[1].passes.name == "torch"


def test_row_86_a_network_of_another_name_does_not_count(kept: Path) -> None:
    """The sums are of files of these names, and the names are of the model's bytes."""
    for ending in (".xml", ".bin", ".json"):
        shutil.copy(kept.with_suffix(ending), kept.with_name(f"b{ending}"))
    assert find([private_folder(kept.parent)], "b.xml") is None


@POSIX
@pytest.mark.parametrize(
    ("private", "change", "counts"),
    [
        (True, "group may write", False),
        (False, "group may write", True),
        (False, "all may write", False),
        (False, "all may write a file", False),
        (False, "link", False),
        (False, "file is a link", False),
        (True, "of somebody else", False),
        (False, "of somebody else", False),
        (False, "of the model's owner", True),
    ],
)
def test_row_86_what_others_may_write_does_not_count(private: bool, change: str, counts: bool, kept: Path) -> None:
    place = Place(kept.parent, frozenset({os.getuid(), 12345}), private)
    if change == "link":
        kept.parent.rename(kept.parent.with_name("elsewhere"))
        kept.parent.symlink_to(kept.parent.with_name("elsewhere"))
    elif change == "file is a link":
        shutil.move(kept, kept.parent.with_name("a.xml"))
        kept.symlink_to(kept.parent.with_name("a.xml"))
    elif change.startswith("of "):
        if os.getuid():
            pytest.skip("only root can give files away")
        os.chown(kept, *((1, 1) if "else" in change else (12345, 12345)))
    else:
        (kept if "file" in change else kept.parent).chmod(0o770 if "group" in change else 0o777)
    assert (find([place], kept.name) is not None) == counts
    if kept.parent.is_symlink() or change == "all may write":
        assert keep(place, "b.xml", save) is None


@POSIX
def test_row_86_the_cache_is_private(kept: Path) -> None:
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_row_85_a_network_beside_a_model_that_cannot_be_written_is_used(
    folder: Path, expected: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(folder, "openvino")
    monkeypatch.setattr(cache_folder, "user_cache_path", lambda name: Path("/proc/nowhere"))
    monkeypatch.setattr("nnduet.runtimes.openvino.openvino_graph.openvino_graph", None)
    assert_same(predict(folder, "openvino")[0], expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_row_85_without_a_home_a_temporary_folder_keeps_the_network(
    runtime: str, folder: Path, expected: Prediction, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (folder / "converted").write_text("no folder can be made here")
    monkeypatch.setattr(cache_folder, "user_cache_path", lambda name: Path("~/.cache/nnduet"))  # what it says without a home
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found, predictor = predict(folder, runtime)
    assert_same(found, expected)
    assert predictor.passes.name == runtime
    assert len(list(tmp_path.glob("nnduet-*"))) == 1
    assert not (tmp_path / "~").exists()
    del predictor, found  # a prediction knows what made it
    assert not list(tmp_path.glob("nnduet-*"))


@POSIX
def test_row_85_a_user_whom_the_system_does_not_know_predicts() -> None:
    """Without HOME either, as in a container that is started under any user number."""
    if os.getuid():
        pytest.skip("only root can become another user")
    program = (
        "import os, sys\nfrom nnduet.runtimes.converted import _user_cache\n"
        "os.setgid(54321)\nos.setuid(54321)\nprint(_user_cache())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_row_85_where_nothing_can_be_kept_torch_computes(
    folder: Path, expected: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise DiskFullError("full")

    monkeypatch.setattr(converted, "_write", full)
    with pytest.warns(UserWarning, match="no folder takes the converted network, torch computes; set TMPDIR"):
        found, predictor = predict(folder, "openvino")
    assert_same(found, expected)
    assert predictor.passes.name == "torch"


@pytest.mark.parametrize("call", range(4))
def test_row_140_a_kill_while_a_network_is_written_leaves_nothing_that_counts(call: int, tmp_path: Path) -> None:
    """Killed before the nth replacement; the next run writes it and clears up."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom nnduet.runtimes.converted import keep, private_folder\n"
        "folder, last = Path(sys.argv[1]), int(sys.argv[2])\nreplace, calls = os.replace, []\n"
        "def killed(*paths):\n    calls.append(paths)\n    os._exit(9) if len(calls) > last else replace(*paths)\n"
        "os.replace = killed\n"
        "def save(path):\n    path.write_bytes(b'graph')\n    path.with_suffix('.bin').write_bytes(b'weights')\n"
        "print(keep(private_folder(folder), 'a.xml', save))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "kept"), str(call)], check=False)
    place = private_folder(tmp_path / "kept")
    assert done.returncode == (9 if call < 3 else 0)
    assert find([place], "a.xml") == (None if call < 3 else tmp_path / "kept" / "a.xml")

    assert keep(place, "a.xml", save) == tmp_path / "kept" / "a.xml"
    assert sorted(p.name for p in place.folder.iterdir() if p.name != ".nnduet-lock") == ["a.bin", "a.json", "a.xml"]
    assert (place.folder / "a.xml").read_bytes() == (b"graph" * 100 if call < 3 else b"graph")
