"""The report in a real browser, as a reader uses it: no error, no request beyond the disk, every control does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from browser import box_of, opened
from figure_texts import check_texts_of_figures
from scored_run import NASTY_CASE, NUM_CASES, write_answered_run, write_scored_run
from test_runs import write_model

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
        assert all(box_of(figure)["width"] > 100 for figure in figures.all() if figure.is_visible())


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
def test_text_stands_out_from_the_page_in_light_and_dark(page: Path, scheme: Literal["light", "dark"]) -> None:
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


@pytest.fixture(scope="module")
def answers_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    write_report(read_run(write_answered_run(folder)), folder / "report", viewer_cases=2)
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def fold_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a fold, drawn where another library has set its style, as nnU-Net's logger does in a training's process."""
    import matplotlib as mpl

    fold = write_model(tmp_path_factory.mktemp("model") / "m", covariates=("sex", "weight of the patient in kilograms"))
    rows = [f"{epoch},{2 - epoch / 50},{1.5 - epoch / 60},{1 - epoch / 90},{0.7 - epoch / 99},2" for epoch in range(40)]
    (fold / "progress.csv").write_text(
        "\n".join(["epoch,train_loss,val_loss,class_loss,task_grade_loss,seconds", *rows]) + "\n"
    )
    with mpl.rc_context():
        mpl.rcParams.update(dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 30))
        write_report(read_run(fold), fold / "report")
    return fold / "report" / "index.html"


@pytest.mark.parametrize("width", [1200, 360], ids=["desk", "phone"])
@pytest.mark.parametrize("kind", ["page", "answers_page", "fold_page"])
def test_row_64_and_118_texts_of_figures_are_readable_and_do_not_overlap(
    kind: str, width: int, request: pytest.FixtureRequest
) -> None:
    assert check_texts_of_figures(request.getfixturevalue(kind), width=width) >= 4


def test_row_118_every_figure_has_its_title_under_it(page: Path) -> None:
    with opened(page) as browser:
        for figure in browser.locator(".figures figure").all():
            assert figure.locator("figcaption").inner_text() == figure.locator("svg title").first.text_content()


@pytest.mark.parametrize("width", [1200, 360], ids=["desk", "phone"])
def test_row_118_the_navigation_stays_in_view_and_hides_no_heading(page: Path, width: int) -> None:
    with opened(page, width=width, height=740) as browser:
        browser.emulate_media(reduced_motion="reduce")
        for link in browser.locator("nav a").all():
            link.click()
            header, heading = box_of(browser.locator("header")), box_of(browser.locator("section:target h2"))
            assert header["y"] == 0 and header["height"] < 140
            assert browser.locator("nav").is_visible()
            assert heading["y"] >= header["height"] - 1


def test_row_118_the_title_says_what_the_page_is_about(page: Path, answers_page: Path, fold_page: Path) -> None:
    titles = {}
    for path in (page, answers_page, fold_page):
        with opened(path) as browser:
            titles[path] = browser.locator("h1").inner_text()
            assert browser.title() == f"{titles[path]} · nnDuet report"
    assert titles[page] == f"Evaluation of {NUM_CASES} cases: {'/'.join(page.parts[-3:-2])}/evaluation"
    assert titles[answers_page].startswith("Answers to 30 cases: ")
    assert titles[fold_page] == f"Evaluation of {NUM_CASES} cases: Dataset001_A, fold_0"


def test_row_117_answers_without_references_show_sets_outliers_volumes_and_pictures(answers_page: Path) -> None:
    with opened(answers_page) as browser:
        assert browser.locator("nav a").all_inner_texts() == ["Overview", "Answers", "Cases"]
        text = browser.locator("#answers").inner_text()
        assert "10 cases with 1 class; 10 cases with 2 classes; 10 cases with 3 classes" in text
        assert "1 cases are left to a person" in text and "1 of 30 masks are empty" in text and "1 cases are above 0.99" in text
        assert "case_07" in browser.locator("figure.case", has_text="outlier score 0.999").first.inner_text()
        table = browser.locator("#answers table", has_text="label 2")
        assert table.locator("tr", has_text="label 2").inner_text().split() == ["label", "2", "0", "0.036", "0.036", "1"]
        header = browser.locator("#case-table thead").inner_text()
        assert "grade not excluded" in header and "age lowest" in header and "outlier score" in header
        assert browser.locator("figure.case img").count() >= 20
