"""What the package declares is true: Pythons, dependencies, licences, and that installing it leaves torch alone."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]

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
    assert all(list(ROOT.glob(name)) for name in project["license-files"])
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """What would be uploaded, built of a copy, so that no build folder is left here."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "-c", "from setuptools import build_meta; print(build_meta.build_wheel('.'))"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return zipfile.ZipFile(folder / built.stdout.splitlines()[-1])


def test_row_120_the_wheel_holds_the_licences_of_the_code_the_weights_and_the_viewer(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    for licence in ("LICENSE", "NOTICE", "LICENSE-niivue.txt", "LICENSE-niivue-codecs.txt"):
        assert any(name.endswith(f"/{licence}") and ".dist-info/licenses/" in name for name in names), licence
    for model in (PACKAGE / "models").iterdir():
        card = wheel.read(f"nnduet/models/{model.name}/MODEL_CARD.md").decode()
        assert "license: cc-by-3.0" in card and "https://creativecommons.org/licenses/by/3.0/" in card and "Cite:" in card


def test_the_wheel_holds_what_the_package_reads_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    held = {name.removeprefix("nnduet/") for name in wheel.namelist() if name.startswith("nnduet/")}
    ours = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    assert held == {name for name in ours if "__pycache__" not in name and "/converted/" not in name}


def test_the_wheel_says_who_made_it_and_under_which_licences(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    assert "Author: nnDuet developers" in metadata
    assert "License-Expression: Apache-2.0 AND BSD-2-Clause AND BSD-3-Clause AND MIT AND ISC AND CC-BY-3.0" in metadata


def test_the_citation_has_the_version_and_the_words_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = PYPROJECT["project"]
    assert citation["version"] == project["version"] and citation["abstract"].rstrip(".") == project["description"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    assert citation["keywords"] == project["keywords"]


def test_the_hooks_run_before_a_commit_are_tools_of_the_project_and_fetch_nothing() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system" and hook["entry"].startswith(".venv/bin/"), hook["id"]
        paths = [word for word in hook["entry"].split()[1:] if word.endswith(".py")]
        assert all((ROOT / path).is_file() for path in paths), hook["id"]
