"""What the figures of a page look like in a real browser: texts that can be read, inside their figure, none over another."""

from __future__ import annotations

from pathlib import Path

from browser import opened

__all__ = ["check_texts_of_figures"]

_TEXTS = """() => [...document.querySelectorAll("svg.figure")].filter(svg => svg.checkVisibility()).map(svg => {
    const frame = svg.getBoundingClientRect();
    const scale = frame.width / svg.viewBox.baseVal.width;
    const texts = [...svg.querySelectorAll("text")].map(text => {
        const box = text.getBoundingClientRect();
        const size = scale * parseFloat(getComputedStyle(text).fontSize);
        return {text: text.textContent, size, left: box.left, right: box.right, top: box.top, bottom: box.bottom};
    });
    return {title: svg.querySelector("title").textContent, texts,
            frame: {left: frame.left, right: frame.right, top: frame.top, bottom: frame.bottom}};
})"""


def _overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether two boxes share more than a pixel each way."""
    across = min(one["right"], other["right"]) - max(one["left"], other["left"])
    down = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
    return across > 1 and down > 1


def check_texts_of_figures(path: Path, *, width: int) -> int:
    """The number of figures of a page, after looking at each of them at that width of the window, in pixels."""
    with opened(path, width=width) as browser:
        figures = browser.evaluate(_TEXTS)
        page_width = browser.evaluate("document.documentElement.scrollWidth")
    assert page_width <= width
    for figure in figures:
        frame, texts = figure["frame"], [text for text in figure["texts"] if text["text"].strip()]
        assert texts, figure["title"]
        for index, text in enumerate(texts):
            assert 9 <= text["size"] <= 20, (figure["title"], text)
            assert frame["left"] - 2 <= text["left"] and text["right"] <= frame["right"] + 2, (figure["title"], text)
            assert frame["top"] - 2 <= text["top"] and text["bottom"] <= frame["bottom"] + 2, (figure["title"], text)
            hit = [other["text"] for other in texts[index + 1 :] if _overlap(text, other)]
            assert not hit, (figure["title"], text["text"], hit)
    return len(figures)
