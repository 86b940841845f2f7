"""The page in Chromium: over a day's work, and with a worker at work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser_tab import browser as browser
from browser_tab import low_contrasts, needs_chromium, picture, tab, until
from page_shop import PROMPTS, TOKEN, fleet, served
from playwright.sync_api import Browser, Page, expect

from source.store import NewTask, Status
from source.store.sqlite import SqliteStore

pytestmark = [pytest.mark.slow, needs_chromium]

OPEN_ALL = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
#: a worker with the fake engine, slow enough to be watched
WORKER = """
import sys
from headless.testing import FakeOrchestrator
from source.settings import load_settings
from source.startup import Equipment, run_worker
from source.task_registry import registry

settings = load_settings(poll_interval_s=0.3, heartbeat_s=1, lease_s=10, progress_interval_s=0, shutdown_grace_s=0)
engine = FakeOrchestrator(steps=30, step_s=0.1)
sys.exit(run_worker(settings, equipment=Equipment(engine, registry(), lambda store, storage: (store, storage))))
"""


# -- a day's work ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Day:
    """The page over a database as after a day of work."""

    url: str
    store: SqliteStore
    ids: Mapping[str, str]

    @property
    def paths(self) -> dict[str, str]:
        tasks = {name: f"/task?id={self.ids[name]}" for name in ("running", "travel", "parent", "failed", "queued1")}
        return {
            "queue": f"/?open={self.ids['parent']}", **tasks, "logs": "/logs", "workers": "/workers",
            "use": "/charts", "types": "/new", "fields": "/new/t2v", "none": "/?text=nothing+like+it",
        }  # fmt: skip


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    shop, ids = fleet(tmp_path_factory.mktemp("day"))
    with served(shop.store, shop.settings) as url:
        yield Day(url, shop.store, ids)
    shop.store.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(browser: Browser, day: Day, scheme: str) -> None:
    with tab(browser, day.url, TOKEN, color_scheme=scheme) as page:
        for name, path in day.paths.items():
            page.goto(path)
            picture(page, f"{name}-{scheme}")
            page.evaluate(OPEN_ALL)
            assert low_contrasts(page) == [], name


def test_every_page_fits_a_phone(browser: Browser, day: Day) -> None:
    with tab(browser, day.url, TOKEN, viewport={"width": 390, "height": 800}) as page:
        for name, path in day.paths.items():
            page.goto(path)
            picture(page, f"{name}-phone")
            page.evaluate(OPEN_ALL)
            beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert beyond <= 0, f"{name} is {beyond} pixels too wide"


def test_a_task_at_work_shows_how_far_it_is_and_what_it_looks_like(browser: Browser, day: Day) -> None:
    with tab(browser, day.url, TOKEN) as page:
        page.goto(f"/task?id={day.ids['running']}")
        until(page, "document.querySelector('.preview').naturalWidth === 208")
        expect(page.get_by_label("Progress", exact=True).locator("progress")).to_have_js_property("value", 0.6)
        expect(page.locator("#steps")).to_have_text("12/20, 1.8 s a step, 0:15 left")
        page.goto(f"/task?id={day.ids['parent']}")
        page.get_by_role("link", name="travel_segment:1: In Progress, 38 %").click()
        expect(page.locator("h1")).to_contain_text("travel_segment")


def test_the_page_is_used_by_keyboard_alone(browser: Browser, day: Day) -> None:
    with tab(browser, day.url, TOKEN) as page:
        page.goto("/")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        to(page, lambda: page.get_by_label("Search"))
        page.keyboard.type("frost growing")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?*text=frost*")
        expect(page.locator("#list tbody tr")).not_to_have_count(0)
        for row in page.locator("#list tbody tr").all():
            expect(row).to_contain_text("frost")
        page.goto(f"/task?id={day.ids['queued2']}")
        to(page, lambda: page.get_by_role("button", name="Cancel…"))
        page.keyboard.press("Enter")
        sure = page.get_by_role("button", name="Cancel", exact=True)
        expect(sure).to_be_visible()
        page.keyboard.press("Escape")
        expect(sure).to_be_hidden()
        page.keyboard.press("Enter")
        to(page, lambda: sure)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text("Cancellation was asked for.")
        assert day.store.get(day.ids["queued2"]).status is Status.CANCELLED


def to(page: Page, wanted: Callable[[], object], most: int = 60) -> None:
    """Go on by Tab until there; each stop on the way is to be seen."""
    target = wanted().element_handle()  # type: ignore[attr-defined]
    for _ in range(most):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("(target) => document.activeElement === target", target):
            return
    raise AssertionError("Tab does not lead there")


def test_players_go_together_and_seek(browser: Browser, day: Day) -> None:
    with tab(browser, day.url, TOKEN) as page:
        page.goto(f"/task?id={day.ids['travel']}")
        expect(page.locator("video")).to_have_count(2)
        until(page, "[...document.querySelectorAll('video')].every((each) => each.readyState >= 2)")
        page.get_by_role("button", name="Play together").click()
        until(page, "[...document.querySelectorAll('video')].every((each) => each.currentTime > 0.3)")
        page.get_by_role("button", name="Pause").click()
        until(page, "[...document.querySelectorAll('video')].every((each) => each.paused)")
        page.evaluate("document.querySelector('video').currentTime = 1")
        until(page, "[...document.querySelectorAll('video')].every((each) => Math.abs(each.currentTime - 1) < 0.1)")
        assert different_frames(page)


def different_frames(page: Page) -> bool:
    """Whether what is drawn at the end is another picture than at the begin."""
    found: bool = page.evaluate("""async () => {
      const video = [...document.querySelectorAll("video")].at(-1);
      const drawn = async (at) => {
        video.currentTime = at;
        await new Promise((done) => video.addEventListener("seeked", done, { once: true }));
        const canvas = new OffscreenCanvas(16, 16), context = canvas.getContext("2d");
        context.drawImage(video, 0, 0, 16, 16);
        return context.getImageData(0, 0, 16, 16).data;
      };
      video.pause();
      const [first, last] = [await drawn(0.01), await drawn(video.duration - 0.1)];
      return first.reduce((sum, value, place) => sum + Math.abs(value - last[place]), 0) / first.length > 5;
    }""")
    return found


def test_what_happens_elsewhere_appears_by_itself(browser: Browser, day: Day) -> None:
    """Without losing what is open, or where one stands."""
    with tab(browser, day.url, TOKEN) as page:
        page.goto("/")
        link = page.locator(f"[id='task-{day.ids['failed']}']")
        link.focus()
        added = day.store.add(NewTask(task_type="t2v", params={"prompt": "a newcomer"}))
        expect(page.locator(f"[id='row-{added}']")).to_contain_text("a newcomer")
        expect(link).to_be_focused()
        page.goto(f"/task?id={added}")
        page.get_by_text("Parameters").click()
        expect(page.locator("#live h1")).to_contain_text("Queued")
        day.store.cancel(added)
        expect(page.locator("#live h1")).to_contain_text("Cancelled")
        expect(page.locator("pre")).to_contain_text("a newcomer")
        expect(page.locator("#live")).not_to_have_attribute("hx-trigger", re.compile("every"))


# -- a worker at work -----------------------------------------------------------------------------------------------


@contextmanager
def process(root: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [sys.executable, *command], cwd=root, env=os.environ | environment, text=True, stderr=subprocess.PIPE
    )
    try:
        yield running
    finally:
        running.terminate()
        running.communicate(timeout=30)


def test_a_page_that_gets_no_answer_says_so_until_it_does(browser: Browser, day: Day) -> None:
    with tab(browser, day.url, TOKEN, refusals=(502, 401)) as page:
        page.goto(f"/task?id={day.ids['running']}")
        page.route("**/task/live**", lambda route: route.fulfill(status=502))
        expect(page.get_by_text("gets no answer")).to_be_visible()
        page.unroute("**/task/live**")
        expect(page.get_by_text("gets no answer")).to_be_hidden()
        page.context.clear_cookies()
        page.wait_for_url("**/login?next=/task*")


def test_a_task_is_queued_watched_played_and_another_cancelled(browser: Browser, root: Path, tmp_path: Path) -> None:
    place = {"DB_FILE": str(tmp_path / "tasks.db"), "MAIN_OUTPUT_DIR": str(tmp_path / "outputs")}
    SqliteStore(tmp_path / "tasks.db").close()
    serve = process(root, "debug.py", "serve", "--port", "0", **place, PAGE_TOKEN=TOKEN)
    with serve as server, process(root, "-c", WORKER, **place, PYTHONPATH=str(root)) as worker:
        assert server.stderr is not None
        [url] = re.findall(r"http://[\d.:]+", server.stderr.readline())
        with tab(browser, url, TOKEN) as page:
            queue_by_form(page, PROMPTS[0], steps=100)
            bar = page.get_by_role("progressbar")
            seen = moves(page)
            assert seen == sorted(seen) and len(set(seen)) >= 3, seen
            expect(bar).to_have_count(0, timeout=60_000)
            expect(page.locator("#live h1")).to_contain_text("Complete")
            until(page, "document.querySelector('video')?.readyState >= 2")
            page.evaluate("document.querySelector('video').play()")
            until(page, "document.querySelector('video').currentTime > 0.3")
            assert different_frames(page)
            queue_by_form(page, PROMPTS[1], steps=200)
            expect(page.locator("#steps")).to_contain_text("/200", timeout=30_000)
            page.get_by_role("button", name="Cancel…").click()
            page.get_by_role("button", name="Cancel", exact=True).click()
            expect(page.locator("#live h1")).to_contain_text("Cancelled", timeout=30_000)
            page.goto("/?status=Complete")
            expect(page.locator("#list tbody tr")).to_have_count(1)
            page.goto("/workers")
            expect(page.get_by_text("healthy")).to_be_visible()
        assert worker.poll() is None


def queue_by_form(page: Page, prompt: str, steps: int) -> None:
    """As a person does it."""
    page.goto("/")
    page.get_by_role("link", name="New task").first.click()
    page.locator("a[href='/new/t2v']").click()
    page.locator("textarea[name=prompt], input[name=prompt]").fill(prompt)
    page.locator("input[name=model]").fill("fake_t2v")
    page.evaluate(OPEN_ALL)
    page.locator("textarea[name=_rest]").fill(f'{{"num_inference_steps": {steps}}}')
    page.get_by_role("button", name="Queue the task").click()
    page.wait_for_url("**/task?id=*")


def moves(page: Page, most: int = 12) -> list[float]:
    """The values that the progress bar shows, one after the other."""
    until(page, "document.querySelector('#live progress')?.value > 0")
    seen: list[float] = page.evaluate(
        """async (most) => {
      const seen = [];
      for (let turn = 0; turn < most * 10 && seen.length < most; turn += 1) {
        const bar = document.querySelector("#live progress");
        if (!bar) break;
        if (bar.value !== seen.at(-1)) seen.push(bar.value);
        await new Promise((done) => setTimeout(done, 100));
      }
      return seen;
    }""",
        most,
    )
    return seen
