"""Pages and schemas that are made from the code say what the code says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nnduet.evaluation.metrics.table import METRICS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("script", ["schemas.py", "metrics_page.py"])
def test_what_is_made_from_the_code_is_true(script: str) -> None:
    done = subprocess.run([sys.executable, ROOT / ".ci" / script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_row_of_the_table_of_metrics_has_a_section_on_the_page_and_says_everything() -> None:
    told = (ROOT / "docs" / "reference-metrics.md").read_text(encoding="utf-8")
    assert sum(line.startswith("| `") for line in told.splitlines()) == len(METRICS)
    for metric in METRICS:
        assert metric.label and metric.definition and metric.source, metric.key


def test_a_key_is_one_metric_within_its_scope() -> None:
    assert len({(metric.scope, metric.key) for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "reference").glob("*.schema.json")), ids=lambda path: path.name)
def test_every_part_of_a_schema_is_described(path: Path) -> None:
    parts = json.loads(path.read_text(encoding="utf-8"))["$defs"]
    assert not [name for name, part in parts.items() if not part.get("description") or "required" not in part]
