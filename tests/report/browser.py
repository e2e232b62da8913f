"""A headless Chromium for pages that are opened from disk: ``with opened(path) as page``.

A page that logs an error, throws, opens a dialogue, or asks for anything that does not lie on the disk fails its test.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Dialog, FloatRect, Locator, Page, Playwright, sync_playwright

__all__ = ["box_of", "opened", "pixels"]

_LOCAL = ("file:", "data:", "blob:", "about:")
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",  # WebGL2 without a graphics card
    "--enable-unsafe-swiftshader",
)
_running: list[Playwright] = []


@contextmanager
def opened(
    path: Path,
    *,
    width: int = 1200,
    height: int = 800,
    color_scheme: Literal["light", "dark"] | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[Page]:
    """The page at ``path`` in a fresh profile; its faults are raised at the end, unless the block raised before.

    Skips the test where Chromium is not installed.
    """
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("Chromium is not installed")
    faults: list[str] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, _driver() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            args=[*_ARGUMENTS, *arguments],
            viewport={"width": width, "height": height},
            color_scheme=color_scheme,
        )
        try:
            page = context.new_page()
            _record_faults(page, faults)
            page.goto(path.resolve().as_uri())
            yield page
        finally:
            context.close()
    assert not faults, "\n".join(faults)


@contextmanager
def _driver() -> Iterator[Playwright]:
    """Playwright, which may run only once at a time: the one of a surrounding ``opened``, or a new one."""
    if _running:
        yield _running[0]
        return
    with sync_playwright() as playwright:
        _running.append(playwright)
        try:
            yield playwright
        finally:
            _running.clear()


def box_of(shown: Locator) -> FloatRect:
    """Where a shown element stands on the page, in pixels."""
    box = shown.bounding_box()
    assert box is not None
    return box


def _record_faults(page: Page, faults: list[str]) -> None:
    def refuse(dialog: Dialog) -> None:
        faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("console", lambda message: faults.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("request", lambda request: None if request.url.startswith(_LOCAL) else faults.append(f"request: {request.url}"))
    page.on("dialog", refuse)
    page.on("websocket", lambda socket: faults.append(f"socket: {socket.url}"))


def pixels(part: Page | Locator) -> npt.NDArray[np.int16]:
    """What a page or a part of it shows now, (Y, X, 3) from 0 to 255; signed, so that two can be subtracted."""
    with Image.open(io.BytesIO(part.screenshot())) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int16)
