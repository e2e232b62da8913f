"""Run the demo for several phantoms and write ``docs/results/demo.json``: does it hold with margin over seeds, and how long?

python benchmarks/demo_seeds.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from road import REPOSITORY, commit, machine

from nnduet.console import progress_bar
from nnduet.demo import run_demo
from nnduet.io.files import write_json_atomically


def main() -> None:
    """Run every seed in a folder of its own and write what was measured after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs" / "demo")
    arguments = parser.parse_args()
    results: dict[str, object] = {
        "command": "python benchmarks/demo_seeds.py " + " ".join(sys.argv[1:]),
        "machine": {**machine(), "torch_threads": torch.get_num_threads()},
        "versions": {p: version(p) for p in ("nnduet", "nnunetv2", "torch")},
        "commit": commit(),
    }
    seeds: dict[str, object] = {}
    for seed in arguments.seeds:
        folder = arguments.runs / str(seed)
        shutil.rmtree(folder, ignore_errors=True)
        with progress_bar(f"seed {seed}") as progress:
            summary = run_demo(folder, seed=seed, progress=progress)
        kept = ("measured", "intervals", "floors", "seconds", "passed")
        seeds[str(seed)] = {k: v for k, v in summary.to_json().items() if k in kept}
        write_json_atomically(REPOSITORY / "docs" / "results" / "demo.json", {**results, "seeds": seeds})
        sys.stdout.write(f"seed {seed}: {summary.measured} in {sum(summary.seconds.values()) / 60:.1f} min\n")


if __name__ == "__main__":
    main()
