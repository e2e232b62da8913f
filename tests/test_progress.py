"""One form of progress: stages that share a bar, and texts that say which fold is meant; and no module has its own."""

from __future__ import annotations

from pathlib import Path

import nnduet
from nnduet.progress import part_of, prefixed


def test_the_second_of_two_stages_begins_in_the_middle() -> None:
    told: list[tuple[int, int, str]] = []
    second = part_of(lambda *step: told.append(step), 1, 2)
    assert second
    second(1, 4, "case_a")
    second(4, 4, "case_d")
    assert told == [(5, 8, "case_a"), (8, 8, "case_d")]


def test_a_prefix_stands_before_every_text() -> None:
    told: list[tuple[int, int, str]] = []
    of_fold = prefixed(lambda *step: told.append(step), "fold 3: ")
    assert of_fold
    of_fold(2, 9, "train epoch 1")
    assert told == [(2, 9, "fold 3: train epoch 1")]


def test_where_nobody_watches_there_is_no_progress() -> None:
    assert part_of(None, 0, 2) is None
    assert prefixed(None, "fold 0: ") is None


def test_no_other_module_says_what_progress_is() -> None:
    package = Path(nnduet.__file__).parent
    sources = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    others = [
        n for n, text in sources.items() if "Callable[[int, int" in text or "\nProgress =" in text or "class Progress" in text
    ]
    assert others == ["progress.py"]
