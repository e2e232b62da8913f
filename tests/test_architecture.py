"""The rules of docs/explanation-design.md, checked on the source: one direction, nnU-Net at the edge, no cost of importing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nnduet

PACKAGE = Path(nnduet.__file__).parent
ROOMS = (  # left to right; then the commands
    "io",
    "datasets",
    "network",
    "case_head",
    "model_store",
    "runtimes",
    "inference",
    "evaluation",
    "training",
    "report",
    "benchmark",
)
CONTRACTS = {
    "cells",
    "errors",
    "interrupts",
    "names",
    "nnunet_types",
    "process",
    "progress",
    "records",
    "schema",
    "task_list",
    "tasks",
}
MAY_IMPORT_NNUNET = ("network/network.py", "model_store/", "inference/", "training/", "benchmark/timed_arm.py")
NEEDS_NO_TORCH = ("io/", "datasets/", "case_head/", "evaluation/")

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def _imports(module: str) -> Iterator[str]:
    """Dotted names that a module imports anywhere in it, also inside functions."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative imports hide the direction"
            yield from ([f"nnduet.{alias.name}" for alias in node.names] if node.module == "nnduet" else [str(node.module)])


def _room(module: str) -> int:
    first = module.split("/")[0]
    return ROOMS.index(first) if first in ROOMS else len(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_from_rooms_to_its_left(module: str) -> None:
    for name in _imports(module):
        if not name.startswith("nnduet.") or module == "__init__.py":
            continue
        target = name.split(".")[1]
        if module.split("/")[0].removesuffix(".py") in CONTRACTS:
            assert target in CONTRACTS, f"{module} imports {name}"
        elif target not in CONTRACTS:
            assert _room(target) <= _room(module), f"{module} imports {name}"


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith(("cli/", "__main__"))])
def test_nothing_imports_the_command_line(module: str) -> None:
    assert not [name for name in _imports(module) if name.split(".")[:2] == ["nnduet", "cli"]]


@pytest.mark.parametrize("module", MODULES)
def test_only_the_edge_imports_nnunet(module: str) -> None:
    if not module.startswith(MAY_IMPORT_NNUNET):
        assert not [name for name in _imports(module) if name.split(".")[0] == "nnunetv2"]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)


def _modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("statement", ["import nnduet", "import nnduet.cli"])
def test_importing_the_package_or_the_command_line_is_cheap(statement: str) -> None:
    heavy = {"torch", "nnunetv2", "numpy", "SimpleITK", "monai", "sklearn", "rich.progress"}
    assert not heavy & _modules_after(statement)


def test_case_heads_and_metrics_need_no_torch() -> None:
    modules = [module for module in MODULES if module.startswith(NEEDS_NO_TORCH)]
    names = ", ".join("nnduet." + module.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for module in modules)
    assert "torch" not in _modules_after(f"import {names}")


def test_scoring_masks_loads_no_torch() -> None:
    code = (
        "import numpy as np; from nnduet.evaluation.region_scores import score_segmentation as score; "
        "one = np.eye(4, dtype=int)[None]; score(one, one, {'a': (1,)}, spacing_mm=(1, 1, 1), tolerance_mm=1)"
    )
    assert "torch" not in _modules_after(code)


def test_an_unknown_attribute_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = nnduet.Predicter


def test_row_119_dir_of_the_package_is_complete_without_the_cost_of_loading_it() -> None:
    code = "import sys, nnduet; print(*dir(nnduet)); print('torch' in sys.modules)"
    names, loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"Prediction", "Predictor", "Task", "__version__", "__all__", "__doc__"} <= set(names.split())
    assert loaded == "False"


def test_the_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"version of {name}")
    assert nnduet.__version__ == "version of nnduet"


def test_what_users_need_is_reached_from_the_package() -> None:
    from nnduet.inference.prediction import Prediction
    from nnduet.inference.predictor import Predictor
    from nnduet.schema import Task

    assert (nnduet.Prediction, nnduet.Predictor, nnduet.Task) == (Prediction, Predictor, Task)


def test_naming_a_task_costs_no_torch() -> None:
    assert "torch" not in _modules_after("import nnduet; nnduet.Task")


DRAW_PICTURES = ("report/preview.py", "report/report_folder.py")
"""Write .png for people to look at, which are no images of a case."""


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("io/")])
def test_only_the_room_of_files_knows_formats_and_names_of_channels(module: str) -> None:
    from nnduet.io.formats import image_endings

    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert module in DRAW_PICTURES or not set(texts) & set(image_endings()), "ask nnduet.io.formats"
    assert not {"04d", "_0000"} & set(texts), "put names together by nnduet.io.case_names"


PARSERS = ("json.loads", "json.load", "load_json", "load_pickle", "yaml.load", "yaml.safe_load")
CAN_RUN_CODE = {"pickle", "joblib", "yaml", "shelve", "marshal", "dill"}
READS_JSON, READS_PICKLES = "records.py", "training/case_properties.py"
"""The one strict reader; and that of nnU-Net's pickles beside preprocessed cases: numbers, texts and arrays only."""


@pytest.mark.parametrize("module", MODULES)
def test_row_139_json_is_read_in_one_place_and_pickles_are_not(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in PARSERS]
    of_files = [call for call in calls if not ast.unparse(call.args[0]).startswith("json.dumps(")]  # that makes plain values
    assert module == READS_JSON or not of_files, "read JSON by nnduet.records"
    assert module == READS_PICKLES or not CAN_RUN_CODE & {name.split(".")[0] for name in _imports(module)}


@pytest.mark.parametrize("module", MODULES)
def test_row_43_no_call_may_unpickle(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("torch.load", "np.load", "numpy.load"):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        wanted = ("weights_only", "True") if ast.unparse(node.func) == "torch.load" else ("allow_pickle", "False")
        assert given.get(wanted[0]) == wanted[1], f"{module}:{node.lineno}: expected {wanted[0]}={wanted[1]}"


def test_the_map_of_the_source_is_true() -> None:
    script = PACKAGE.parents[1] / ".ci" / "source_tree.py"
    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


MOST_ANY = 0.05
NUMPY_TYPES = {"NDArray", "ndarray", "dtype", "number", "integer", "signedinteger", "unsignedinteger", "floating"}
"""Their argument may be Any: of any number type, which is a type."""


def test_any_is_rare_in_signatures() -> None:
    """Of all functions in src/nnduet, under 5 % name ``Any`` in a parameter or the return.

    The objects of nnU-Net's own files have names, ``Plans``, ``DatasetJson``, ``Configuration`` and ``CaseProperties`` of
    ``nnunet_types``, and are not counted: what they may hold is nnU-Net's to say.
    """
    named = {function for module in MODULES for function in _functions(module)}
    vague = {(place, name) for place, name, is_vague in named if is_vague}
    assert len(vague) / len(named) < MOST_ANY, f"{len(vague)} of {len(named)} functions: {sorted(vague)}"


def test_any_is_found_wherever_a_signature_names_it() -> None:
    signatures = {
        "def f(a: Any) -> None: ...": True,
        "def f(*, a: dict[str, Any] | None = None) -> None: ...": True,
        "def f() -> Callable[..., Any]: ...": True,
        "def f(a: npt.NDArray[Any], b: np.integer[Any]) -> object: ...": False,
        "def f(a: Plans) -> None: x: Any = a": False,
    }
    assert {text: _is_vague(ast.parse(text).body[0]) for text in signatures} == signatures


def _functions(module: str) -> Iterator[tuple[str, str, bool]]:
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield f"{module}:{node.lineno}", node.name, _is_vague(node)


def _is_vague(node: ast.stmt) -> bool:
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return any(_names_any(place) for place in (*(argument.annotation for argument in arguments), node.returns) if place)


def _names_any(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name):
        outer = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        if outer in NUMPY_TYPES:
            return False
    return (isinstance(node, ast.Name) and node.id == "Any") or any(map(_names_any, ast.iter_child_nodes(node)))


MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 300, 40
"""Of a function without its docstring, its signature included: what a reader sees without scrolling."""


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_longer_than_300_lines(module: str) -> None:
    assert len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_A_FILE


@pytest.mark.parametrize("module", MODULES)
def test_no_function_is_longer_than_a_screen(module: str) -> None:
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False) is not None
            lines = _num_lines(node) - (_num_lines(node.body[0]) if documented else 0)
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{module}:{node.lineno}: {node.name} has {lines} lines"


def _num_lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
