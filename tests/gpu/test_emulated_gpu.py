"""What a GPU does, on a machine without one: see ``emulated.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_row_94_out_of_memory_on_the_device_falls_back_to_the_same_answers(model_3d: Path) -> None:
    """With tasks: never (two folds), once (one fold, then patch by patch), for one fold of two, always (one fold)."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(here / "prediction.py"), str(model_3d)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "same", done.stderr
