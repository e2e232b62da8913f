"""The code that converts networks, and the version that its converted networks are kept by."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import nnduet
from nnduet.runtimes.joint_graph import CONVERTER_VERSION

PACKAGE = Path(nnduet.__file__).parent
CONVERTS = (
    "runtimes/joint_graph.py",
    "runtimes/onnx_graph.py",
    "runtimes/openvino/*.py",
    "network/heads.py",
    "network/network.py",
    "network/pooling.py",
)
COMPUTES = {"openvino_pass.py", "openvino_runtime.py"}
"""They run a graph that is there, and make none."""
KNOWN = (1, "66a4c05043a6ccca")
"""The version, and the digest of the code that it stands for."""


def test_converted_networks_are_made_by_the_code_that_their_version_stands_for() -> None:
    """Fails after any change of code that a graph is made by: raise CONVERTER_VERSION if graphs may come out otherwise (other
    numbers, inputs or outputs), and leave it if not; then write both here."""
    assert (CONVERTER_VERSION, _digest_of_code()) == KNOWN


def _digest_of_code() -> str:
    """Of the syntax, so that comments, docstrings and line breaks may change."""
    digest = hashlib.sha256()
    for pattern in CONVERTS:
        for path in sorted(path for path in PACKAGE.glob(pattern) if path.name not in COMPUTES):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                    node.body = node.body[1:]
            digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()[:16]
