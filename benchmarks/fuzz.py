"""Feed the readers with hostile bytes for as long as you like: coverage-guided, with atheris (libFuzzer).

    pip install atheris
    python benchmarks/fuzz.py --seconds 600             # each target that long, into docs/results/fuzz.json
    python benchmarks/fuzz.py --seconds 60 --only nii   # one target

A target fails where an error is not one that nnDuet names, or does not name the file; its input is then kept beside the result
and the exit code is 1. The targets are those of tests/faults/test_fuzz.py, which runs 5,000 examples of each in CI.
"""

from __future__ import annotations

import argparse
import gzip
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

# nnduet is imported in functions only: the process that fuzzes instruments it while it is imported
REPOSITORY = Path(__file__).parents[1]
TESTS = REPOSITORY / "tests"
RESULT = REPOSITORY / "docs" / "results" / "fuzz.json"
NAMES = ("nii", "nii-gz", "png", "table", "json", "bundle")
LARGEST = {"bundle": 200_000}  # bytes of an input; else 4096


def sound_files(folder: Path) -> dict[str, bytes]:
    """A sound file for every target: what the fuzzer starts from."""
    from data_builders import raw_nifti
    from PIL import Image
    from tiny import write_tiny_model

    from nnduet.model_store.bundles import write_bundle
    from nnduet.model_store.folder_files import FolderFiles

    volume, png = raw_nifti(folder / "sound.nii").read_bytes(), BytesIO()
    Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6)).save(png, "png")
    model = write_tiny_model(folder / "model", 2)
    write_bundle(FolderFiles(model), folder / "sound.nnduet")
    return {
        "nii": volume,
        "nii-gz": gzip.compress(volume, mtime=0),
        "png": png.getvalue(),
        "table": b"case_id,grade\nc0,a\nc1,b\n",
        "json": (model / "dataset.json").read_bytes(),
        "bundle": (folder / "sound.nnduet").read_bytes(),
    }


def fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["nnduet"]):
        from targets import TARGETS
    target, file_name = TARGETS[name]
    path = corpus.parent / f"work-{name}" / file_name
    path.parent.mkdir()

    def once(content: bytes) -> None:
        target(content, path)

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LARGEST.get(name, 4096)}",
        "-print_final_stats=1",
        "-rss_limit_mb=8192",
    ]
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={corpus.parent}/{name}-", "-timeout=30", *options], once)
    atheris.Fuzz()


def run(name: str, folder: Path, seconds: int) -> dict[str, Any]:
    """Fuzz one target in a process of its own; what libFuzzer says of it."""
    command = [sys.executable, __file__, "--child", name, "--seconds", str(seconds), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    executed = re.search(r"stat::number_of_executed_units: +(\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    found = sorted(path.name for path in folder.glob(f"{name}-*"))
    if not executed:
        raise SystemExit(f"{name}: atheris did not run: {done.stderr[-2000:]}")
    if found:
        sys.stderr.write(done.stdout[-3000:] + done.stderr[-3000:])
    return {
        "seconds": seconds,
        "inputs": int(executed[1]),
        "covered_edges": int(covered[-1]) if covered else None,
        "failing": found,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--only", choices=NAMES, nargs="+", default=NAMES)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path[:0] = [str(TESTS), str(TESTS / "faults")]
    if arguments.child:
        fuzz(arguments.child, arguments.folder / f"corpus-{arguments.child}", arguments.seconds)
    from road import commit, machine

    from nnduet.io.files import write_json_atomically

    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sound").mkdir()
        for target, content in sound_files(folder / "sound").items():
            if target in arguments.only:
                (folder / f"corpus-{target}").mkdir()
                (folder / f"corpus-{target}" / "sound").write_bytes(content)
                results[target] = run(target, folder, arguments.seconds)
                sys.stdout.write(f"{target} {results[target]}\n")
                sys.stdout.flush()
        for found in (path for target in results for path in folder.glob(f"{target}-*")):
            (arguments.output.parent / found.name).write_bytes(found.read_bytes())
    head = {"commit": commit(), "machine": machine(), "atheris": version("atheris")}
    write_json_atomically(arguments.output, head | {"targets": results})
    return int(any(result["failing"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
