"""The page over a long history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from browser_tab import browser as browser
from browser_tab import needs_chromium, tab
from page_shop import PROMPTS, served
from playwright.sync_api import Browser

from source.settings import load_settings
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, child_id

pytestmark = [pytest.mark.slow, pytest.mark.alone, needs_chromium]
TASKS, CHILDREN = 10_000, 4
LONGEST_S = 1.0


@pytest.fixture
def history(tmp_path: Path) -> Iterator[SqliteStore]:
    """Ten thousand tasks: travels with their children, and others."""
    with closing(SqliteStore(tmp_path / "tasks.db")) as store:
        rows: list[NewTask] = []
        for number in range(TASKS // (CHILDREN + 2)):
            parent = NewTask(task_type="travel_orchestrator", params={"orchestrator_details": {"run_id": str(number)}})
            keys = [f"travel_segment:{index}" for index in range(CHILDREN)]
            params = {"prompt": PROMPTS[number % len(PROMPTS)], "model": "vace_14B", "seeds": list(range(200))}
            rows += [parent, NewTask(task_type="t2v", params=params)]
            rows += [
                NewTask(id=child_id(parent.id, key), task_type="travel_segment", params=params, parent_id=parent.id,
                        child_key=key) for key in keys
            ]  # fmt: skip
        rows += [NewTask(task_type="t2v", params={}) for _ in range(TASKS - len(rows))]
        store.add_many(rows)
        yield store


def test_ten_thousand_tasks_are_there_within_a_second(history: SqliteStore, browser: Browser) -> None:
    """From the click to everything drawn, the best of three; a search and an unfolded travel too."""
    settings = load_settings(db_file=history.path)
    with served(history, settings, None) as url, tab(browser, url) as page:
        parent = history.tasks(task_type="travel_orchestrator", limit=1)[0].id
        for path in ("/", "/?text=frost", f"/?open={parent}", "/?type=travel_segment", "/?status=Complete"):
            seconds = []
            for _ in range(3):
                page.goto(path)
                loaded = "performance.getEntriesByType('navigation')[0].loadEventEnd"
                seconds.append(page.evaluate(loaded) / 1000)
            assert 0 < min(seconds) < LONGEST_S, (path, seconds)
            print(f"{path}: {min(seconds):.3f} s")
        assert "10,000" in page.locator(".counts").inner_text()
