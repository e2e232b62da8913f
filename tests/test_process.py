"""What processes are told before torch loads: how threads wait, and that nothing calls home."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write_tiny_dataset

import nnduet
from nnduet.process import SPINS, thread_variables

PACKAGE = Path(nnduet.__file__).parent
REPORTERS = {"openvino", "onnxruntime", "onnxscript"}

FROM_PYTHON = """
import sys
from nnduet import Predictor
from nnduet.runtimes.export import export_model
from nnduet.inference.folder_runs import predict_folder
from pathlib import Path
model, images, output = map(Path, sys.argv[1:])
for runtime in ("torch", "openvino", "onnx"):
    predictor = Predictor.load(model, ["0"], runtime=runtime, precision="float32")
    predict_folder(predictor, images, output / runtime)
    assert predictor.passes.name == runtime
export_model(model, output / "fold.onnx", ["0"])
"""
FROM_THE_COMMAND = """
import sys
from nnduet.cli import main
model, images, output = sys.argv[1:]
sys.argv = ["nnduet", "predict", "-m", model, "-i", images, "-o", output, "--runtime", "openvino", "--precision", "float32"]
main()
"""


@pytest.fixture(scope="module")
def strace() -> list[str]:
    """The command that lists what a process and its children ask of the network."""
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=socket,connect,bind,sendto,sendmsg,sendmmsg"]
    if shutil.which("strace") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no strace that may watch processes here: `apt-get install strace`")
    return command


@pytest.mark.parametrize("program", [FROM_PYTHON, FROM_THE_COMMAND], ids=["python", "command"])
def test_row_83_no_runtime_opens_a_socket_or_writes_home(
    program: str, strace: list[str], model_3d: Path, tmp_path: Path
) -> None:
    """Conversion included: nothing is kept anywhere at first. Takes as long as a few processes that import torch."""
    pytest.importorskip("openvino")
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    model = shutil.copytree(model_3d, tmp_path / "model")
    images = write_tiny_dataset(tmp_path / "user", 3, 1) / "images"
    left_out = {"CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [*strace, "-o", str(trace), sys.executable, "-c", program, str(model), str(images), str(tmp_path / "out")],
        env={**environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "AF_INET" not in trace.read_text(errors="replace")
    assert [path for path in home.rglob("*") if path.is_file() and path.parts[len(home.parts)] != ".cache"] == []


def test_row_83_a_process_of_several_threads_is_seen_to_call(strace: list[str], tmp_path: Path) -> None:
    """The control: strace sees a child's thread that only makes a socket."""
    code = "import socket, threading; t = threading.Thread(target=lambda: socket.socket(socket.AF_INET)); t.start(); t.join()"
    subprocess.run([*strace, "-o", str(tmp_path / "trace"), "sh", "-c", f"{sys.executable} -c '{code}'; true"], check=True)
    assert "AF_INET" in (tmp_path / "trace").read_text()


def test_row_83_libraries_that_report_are_imported_in_one_way() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & REPORTERS, path


@pytest.mark.parametrize(
    ("given", "expected"), [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_row_88_python_has_the_threads_of_the_command_before_torch_loads(given: dict[str, str], expected: str) -> None:
    program = (
        "import os, sys, nnduet\n"
        "class Watch:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': print(os.environ.get('GOMP_SPINCOUNT')); sys.exit()\n"
        "assert 'torch' not in sys.modules\n"
        "sys.meta_path.insert(0, Watch())\n"
        "nnduet.Predictor\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", program], env=environment | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
    assert thread_variables(given) == ({"GOMP_SPINCOUNT": SPINS} if not given else {})
