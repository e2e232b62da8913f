"""The report in a real browser, as a reader uses it: no error, no request beyond the disk, every control does what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import opened
from scored_run import NASTY_CASE, NUM_CASES, write_scored_run

from nnduet.report.page import write_report
from nnduet.report.runs import read_run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    scored = write_scored_run(folder)
    write_report(read_run(scored, images=folder / "images"), folder / "report", viewer_cases=4)
    return folder / "report" / "index.html"


def test_every_section_is_reached_and_every_picture_and_figure_is_there(page: Path) -> None:
    with opened(page) as browser:
        links = browser.locator("nav a")
        names = links.all_inner_texts()
        assert names == ["Overview", "Segmentation", "Classification", "Cases", "Definitions"]
        for index in range(len(names)):
            links.nth(index).click()
            assert browser.locator("section:target h2").inner_text() == names[index]
        for picture in browser.locator("img").all():
            picture.scroll_into_view_if_needed()
            browser.wait_for_function("image => image.complete && image.naturalWidth > 50", arg=picture.element_handle())
        figures = browser.locator("svg.figure")
        assert figures.count() >= 10
        assert all(figure.bounding_box()["width"] > 100 for figure in figures.all() if figure.is_visible())


def test_the_table_sorts_both_ways_by_keyboard_and_keeps_undefined_values_last(page: Path) -> None:
    with opened(page) as browser:
        column = 1 + browser.locator("#case-table thead th").all_inner_texts().index("organ Dice")
        button = browser.locator(f"#case-table thead th:nth-child({column}) button")

        def values() -> list[str]:
            return browser.locator(f"#case-table tbody tr td:nth-child({column})").all_inner_texts()

        button.focus()
        browser.keyboard.press("Enter")
        assert values() == sorted(values()) and len(set(values())) > 2
        assert browser.locator("th[aria-sort=ascending]").count() == 1
        browser.keyboard.press("Enter")
        assert values() == sorted(values(), reverse=True)


def test_the_filter_counts_what_it_leaves(page: Path) -> None:
    with opened(page) as browser:
        browser.locator("#find").fill("<script>")
        assert browser.locator("#case-table tbody tr:visible th").all_inner_texts()[0].startswith(NASTY_CASE)
        assert browser.locator("#count").inner_text() == f"1 of {NUM_CASES} cases"
        browser.locator("#find").fill("")
        browser.locator("#only-wrong").check()
        assert browser.locator("#case-table tbody tr:visible").count() == NUM_CASES // 4
        browser.locator("#only-viewable").check()
        assert browser.locator("#case-table tbody tr:visible").count() <= NUM_CASES // 4


def test_a_case_opens_in_the_viewer_and_the_dialogue_closes_with_escape(page: Path) -> None:
    with opened(page) as browser:
        browser.locator("#case-table button.view").first.click()
        browser.locator("#viewer canvas").wait_for(state="visible", timeout=60_000)
        assert browser.locator("#viewer-title").inner_text()
        browser.keyboard.press("Escape")
        assert not browser.locator("#viewer").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page_in_light_and_dark(page: Path, scheme: str) -> None:
    """Contrast of text and links of at least 4.5, WCAG 2.2 success criterion 1.4.3."""
    luminance = """name => {
        const probe = document.createElement("span");
        probe.style.color = `var(${name})`;
        document.body.append(probe);
        const parts = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255);
        probe.remove();
        const [r, g, b] = parts.map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    }"""
    with opened(page, color_scheme=scheme) as browser:
        paper = browser.evaluate(luminance, "--paper")
        assert (paper < 0.2) == (scheme == "dark")
        for name in ("--ink", "--soft", "--accent", "--warn"):
            dark, light = sorted([paper, browser.evaluate(luminance, name)])
            assert (light + 0.05) / (dark + 0.05) >= 4.5, name


def test_on_a_phone_only_tables_scroll_sideways(page: Path) -> None:
    with opened(page, width=360, height=740) as browser:
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
