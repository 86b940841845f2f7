"""Charts in a real browser: what is drawn is what the page's JSON says, also when the page is brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_tab import browser as browser
from browser_tab import low_contrasts, needs_chromium, picture, tab
from page_shop import TOKEN, served
from page_site import PageSite
from playwright.sync_api import Browser, expect
from use_history import record

pytestmark = [pytest.mark.slow, needs_chromium]

PHONE = {"width": 390, "height": 844}
KEYS = ("utilisation", "activity", "throughput", "gpu_memory", "process_memory")
#: how many points of a chart's canvas have one of its colours
COUNT_INKED = """canvas => {
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let inked = 0;
    for (let at = 0; at < data.length; at += 4) {
        const [red, green, blue, alpha] = data.slice(at, at + 4);
        if (alpha > 200 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60) inked++;
    }
    return inked / (canvas.width * canvas.height);
}"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PageSite]:
    site = PageSite(tmp_path)
    record(site.store, 7)
    yield site
    site.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_with_all_its_points(browser: Browser, site: PageSite, scheme: str) -> None:
    with served(site.store, site.settings) as url, tab(browser, url, TOKEN, color_scheme=scheme) as page:
        page.goto("/charts?span=6h")
        charts = {each["key"]: each for each in page.request.get("/charts/data.json?span=6h").json()["charts"]}
        for key in KEYS:
            canvas = page.locator(f"#plot-{key} canvas")
            points = sum(value is not None for each in charts[key]["series"] for value in each["values"])
            expect(canvas).to_have_attribute("data-points", str(points))
            assert canvas.evaluate(COUNT_INKED) > (0.2 if charts[key]["stacked"] else 0.005), key
        assert low_contrasts(page) == []
        picture(page, f"charts-{scheme}")


def test_a_line_of_the_table_is_what_the_legend_says_there(browser: Browser, site: PageSite) -> None:
    with served(site.store, site.settings) as url, tab(browser, url, TOKEN) as page:
        page.goto("/charts?span=6h")
        over = page.locator("#plot-gpu_memory .u-over")
        over.hover(position={"x": 120, "y": 60})
        legend = page.locator("#plot-gpu_memory .u-legend")
        said = [text.removesuffix(" GB") for text in legend.locator(".u-value").all_inner_texts()]
        page.locator("figure", has=page.locator("#plot-gpu_memory")).get_by_text("As a table").click()
        row = page.locator("#table-gpu_memory tbody tr", has_text=said[0])
        expect(row.locator("td")).to_have_text([f"{float(value)}" for value in said[1:]])


def test_an_open_page_draws_what_is_new_and_keeps_what_was_opened(browser: Browser, site: PageSite) -> None:
    with served(site.store, site.settings) as url, tab(browser, url, TOKEN) as page:
        page.goto("/charts?span=1h")
        table = page.locator("figure", has=page.locator("#plot-activity")).locator("details")
        table.locator("summary").click()
        page.locator("#plot-activity canvas").evaluate("canvas => { canvas.dataset.mine = 'yes'; }")
        before = page.locator(".tiles dd").first.inner_text()
        record(site.store, 1, workers=("gpu-3-0000abcd",))
        page.evaluate("htmx.trigger('#use', 'refresh')")
        expect(page.locator(".tiles dd").first).not_to_have_text(before)
        expect(page.locator("#plot-utilisation .u-legend")).to_contain_text("gpu-3")
        expect(table).to_have_attribute("open", "")
        expect(page.locator("#plot-activity canvas")).to_have_attribute("data-mine", "yes")


def test_on_a_phone_nothing_is_wider_than_the_screen_and_a_turned_one_is_filled(
    browser: Browser, site: PageSite
) -> None:
    with (
        served(site.store, site.settings) as url,
        tab(browser, url, TOKEN, viewport=PHONE) as page,
    ):
        page.goto("/charts?span=6h")
        page.locator("#plot-activity canvas").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.set_viewport_size({"width": 844, "height": 390})
        expect(page.locator("#plot-activity .uplot")).to_have_css(
            "width", page.locator("#plot-activity").evaluate("e => e.clientWidth + 'px'")
        )
