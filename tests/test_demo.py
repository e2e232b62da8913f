"""The demo passes only where every measured value reaches its floor; the road itself is run by benchmarks/demo_seeds.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nnduet import demo
from nnduet.demo import FLOORS, DemoSummary, run_demo
from nnduet.errors import OutputExistsError
from nnduet.io.claimed_folders import claim_folder

SUMMARY = DemoSummary(
    "out", "data", "model", "predictions", "metrics.json", "page", dict(FLOORS), dict.fromkeys(FLOORS), dict(FLOORS)
)


def test_values_at_their_floors_pass() -> None:
    assert SUMMARY.passed
    assert SUMMARY.to_json()["passed"] is True


@pytest.mark.parametrize("name", FLOORS)
def test_one_value_below_its_floor_fails(name: str) -> None:
    assert not replace(SUMMARY, measured={**FLOORS, name: FLOORS[name] - 0.01}).passed


def test_an_earlier_demo_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(OutputExistsError):
        run_demo(tmp_path)
    assert not (tmp_path / "nnduet_data").exists()


@pytest.mark.parametrize(("finished", "state"), [(True, "holds a demo;"), (False, "holds a demo that did not reach its end;")])
def test_row_116_a_second_demo_says_what_is_there_and_changes_nothing(tmp_path: Path, finished: bool, state: str) -> None:
    claim_folder(tmp_path / "demo", "nnduet demo")
    (tmp_path / "demo" / "images").mkdir()
    if finished:
        (tmp_path / "demo" / "demo.json").write_text("{}")
    with pytest.raises(OutputExistsError, match=state) as caught:
        run_demo(tmp_path / "demo")
    assert caught.value.remedy.startswith("make it again with --replace, name another folder by --output, or look at")
    assert (tmp_path / "demo" / "images").is_dir()


def test_row_116_replace_deletes_an_earlier_demo_but_no_folder_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BegunError(Exception):
        pass

    def begin(folder: Path, **_: object) -> None:
        raise BegunError

    monkeypatch.setattr(demo, "write_phantom", begin)
    claim_folder(tmp_path / "demo", "nnduet demo")
    (tmp_path / "demo" / "images").mkdir()
    with pytest.raises(BegunError):
        run_demo(tmp_path / "demo", replace_old=True)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == [".nnduet-folder"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_text("mine")
    with pytest.raises(OutputExistsError, match="did not make this; nothing was deleted"):
        run_demo(tmp_path / "mine", replace_old=True)
    assert (tmp_path / "mine" / "photo.png").read_text() == "mine"
