"""The JSON schemas of the files that nnDuet writes, docs/reference/*.schema.json, made from the records that it writes.

    python .ci/schemas.py            writes them
    python .ci/schemas.py --check    says whether they are true; the tests ask this

Required is every key that nnDuet always writes. Reading is more lenient: a key that a file lacks has its default.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from nnduet.benchmark.comparison import SpeedComparison
from nnduet.datasets.conversion_summary import ConversionSummary
from nnduet.evaluation.stored_metrics import Metrics
from nnduet.inference.case_records import CaseLine, RunHead
from nnduet.inference.prediction_run import PredictionRun
from nnduet.records import is_left_out
from nnduet.training.cross_validation import CrossValidationSummary
from nnduet.training.ingredients import Ingredients
from nnduet.training.planning import PlanSummary
from nnduet.training.probing import ProbeSummary
from nnduet.training.refitting import RefitSummary
from nnduet.training.run import TrainingSummary

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
SCHEMAS: dict[str, Any] = {
    "cases-first-line": RunHead,
    "cases-line": CaseLine,
    "convert": ConversionSummary,
    "cross-validate": CrossValidationSummary,
    "fit-head": RefitSummary,
    "ingredients": Ingredients,
    "metrics": Metrics,
    "plan": PlanSummary,
    "probe": ProbeSummary,
    "run": PredictionRun,
    "speed_comparison": SpeedComparison,
    "train": TrainingSummary,
}
"""{file name without its ending, or command whose ``--json`` prints it: what it holds, a record or a list of records}."""


def schema(kind: Any) -> dict[str, Any]:
    """The schema of a record, its parts under "$defs"."""
    made = msgspec.json.schema(kind)
    for record in set(_records(kind)):
        part = made["$defs"][record.__name__]
        part["required"] = [field.name for field in dataclasses.fields(record) if not is_left_out(field)]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _records(kind: Any) -> Iterator[type]:
    """The dataclasses in a type: itself, those of its fields, and those in brackets."""
    for part in typing.get_args(kind):
        yield from _records(part)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        yield kind
        for part in typing.get_type_hints(kind).values():
            yield from _records(part)


def text(kind: Any) -> str:
    """The schema as the file holds it."""
    return json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"


def main() -> int | str:
    """Write the files, or with ``--check`` name those that are not what would be written."""
    made = {FOLDER / f"{name}.schema.json": text(kind) for name, kind in SCHEMAS.items()}
    if "--check" not in sys.argv:
        FOLDER.mkdir(exist_ok=True)
        for path, content in made.items():
            path.write_text(content, encoding="utf-8")
        return 0
    there = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.schema.json")}
    wrong = sorted(path.name for path in {*made, *there} if made.get(path) != there.get(path))
    return f"{FOLDER}: run `python .ci/schemas.py` for {', '.join(wrong)}" if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
