"""Chromium for tests of the page: a tab that fails a test which leaves an error in its console, and measures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: a folder that pictures of the pages are written to; they are for docs/images
PICTURES = os.environ.get("PAGE_PICTURES")

#: what the documentation shows, and how large
_WIDE: ViewportSize = {"width": 1200, "height": 760}
PICTURED: dict[str, ViewportSize] = {
    "queue-light": _WIDE, "running-dark": _WIDE, "parent-light": _WIDE, "failed-dark": _WIDE,
    "form-light": _WIDE, "charts-light": _WIDE,
    "travel-light": {"width": 920, "height": 640}, "queue-phone": {"width": 390, "height": 760},
}  # fmt: skip

needs_chromium = pytest.mark.skipif(
    PROGRAM is None and os.environ.get("REQUIRE_PROGRAMS") != "1", reason="Chromium is not installed"
)

#: a page that looks every two seconds, on a machine that has much else to do
expect.set_options(timeout=20_000)

CONTRASTS = Path(__file__).with_name("contrasts.js").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of one module."""
    assert PROGRAM is not None, "Chromium is not installed, and REQUIRE_PROGRAMS=1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(
    browser: Browser, url: str, token: str | None = None, *, refusals: Sequence[int] = (), **choices: Any
) -> Iterator[Page]:
    """A tab at `url`, logged in with `token`.

    At the end nothing may have gone wrong there, nor been asked elsewhere. Answers of the codes `refusals` may be.
    """
    expected = [f"{said} {code}" for code in refusals for said in ("status of", "Status Error Code")]
    context = browser.new_context(base_url=url, **({"viewport": {"width": 1280, "height": 800}} | choices))
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))

    def heard(kind: str, text: str) -> None:
        if kind == "error" and not any(each in text for each in expected):
            wrong.append(text)

    page.on("console", lambda said: heard(said.type, said.text))
    page.on("request", lambda asked: None if asked.url.startswith(url) else wrong.append(asked.url))
    try:
        if token is not None:
            page.goto("/login")
            page.get_by_label("Token").fill(token)
            page.get_by_role("button", name="Log in").click()
        yield page
        assert not wrong
    finally:
        context.close()


def until(page: Page, holds: str) -> None:
    """Wait until a JavaScript expression is true. (Playwright's own wait evaluates a text in the page, which the page's
    policy does not allow.)"""
    page.evaluate(
        "async (longest) => { const end = performance.now() + longest;"
        f" while (!({holds})) {{ if (performance.now() > end) throw new Error('it did not happen');"
        " await new Promise((done) => setTimeout(done, 50)); } }",
        60_000,
    )


def low_contrasts(page: Page) -> list[Any]:
    """The texts of a page that stand out too little from their ground."""
    found: list[Any] = page.evaluate(CONTRASTS)
    assert len(found) > 5, "hardly any text was found"
    return [each for each in found if each[0] < each[1]]


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page, where that was asked for and the documentation shows it: small, and of the same
    things each time."""
    if PICTURES is None or name not in PICTURED:
        return
    from PIL import Image

    usual = page.viewport_size
    page.set_viewport_size(PICTURED[name])
    page.evaluate("document.querySelectorAll('video').forEach((each) => { each.currentTime = 0.9; })")
    until(page, "[...document.querySelectorAll('video')].every((each) => each.readyState === 4 && !each.seeking)")
    until(page, "performance.now() > 2500")  # a player's sign that it loads has faded
    path = Path(PICTURES) / f"page-{name}.png"
    page.screenshot(path=path, mask=[page.locator("footer")], mask_color="#8884")
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
    if usual is not None:
        page.set_viewport_size(usual)
