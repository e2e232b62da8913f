"""Ctrl-C and the signals of job schedulers, sent to real processes at chosen moments, or at whatever moment a command is in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from tiny import CONFIGURATIONS, tiny_workspace, write_tiny_dataset

import nnduet
from nnduet.io.files import is_temporary

AT_A_MOMENT = """
import os, sys
event, part, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
del sys.argv[1:4]
waiting = True
def watch(name, details):
    global waiting
    if waiting and name == event and part in str(details):
        waiting = False
        os.kill(os.getpid(), number)
sys.addaudithook(watch)
from nnduet.__main__ import main
main()
"""
"""A program that is the command, and sends itself a signal when Python reports an event for the first time."""
GO_ON = "nothing was left half-written; run the same command again"


def _environment() -> dict[str, str]:
    # The modules of this test run may not be those that are installed.
    return os.environ | {"PYTHONPATH": str(Path(nnduet.__file__).parent.parent), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def _start(*command: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        start_new_session=True,
    )


def _alive(session: int) -> list[str]:
    """Command lines of the living processes of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def _end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    time.sleep(0.1)  # multiprocessing's tracker ends by itself when its pipe closes
    assert _alive(process.pid) == []
    assert "Traceback" not in err
    return process.returncode, out, err


def _interrupted(event: str, part: object, number: int, *arguments: object) -> tuple[int, str, str]:
    return _end(_start("-c", AT_A_MOMENT, event, part, number, *arguments))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``user/`` with four cases, ``ws/`` with them converted; nothing planned."""
    folder = tmp_path_factory.mktemp("data")
    workspace = tiny_workspace(folder, 3, 4)
    (folder / "ws").mkdir()
    workspace.raw.rename(folder / "ws" / "nnUNet_raw")
    return folder


def _commands(data: Path, model: Path, out: Path) -> dict[str, tuple[Sequence[object], tuple[str, object]]]:
    """By name: a command line, and an event that only comes up when the command is at its work."""
    images, labels, workspace = data / "user/images", data / "user/labels", ("--workspace", data / "ws")
    elsewhere = ("--workspace", out)
    scored = ("-p", labels, "-r", labels, "--dataset-json", model / "dataset.json")
    return {
        "convert": (
            (data / "user", "--dataset-id", 2, "--name", "T", "--task", "grade", "--num-folds", 2, *elsewhere),
            ("open", "case_02.nii.gz"),
        ),
        "plan": ((1, "--preset", "cpu", "--num-processes", 1, *workspace), ("open", "dataset_fingerprint.json")),
        "predict": (("-i", images, "-o", out, "-m", model), ("os.rename", out)),
        "evaluate": ((*scored, "-o", out), ("open", "case_02.nii.gz")),
        "report": ((labels, "--images", images, "-o", out), ("import", "matplotlib.figure")),
        "export": ((model, out.with_name("m.onnx"), "--fold", 0), ("import", "onnxscript")),
        "benchmark": (("-i", images, "-o", out, "-m", model), ("subprocess.Popen", "timed_arm")),
        "demo": (("--output", out), ("os.mkdir", "images/train")),
    }


@pytest.mark.parametrize("name", ["convert", "plan", "predict", "evaluate", "report", "export", "benchmark", "demo"])
def test_row_90_a_signal_at_work_ends_a_command_with_a_line_that_says_how_to_go_on(
    name: str, data: Path, model_3d: Path, tmp_path: Path
) -> None:
    arguments, moment = _commands(data, model_3d, tmp_path / "out")[name]
    status, out, err = _interrupted(*moment, signal.SIGTERM, name, *arguments, "--json")
    assert status == 143, err
    remedies = {"predict": "the same command with --resume goes on; finished cases are kept"}
    remedy = remedies.get(name, "`nnduet demo --replace` with the same --output begins again" if name == "demo" else GO_ON)
    assert err.splitlines()[-2:] == ["INTERRUPTED: stopped by SIGTERM", f"what helps: {remedy}"]
    assert json.loads(out) == {"error": {"code": "INTERRUPTED", "message": "stopped by SIGTERM", "remedy": remedy}}
    assert [path for path in tmp_path.rglob("*") if is_temporary(path)] == []


@pytest.mark.parametrize("module", ["typer", "nnduet.cli", "numpy", "torch", "nnunetv2"])
def test_row_90_ctrl_c_during_the_imports_ends_a_command_with_130(module: str, model_3d: Path, tmp_path: Path) -> None:
    images = write_tiny_dataset(tmp_path / "user", 3, 2) / "images"
    arguments = ("predict", "-i", images, "-o", tmp_path / "out", "-m", model_3d)
    status, out, err = _interrupted("import", module, signal.SIGINT, *arguments)
    assert (status, out) == (130, "")
    assert (
        err == "INTERRUPTED: stopped by SIGINT\nwhat helps: the same command with --resume goes on; finished cases are kept\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_row_90_a_training_that_is_stopped_while_it_starts_ends_with_75_too(number: int, data: Path) -> None:
    status, out, err = _interrupted("import", "torch", number, "train", 1, "--workspace", data / "ws", "--json")
    assert status == 75
    name = signal.Signals(number).name
    assert f"STOPPED: stopped by {name}; every finished epoch is kept\nwhat helps: the same command with --resume" in err
    assert json.loads(out)["error"]["code"] == "STOPPED"


def test_row_90_ctrl_c_in_the_terminal_ends_the_workers_of_plan_without_their_tracebacks(data: Path) -> None:
    configuration = ("--configuration", CONFIGURATIONS[3])
    process = _start(
        "-m", "nnduet", "plan", 1, "--preset", "cpu", *configuration, "--num-processes", 2, "--workspace", data / "ws"
    )
    while not any("spawn_main" in line for line in _alive(process.pid)):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    status, _, err = _end(process)
    assert status == 130
    assert err.splitlines()[-2:] == ["INTERRUPTED: stopped by SIGINT", f"what helps: {GO_ON}"]


def _body(text: str, *, grace: float = 10.0) -> subprocess.Popen[str]:
    """A process that runs ``text`` as a command would; it prints "ready" where it may be interrupted."""
    start = f"""
        import multiprocessing, os, sys, time
        from nnduet import interrupts
        interrupts._GRACE_SECONDS = {grace}
        with interrupts.interruptible(sys.argv[1:]):
    """
    process = _start("-c", textwrap.dedent(start) + textwrap.indent(textwrap.dedent(text), "    "))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_row_90_code_that_swallows_the_signal_is_ended_when_its_time_to_clean_up_is_over() -> None:
    process = _body(
        """
        try:
            print("ready", flush=True)
            time.sleep(60)
        except BaseException:
            time.sleep(60)
        """,
        grace=0.3,
    )
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status, _, err = _end(process)
    assert (status, err) == (143, f"INTERRUPTED: stopped by SIGTERM\nwhat helps: {GO_ON}\n")
    assert time.monotonic() - started < 10


def test_row_90_what_a_library_makes_of_the_signal_is_still_an_interruption() -> None:
    process = _body(
        """
        try:
            print("ready", flush=True)
            time.sleep(60)
        except BaseException:
            raise ImportError("a module in C failed to import") from None
        """
    )
    process.send_signal(signal.SIGINT)
    assert _end(process)[0] == 130


def test_row_90_children_by_fork_die_of_the_signal_in_silence_and_none_is_left() -> None:
    process = _body(
        """
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    os.killpg(process.pid, signal.SIGTERM)
    assert _end(process)[::2] == (143, f"INTERRUPTED: stopped by SIGTERM\nwhat helps: {GO_ON}\n")


def test_row_90_a_pool_by_fork_ends_its_workers_as_ever() -> None:
    process = _body(
        """
        print("ready", flush=True)
        for _ in range(40):  # workers that have not begun, have begun, or wait when SIGTERM comes
            with multiprocessing.get_context("fork").Pool(2) as pool:
                pool.map(abs, [1])
        """
    )
    assert _end(process) == (0, "", "")


def test_row_90_the_status_of_a_command_that_is_over_stays_what_it_was() -> None:
    program = "import sys, time\nfrom nnduet.interrupts import interruptible\n"
    ending = "try:\n with interruptible([]):\n  sys.exit(3)\nexcept SystemExit:\n print('ready', flush=True)\n time.sleep(60)\n"
    process = _start("-c", program + ending)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert _end(process) == (3, "", "")


def test_row_90_a_signal_that_the_shell_told_to_ignore_stays_ignored() -> None:
    program = "import os, signal\nfrom nnduet.interrupts import interruptible\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    process = _start("-c", program + "with interruptible([]):\n os.kill(os.getpid(), signal.SIGINT)\nprint('went on')")
    assert _end(process) == (0, "went on\n", "")
