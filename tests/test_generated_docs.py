"""Pages and schemas that are made from the code say what the code says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_schemas_of_written_files_are_true() -> None:
    done = subprocess.run([sys.executable, ROOT / ".ci" / "schemas.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "reference").glob("*.schema.json")), ids=lambda path: path.name)
def test_every_part_of_a_schema_is_described(path: Path) -> None:
    parts = json.loads(path.read_text(encoding="utf-8"))["$defs"]
    assert not [name for name, part in parts.items() if not part.get("description") or "required" not in part]
