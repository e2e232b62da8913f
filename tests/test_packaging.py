"""What the package declares is true: Pythons, dependencies, licences, and that installing it leaves torch alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import msgspec
import pytest

import nnduet

ROOT = Path(__file__).parents[1]
PACKAGE = Path(nnduet.__file__).parent
if sys.version_info >= (3, 11):
    import tomllib

    PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
else:
    PYPROJECT = {}
MODULES = sorted(PACKAGE.rglob("*.py"))
WITH_NNUNET = {"acvl-utils", "batchgenerators", "blosc2", "dynamic-network-architectures"}
"""Loaded directly, in the versions that nnunetv2 asks for."""

pytestmark = pytest.mark.skipif(not PYPROJECT, reason="Python 3.10 has no tomllib")


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


def test_row_120_every_module_is_written_in_the_grammar_of_the_oldest_python() -> None:
    assert PYPROJECT["project"]["requires-python"] == ">=3.10"
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py310"
    for path in MODULES:
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


def test_row_120_no_module_uses_what_came_after_the_oldest_python() -> None:
    later = {"tomllib", "ExceptionGroup", "BaseExceptionGroup", "file_digest", "batched", "override", "StrEnum", "UTC", "Self"}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                library = node.value.id in ("hashlib", "itertools", "typing", "enum", "datetime", "asyncio")
                assert not (library and node.attr in later), f"{path}:{node.lineno}: {node.attr}"
            if isinstance(node, ast.ImportFrom) and node.module in ("typing", "enum", "datetime", "itertools", "hashlib"):
                assert not later & {alias.name for alias in node.names}, f"{path}:{node.lineno}"


def test_row_120_the_pythons_are_declared() -> None:
    declared = [c.rpartition(" ")[2] for c in PYPROJECT["project"]["classifiers"] if "Python ::" in c]
    assert declared == ["3.10", "3.11", "3.12", "3.13"]


def test_row_120_the_licences_of_what_lies_inside_are_listed() -> None:
    project = PYPROJECT["project"]
    assert {"Apache-2.0", "BSD-2-Clause", "CC-BY-3.0"} <= set(project["license"].split(" AND "))
    assert all((ROOT / name).is_file() for name in project["license-files"])
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    inside = [*(PACKAGE / "models").iterdir(), *(PACKAGE / "report" / "vendor").glob("*.js")]
    assert inside
    for path in inside:
        assert path.relative_to(PACKAGE).as_posix() in notice


def test_what_is_declared_is_loaded_and_what_is_loaded_is_declared() -> None:
    loaded = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            loaded |= {name.split(".")[0] for name in names}
    packages = packages_distributions()
    used = {packages[name][0].lower().replace("_", "-") for name in loaded - sys.stdlib_module_names if name in packages}
    declared = {_name(requirement) for requirement in PYPROJECT["project"]["dependencies"]}
    assert used - {"nnduet"} - WITH_NNUNET == declared


def test_row_92_the_pinned_torch_is_below_the_bound_that_keeps_it() -> None:
    (torch,) = (requirement for requirement in PYPROJECT["project"]["dependencies"] if _name(requirement) == "torch")
    (pinned,) = re.findall(r"^torch==(\d+)\.(\d+)", (ROOT / "constraints.txt").read_text(), flags=re.M)
    assert torch.endswith(f",<{pinned[0]}.{int(pinned[1]) + 1}")


@pytest.mark.slow
def test_row_92_installing_leaves_a_cpu_torch_as_it_is(tmp_path: Path) -> None:
    """As pip would resolve it in a virtual environment that has torch for CPUs; asks the package index, which takes minutes."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = next(path for path in (tmp_path / "venv").glob("*/python*") if path.is_file())
    (libraries,) = (tmp_path / "venv").rglob("site-packages")
    torch = libraries / "torch-2.13.0+cpu.dist-info"
    torch.mkdir()
    (torch / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n")
    (torch / "RECORD").touch()
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--dry-run", "--quiet", "--report", str(report)]
    done = subprocess.run([*command, *PYPROJECT["project"]["dependencies"]], capture_output=True, text=True, check=False)
    if "connection" in done.stderr.lower() or "Could not find a version" in done.stderr:
        pytest.skip(f"the package index does not answer: {done.stderr.strip().splitlines()[-1:]}")
    assert done.returncode == 0, done.stderr
    found = {p["metadata"]["name"].lower() for p in msgspec.json.decode(report.read_bytes())["install"]}
    assert "torchvision" in found and not {name for name in found if name == "torch" or name.startswith("nvidia")}
