"""Every program of examples/ runs as it stands, says what a reader would want to see, and stays short."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "predict_array": [r"with labels 0, 1$", r"^  malignancy3: \d", r"^nodule: [01]\.\d\d ml"],
    "evaluate_folders": [r"^lesion DSC +0\.\d+ +0\.\d+ to 0\.\d+$", r"^case_id,organ_dsc", r"^case_0,"],
    "fit_head": [r"^case head \(", r"0\.[78]\d are right; .* hold 0\.(8[5-9]|9\d)"],
    "read_bundle": [r"^labels: .*nodule", r"^task texture: ordinal", r"^with one bit changed: nodule\.nnduet: "],
    "new_metric": [r"^found at all, higher is better", r"^0\.80 \(0\.\d+ to 0\.\d+\), 30 cases of 15 patients$"],
    "new_pooling": [r"volumes of the masks: \[\d+, \d+, 16384\]", r"^intensity: 8 features", r"^stage 1: 48 features"],
}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs_and_shows_its_point(name: str, capsys: pytest.CaptureFixture[str], one_thread: None) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    for line in SAYS[name]:
        assert re.search(line, said, re.M), f"{line}\n{said}"


def test_an_example_is_read_in_a_minute_and_says_how_to_run_it() -> None:
    assert len(SAYS) == len(list(EXAMPLES.glob("*.py"))) == 6
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 60 and f"python examples/{path.name}" in text
