"""The page of metrics, docs/reference-metrics.md, made from the table of metrics.

python .ci/metrics_page.py            writes it
python .ci/metrics_page.py --check    says whether it is true; the tests ask this
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nnduet.evaluation.metrics.metric import Metric
from nnduet.evaluation.metrics.table import METRICS

PAGE = Path(__file__).parents[1] / "docs" / "reference-metrics.md"
HEAD = """# Metrics

What `metrics.json`, `final_metrics.json`, `per_case.csv` and reports hold, from the table in
[table.py](../src/nnduet/evaluation/metrics/table.py); made by `python .ci/metrics_page.py`. Every value has a 95 % interval
and a number of cases, or is `null` with a reason. What a case without a usable prediction counts as:
[evaluate](reference-files.md#written-by-evaluate). Bold are those of the first table of a report; `compare` tests the
differences of those with a Δ.
"""
SECTIONS = {
    "region": ("Regions of a segmentation", "Means over cases, under `segmentation`; case by case in `per_case.csv`."),
    "classification": ("Tasks with classes", "Of the whole task, under `tasks.<task>.metrics`."),
    "ranks": ("Tasks with ordered classes", "Besides those of tasks with classes."),
    "labels": ("Tasks with several labels", "Of the whole task; each label, as yes against no, under `per_class`."),
    "values": ("Tasks with values", "Under `tasks.<task>.metrics`."),
    "class": ("Classes", "Each class against the rest, under `tasks.<task>.per_class`."),
}
TITLES = "| key | name | unit | better | definition | source |\n|---|---|---|---|---|---|\n"


def page() -> str:
    """The whole page: a section per scope, a row per metric."""
    parts = []
    for scope, (title, text) in SECTIONS.items():
        parts.append(_section(title, text, [metric for metric in METRICS if metric.scope == scope]))
    return HEAD + "".join(parts)


def _section(title: str, text: str, metrics: Sequence[Metric]) -> str:
    return f"\n## {title}\n\n{text}\n\n{TITLES}{''.join(map(_row, metrics))}"


def _row(metric: Metric) -> str:
    name = (f"**{metric.label}**" if metric.is_headline else metric.label) + (" Δ" if metric.compared else "")
    cells = (f"`{metric.key}`", name, metric.unit, metric.better or "", metric.definition, metric.source)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else f"{PAGE}: run `python .ci/metrics_page.py`")
    PAGE.write_text(page(), encoding="utf-8")
