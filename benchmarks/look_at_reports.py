"""Open reports in headless Chromium as a reader would, click through everything, and take the pictures of the docs.

    pip install playwright                       # and Chromium, e.g. apt-get install chromium
    make demo && python benchmarks/look_at_reports.py --demo nnduet_demo/report --lidc MODEL --acdc MODEL/fold_0

For every report: no console error and no request beyond the disk, every section, the table, the viewer. Of the LIDC run, a
report of 300 cases is written and timed: it must open in under 3 seconds and stay under 50 MB. Writes docs/images/*.png and
docs/results/report.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from road import REPOSITORY, commit, machine

from nnduet.io.files import write_json_atomically
from nnduet.report.page import write_report
from nnduet.report.runs import Run, read_run

sys.path.insert(0, str(REPOSITORY / "tests" / "report"))

IMAGES = REPOSITORY / "docs" / "images"
KEPT = ("demo-viewer.png", "lidc-overview.png", "lidc-segmentation.png", "lidc-classification.png", "acdc-viewer.png")
"""Pictures that the docs show."""
NUM_CASES, MOST_SECONDS, MOST_MEGABYTES = 300, 3.0, 50.0


def look(name: str, page: Path) -> dict[str, Any]:
    """Open a report, go through it, take its pictures; how long it took to open."""
    from browser import opened

    IMAGES.mkdir(exist_ok=True)
    with opened(page / "index.html", width=1100, height=760) as browser:
        started = time.perf_counter()
        browser.emulate_media(reduced_motion="reduce")
        browser.goto((page / "index.html").absolute().as_uri(), wait_until="load")
        seconds = time.perf_counter() - started
        sections = []
        for link in browser.locator("nav a").all():
            link.click()
            section = browser.locator("section:target")
            sections.append(section.locator("h2").first.inner_text())
            for summary in section.locator("details > summary").all()[1:]:
                summary.click()
            section.evaluate("section => section.scrollIntoView()")
            _picture(browser, f"{name}-{sections[-1].lower()}.png")
        if browser.locator("#case-table").count():
            browser.locator("#case-table thead button").nth(1).click()
            browser.locator("#find").fill("1")
            browser.locator("#find").fill("")
        viewers = browser.locator("#case-table button.view")
        if viewers.count():
            viewers.first.click()
            browser.locator("#viewer canvas").wait_for(state="visible", timeout=60_000)
            browser.wait_for_timeout(4000)
            _picture(browser, f"{name}-viewer.png")
            browser.locator("#viewer-close").click()
    return {"sections": sections, "seconds_until_loaded": round(seconds, 2)}


def _picture(browser: Any, file_name: str) -> None:
    if file_name in KEPT:
        browser.screenshot(path=IMAGES / file_name)


def of_cases(run: Run, count: int) -> Run:
    """The first cases of a run; its metrics stay those of all."""
    kept = list(run.rows)[:count]
    index = [run.cases.index(case) for case in kept]
    tasks = tuple(
        replace(t, reference=t.reference[index], prediction=t.prediction[index], probabilities=t.probabilities[index])
        for t in run.tasks
    )
    return replace(run, rows={case: run.rows[case] for case in kept}, tasks=tasks)


def main() -> int:
    """Write, open, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("demo", "lidc", "acdc"):
        parser.add_argument(f"--{name}", type=Path, help="a finished report" if name == "demo" else "a run to report")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    if arguments.demo:
        result["demo"] = look("demo", arguments.demo)
    for name in ("lidc", "acdc"):
        if (path := getattr(arguments, name)) is None:
            continue
        run = read_run(path, raw=arguments.runs / f"accuracy-{name}" / "nnUNet_raw")
        run = of_cases(run, NUM_CASES) if name == "lidc" else run
        started = time.perf_counter()
        summary = write_report(run, arguments.runs / "report" / name, viewer_cases=NUM_CASES)
        seconds = round(time.perf_counter() - started, 1)
        result[name] = {
            "cases": summary.num_cases,
            "viewer_cases": summary.num_viewer_cases,
            "megabytes": summary.megabytes,
            "seconds_to_write": seconds,
            **look(name, Path(summary.page).parent),
        }
        result[name]["met"] = bool(
            result[name]["seconds_until_loaded"] < MOST_SECONDS and summary.megabytes < MOST_MEGABYTES and not summary.not_drawn
        )
    write_json_atomically(REPOSITORY / "docs/results/report.json", {"commit": commit(), "machine": machine(), **result})
    sys.stdout.write(f"{result}\n")
    return int(not all(entry.get("met", True) for entry in result.values()))


if __name__ == "__main__":
    sys.exit(main())
