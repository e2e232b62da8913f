"""The volume viewer in a real browser: it draws, its controls work, and it asks nobody for anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import opened, pixels
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page

import nnduet.report
from nnduet.io.geometry import Geometry
from nnduet.report.volumes import CaseVolumes, write_volumes

Picture = NDArray[np.int16]

PACKAGE = Path(nnduet.report.__file__).parent
HOSTILE = "<script>alert(1)</script>"
LABELS = {HOSTILE: 1, "edema": 3}
FLIPPED_X = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Geometry((12, 40, 48), (3.0, 1.0, 1.0), (30.0, -20.0, 5.0), FLIPPED_X)
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Viewer</title>
<link rel="stylesheet" href="viewer.css"><style>:root { color-scheme: light dark; }</style>
<main id="place"></main><script src="viewer.js"></script></html>
"""


def _case(**changes: Any) -> CaseVolumes:
    """A ramp along x; predicted and true box of one size, 2 voxels apart, and a second label in the reference."""
    image = np.broadcast_to(np.arange(48, dtype=np.float32) * 10, GRID.shape).copy()
    prediction, reference = np.zeros(GRID.shape, dtype=np.uint8), np.zeros(GRID.shape, dtype=np.uint8)
    prediction[3:9, 12:28, 14:34] = 1
    reference[3:9, 14:30, 14:34] = 1
    reference[5:7, 16:18, 36:38] = 3
    evidence = np.zeros(GRID.shape, dtype=np.float32)
    evidence[:, :, 20:] = 1.5
    evidence[:, :, :5] = -1.0
    fields = {"image": image, "prediction": prediction, "reference": reference, "evidence": evidence}
    return CaseVolumes(geometry=GRID, labels=LABELS, **{**fields, **changes})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a report has it: a page, the viewer, NiiVue, a full case 0 and a case 1 of an image alone."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "vendor").mkdir()
    shutil.copy(PACKAGE / "vendor" / "niivue.umd.js", folder / "vendor")
    for name in ("viewer.js", "viewer.css"):
        shutil.copy(PACKAGE / "static" / name, folder)
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    write_volumes(folder / "volumes" / "0.js", "0", _case())
    write_volumes(folder / "volumes" / "1.js", "1", _case(prediction=None, reference=None, evidence=None))
    return folder


@pytest.fixture(scope="module")
def page(report: Path) -> Iterator[Page]:
    """One browser for the tests that can share one; small, because it draws without a graphics card."""
    with opened(report / "index.html", width=640, height=480) as page:
        yield page


@pytest.fixture
def viewer(page: Page) -> Page:
    """The page with case 0 just opened; ``window.nv`` is NiiVue."""
    _open(page, "0")
    return page


def _open(page: Page, key: str) -> None:
    page.evaluate("async key => { window.nv = await nnduetViewer.open(place, key, 'Case ' + key) }", key)


def _picture(page: Page) -> Picture:
    """The canvas after two frames, in which whatever changed was drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return pixels(page.locator("canvas"))


def _box(page: Page, layer: str) -> Locator:
    return page.locator(f"[data-layer={layer}]").get_by_label("Show")


def _num_changed(before: Picture, after: Picture) -> int:
    """Pixels that differ visibly."""
    return int((np.abs(before - after).max(axis=2) > 16).sum())


def _num_lit(picture: Picture) -> int:
    return _num_changed(np.zeros_like(picture), picture)


def test_a_case_is_drawn_in_three_planes_and_3d(viewer: Page) -> None:
    picture = _picture(viewer)
    tiles = viewer.evaluate("nv.screenSlices.map(tile => Array.from(tile.leftTopWidthHeight))")
    assert len(tiles) == 4
    for left, top, width, height in np.rint(tiles).astype(int):
        assert picture[top : top + height, left : left + width].std() > 10


def test_each_check_box_shows_and_hides_its_layer(viewer: Page) -> None:
    before = _picture(viewer)
    for layer in ("image", "reference", "prediction", "evidence"):
        _box(viewer, layer).press("Space")
        assert _num_changed(before, _picture(viewer)) > 400, layer
        _box(viewer, layer).press("Space")
        assert _num_changed(before, _picture(viewer)) < 50, layer


def test_the_prediction_is_filled_and_the_reference_is_an_outline(viewer: Page) -> None:
    viewer.get_by_label("View", exact=True).select_option("Axial")
    _box(viewer, "image").uncheck()
    _box(viewer, "reference").uncheck()
    fill = _num_lit(_picture(viewer))
    _box(viewer, "reference").check()
    _box(viewer, "prediction").uncheck()
    assert 0 < _num_lit(_picture(viewer)) < fill / 3


def test_sliders_set_niivue_from_the_keyboard(viewer: Page) -> None:
    before = viewer.evaluate("[nv.volumes[0].cal_min, nv.volumes[0].cal_max]")
    viewer.get_by_label("Window, low").press("PageUp")
    viewer.get_by_label("Window, high").press("ArrowLeft")
    after = viewer.evaluate("[nv.volumes[0].cal_min, nv.volumes[0].cal_max]")
    assert before[0] < after[0] < after[1] < before[1]
    viewer.locator("[data-layer=prediction]").get_by_label("Opacity").press("Home")
    assert viewer.evaluate("nv.volumes[2].opacity") == 0
    viewer.locator("[data-layer=reference]").get_by_label("Opacity").press("ArrowLeft")
    assert viewer.evaluate("nv.drawOpacity") == pytest.approx(0.95)


def test_each_view_can_be_chosen_and_moved_in_with_the_arrow_keys(viewer: Page) -> None:
    for view, name in (("Axial", "AXIAL"), ("Coronal", "CORONAL"), ("Sagittal", "SAGITTAL"), ("3D", "RENDER")):
        viewer.get_by_label("View", exact=True).select_option(view)
        before = _picture(viewer)
        viewer.locator("canvas").focus()
        for key in ("ArrowRight", "ArrowUp", "ArrowUp", "v", "?"):  # the last two are NiiVue's and must not reach it
            viewer.keyboard.press(key)
        assert _num_changed(before, _picture(viewer)) > 50, view
        assert viewer.evaluate("name => nv.opts.sliceType === niivue.SLICE_TYPE[name]", name)


def _under_the_cross(page: Page) -> tuple[float, str, str]:
    """Image value, predicted and true label."""
    text = page.locator(".nnduet-viewer-place").inner_text()
    found = re.fullmatch(r"Under the cross: image: (\S+), evidence: \S+, prediction: (.*), reference: (.*)", text)
    assert found, text
    return float(found[1]), found[2], found[3]


def test_what_lies_under_the_cross_is_what_the_case_holds_there(viewer: Page) -> None:
    value, *labels = _under_the_cross(viewer)  # z 5, y 16, x 14: most is outlined there
    assert value == pytest.approx(140, abs=2) and labels == [HOSTILE, HOSTILE]
    viewer.locator("canvas").focus()
    for _ in range(22):  # x points to the patient's right here, and that is on the left
        viewer.keyboard.press("ArrowLeft")
    value, *labels = _under_the_cross(viewer)
    assert value == pytest.approx(360, abs=2) and labels == ["background", "edema"]


def test_the_wheel_scrolls_the_page_until_the_picture_is_clicked(viewer: Page) -> None:
    viewer.get_by_label("View", exact=True).select_option("Axial")
    viewer.locator("canvas").hover()
    place, scrolled = _under_the_cross(viewer), viewer.evaluate("scrollY")
    viewer.mouse.wheel(0, 30)
    viewer.wait_for_function("before => scrollY > before", arg=scrolled)
    assert _under_the_cross(viewer) == place
    viewer.locator("canvas").click()
    before = viewer.evaluate("[nv.frac2vox(nv.scene.crosshairPos)[2], scrollY]")
    viewer.mouse.wheel(0, 30)
    viewer.wait_for_function("before => nv.frac2vox(nv.scene.crosshairPos)[2] !== before", arg=before[0])
    assert viewer.evaluate("scrollY") == before[1]


def test_a_label_called_script_appears_as_text(viewer: Page) -> None:
    assert viewer.locator(".nnduet-viewer-legend").get_by_text(HOSTILE, exact=True).is_visible()
    assert viewer.locator("#place script").count() == 0


def test_only_layers_that_the_case_has_get_controls(page: Page) -> None:
    _open(page, "1")
    assert page.locator("[data-layer]").evaluate_all("all => all.map(one => one.dataset.layer)") == ["image"]
    assert page.locator(".nnduet-viewer-legend li").count() == 0
    assert _picture(page).std() > 10


def test_of_two_cases_opened_in_haste_the_second_is_shown(page: Page) -> None:
    answers = page.evaluate(
        "async () => (await Promise.all([nnduetViewer.open(place, '0', 'First'), nnduetViewer.open(place, '1', 'Second')]))"
        ".map(answer => answer !== null)"
    )
    assert answers == [False, True]
    assert page.get_by_role("group", name="Second").is_visible()
    assert page.locator("canvas").count() == 1


def test_closing_leaves_nothing_behind(viewer: Page) -> None:
    viewer.evaluate("nnduetViewer.close()")
    assert viewer.locator("#place > *").count() == 0
    assert viewer.evaluate("nv.gl.isContextLost()")


def test_every_control_has_a_name_and_is_reached_by_tab(viewer: Page) -> None:
    controls = viewer.locator("#place :is(input, select)")
    names = controls.evaluate_all("all => all.map(one => one.ariaLabel || one.labels[0]?.textContent)")
    assert names == ["View", "Show", "Opacity", "Window, low", "Window, high", *["Show", "Opacity"] * 3]
    viewer.locator("canvas").focus()
    for _ in names:
        viewer.keyboard.press("Tab")
    assert viewer.evaluate("document.activeElement.closest('[data-layer]').dataset.layer") == "reference"


def test_niivue_is_loaded_at_the_first_case_and_once(report: Path) -> None:
    with opened(report / "index.html", width=640, height=480) as page:
        assert page.evaluate("typeof niivue") == "undefined"
        for key in ("1", "0"):
            _open(page, key)
            assert page.locator("canvas").count() == 1
        assert page.locator("script[src='vendor/niivue.umd.js']").count() == 1
        assert _picture(page).std() > 10


def test_a_phone_in_the_dark_sees_the_viewer_without_scrolling_sideways(report: Path) -> None:
    with opened(report / "index.html", width=390, height=800, color_scheme="dark") as page:
        _open(page, "0")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        height, width, _ = _picture(page).shape
        assert width > 340
        assert height == pytest.approx(560, abs=3)  # 70 % of the height
        assert _picture(page).std() > 10


def test_without_webgl2_a_text_says_so(report: Path) -> None:
    with opened(report / "index.html", arguments=["--disable-3d-apis"]) as page:
        _open(page, "0")
        assert page.evaluate("nv") is None
        assert "no WebGL2" in page.locator("#place").inner_text()


def test_a_case_whose_file_is_missing_is_named(report: Path) -> None:
    with pytest.raises(AssertionError, match="ERR_FILE_NOT_FOUND"), opened(report / "index.html") as page:
        _open(page, "7")
        assert "volumes/7.js is missing" in page.locator("#place").inner_text()


def test_the_browser_of_these_tests_notices_faults(tmp_path: Path) -> None:
    scripts = "<script>alert(1)</script><script>console.error(2)</script><script>throw new Error(3)</script>"
    (tmp_path / "page.html").write_text(f"{scripts}<img src='https://nnduet.invalid/a.png'>", encoding="utf-8")
    with pytest.raises(AssertionError) as told, opened(tmp_path / "page.html"):
        pass
    for fault in ("dialog: 1", "console: 2", "error: 3", "request: https://nnduet.invalid/a.png"):
        assert fault in str(told.value)
