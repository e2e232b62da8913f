"""Change the core one operator, number or text at a time, and count the changes that a test notices (mutation testing).

    pip install mutmut==3.8.1
    python benchmarks/mutation.py                               # every module, into docs/results/mutation.{json,md}
    python benchmarks/mutation.py --only datasets/folds.py --show   # one module, and the changes that no test noticed

Each module runs in a copy of the repository against the test files that are about it, so that a change counts as noticed only
where it should be. A change that makes the tests run 15 times as long counts as noticed as well. What is said of the survivors
in docs/results/mutation.md below its table is written by hand, and stays.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from road import commit, machine

from nnduet.io.files import write_json_atomically, write_text_atomically

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "docs" / "results"
TARGET = 0.85

TESTS = {
    "inference/labelling.py": ("inference/test_labelling.py",),
    "inference/sliding_window.py": ("inference/test_sliding_window.py",),
    "inference/resampling.py": ("inference/test_resampling.py", "inference/test_labelling.py"),
    "network/pooling.py": ("network/test_pooling.py",),
    "case_head/head.py": ("case_head/test_head.py", "case_head/test_fit.py"),
    "case_head/fit.py": ("case_head/test_fit.py",),
    "case_head/families.py": ("case_head/test_head.py", "case_head/test_fit.py"),
    "case_head/calibration.py": ("case_head/test_calibration.py",),
    "case_head/outliers.py": ("case_head/test_outliers.py",),
    "evaluation/metrics/calibration.py": ("evaluation/metrics/test_classification.py",),
    "evaluation/metrics/classification.py": ("evaluation/metrics/test_classification.py",),
    "evaluation/metrics/ranking.py": ("evaluation/metrics/test_classification.py",),
    "evaluation/metrics/segmentation.py": ("evaluation/metrics/test_segmentation.py",),
    "evaluation/metrics/mask_pairs.py": ("evaluation/metrics/test_segmentation.py",),
    "evaluation/region_scores.py": ("evaluation/metrics/test_segmentation.py",),
    "datasets/case_tables.py": ("datasets/test_case_tables.py",),
    "datasets/folds.py": ("datasets/test_folds.py",),
    "datasets/task_specs.py": ("datasets/test_task_specs.py",),
    "datasets/class_order.py": ("datasets/test_class_order.py", "datasets/test_task_specs.py"),
}
"""Modules of the core and the files with the tests that are about them."""

DECORATORS = re.compile(r"^@(torch\.inference_mode\(\)|lru_cache\(.*\))\n", re.MULTILINE)
"""mutmut passes over functions with a decorator; without these a function does the same."""

SLOW = (
    "calibration_error_equals_torchmetrics",
    "equal_those_of_the_stock_predictor",
    "finds_the_foreground_with_fewer_passes",
    "mean_of_several_models_is_surer",
    "finds_the_block_that_tells_the_classes_apart",
    "noise_gives_honest_probabilities",
    "scores_are_those_of_cases_that_the_models_had_not_seen",
    "network_that_knows_more_gets_the_larger_share",
    "forgives_a_shift_of_exactly_the_tolerance",
)
"""Tests that take a second or more, which every change would: they are left out, so that the scores are rather too low."""

SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/nnduet/{module}"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-m", "not slow", "-k", "{fast}"]
pytest_add_cli_args_test_selection = {tests}
use_git_change_detection = false
"""

BY_HAND = "## What no test noticed"
"""Heading of the page's part that is written by hand."""

UNNOTICED = ("survived", "no tests")
COUNTED = ("killed", "timeout", *UNNOTICED)


def mutate(module: str, folder: Path) -> dict[str, str]:
    """Run mutmut over one module in a copy of the repository in ``folder``.

    Returns:
        {name of the change: "killed", "timeout", "survived" or "no tests"}.
    """
    for part in ("src", "tests"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "src" / "nnduet" / module
    source.write_text(DECORATORS.sub("", source.read_text("utf-8")), "utf-8")
    tests = json.dumps([f"tests/{name}" for name in TESTS[module]])
    fast = " and ".join(f"not {name}" for name in SLOW)
    own = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    (folder / "pyproject.toml").write_text(own + SETTINGS.format(module=module, tests=tests, fast=fast), "utf-8")
    done = _mutmut(folder, "run", "--max-children", "1")
    found = dict(re.findall(r"^ +(\S+): (.+)$", _mutmut(folder, "results", "--all", "true"), re.MULTILINE))
    strange = set(found.values()) - set(COUNTED)
    if not found or strange:
        raise SystemExit(f"{module}: mutmut did not judge every change {sorted(strange)}: {done[-3000:]}")
    return found


def _mutmut(folder: Path, *arguments: str) -> str:
    """Standard output and error of mutmut in a folder; one thread, for the processes that it forks."""
    single = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "Agg"}
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and Path(path) != REPOSITORY / "src"]
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder,
        env=os.environ | single | {"PYTHONPATH": os.pathsep.join(paths)},  # mutmut puts the copy first
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def difference(folder: Path, change: str) -> str:
    """The lines that a change puts in place of others."""
    return "".join(re.findall(r"^(?:# |[-+](?![-+])).*\n", _mutmut(folder, "show", change), re.MULTILINE))


def summary(found: Mapping[str, str]) -> dict[str, Any]:
    """Counts of one module, the share of changes that were noticed, and the names of the others."""
    counts = Counter(found.values())
    noticed = counts["killed"] + counts["timeout"]
    return {
        **{name.replace(" ", "_"): counts[name] for name in COUNTED},
        "total": len(found),
        "score": round(noticed / len(found), 4),
        "unnoticed": sorted(_short(name) for name, status in found.items() if status in UNNOTICED),
    }


def _short(name: str) -> str:
    """``function.number`` or ``Class.method.number`` of mutmut's name."""
    _, _, rest = name.rpartition(".")
    function, _, number = rest.removeprefix("x_").removeprefix("xǁ").rpartition("__mutmut_")
    return f"{function.replace('ǁ', '.')}.{number}"


def write(output: Path, module: str, counts: Mapping[str, Any]) -> None:
    """Put the counts of one module beside those of the others, in JSON and on the page."""
    before = json.loads(output.read_text("utf-8"))["modules"] if output.is_file() else {}
    modules = before | {module: {"commit": commit(), "date": datetime.date.today().isoformat(), **counts}}
    head = {"machine": machine(), "mutmut": version("mutmut")}
    result = head | {"modules": {name: modules[name] for name in TESTS if name in modules}}
    write_json_atomically(output, result)
    page = output.with_suffix(".md")
    by_hand = page.read_text("utf-8").partition(BY_HAND)[2] if page.is_file() else "\n"
    write_text_atomically(page, f"{render(result)}\n{BY_HAND}{by_hand}")


def render(result: Mapping[str, Any]) -> str:
    """The page down to the end of its table."""
    lines = [
        "# Mutation testing of the core",
        "",
        f"`python benchmarks/mutation.py` with mutmut {result['mutmut']} and Python {result['machine']['python']}.",
        "Each change is one operator, number, name or text of a module, tried against the tests that are about the module.",
        f"A change that makes them run on counts as noticed. Target: {TARGET:.0%} noticed, texts of messages counted.",
        "",
        "| module | changes | noticed | of these by running on | survived | not run by a test | score |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in {**result["modules"], "all": _sum(result["modules"].values())}.items():
        noticed = entry["killed"] + entry["timeout"]
        counts = [entry["total"], noticed, entry["timeout"], entry["survived"], entry["no_tests"]]
        lines.append(f"| {name} | {' | '.join(map(str, counts))} | {noticed / entry['total']:.1%} |")
    return "\n".join(lines) + "\n"


def _sum(entries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    found = list(entries)
    return {name: sum(entry[name] for entry in found) for name in ("killed", "timeout", "survived", "no_tests", "total")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TESTS, nargs="+", default=list(TESTS), help="others keep the result that they have")
    parser.add_argument("--show", action="store_true", help="print the changes that no test noticed")
    parser.add_argument("--output", type=Path, default=RESULTS / "mutation.json")
    arguments = parser.parse_args()
    for module in arguments.only:
        with tempfile.TemporaryDirectory() as name:
            found = mutate(module, Path(name))
            write(arguments.output, module, summary(found))
            sys.stdout.write(f"{module} {summary(found)}\n")
            if arguments.show:
                for change in (name for name, status in found.items() if status in UNNOTICED):
                    sys.stdout.write(difference(Path(name), change))
            sys.stdout.flush()
    scores = [entry["score"] for entry in json.loads(arguments.output.read_text("utf-8"))["modules"].values()]
    return int(min(scores) < TARGET)


if __name__ == "__main__":
    sys.exit(main())
