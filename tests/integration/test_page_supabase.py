"""The page over a Supabase project: what a token may see and do, and results from the project's storage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests
from local_stack import LocalStack
from local_stack import stack as stack
from project_floor import ProjectFloor
from starlette.testclient import TestClient

from source.page.access import Access
from source.page.app import page
from source.settings import load_settings
from source.store.opening import open_watched
from source.store.types import NewTask, Status

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def floor(stack: LocalStack, tmp_path: Path) -> Iterator[ProjectFloor]:
    with closing(ProjectFloor(tmp_path / "machine", stack)) as floor:
        yield floor


@contextmanager
def browser_of(floor: ProjectFloor, token: str) -> Iterator[TestClient]:
    settings = load_settings(
        db_type="supabase", supabase_url=floor.stack.url, supabase_access_token=token,
        main_output_dir=floor.settings.main_output_dir,
    )  # fmt: skip
    with closing(open_watched(settings)) as store:
        headers = {"authorization": f"Bearer {TOKEN}"}
        yield TestClient(page(store, settings, Access(TOKEN)), base_url="http://localhost", headers=headers)


def test_a_person_sees_and_stops_their_own_tasks_and_plays_what_they_made(
    stack: LocalStack, floor: ProjectFloor
) -> None:
    anna, bert = stack.person(), stack.person()
    made = floor.store.add(NewTask(task_type="draw", params={"prompt": "a ball"}, project_id=anna.project_id))
    assert floor.work() == 0
    waiting = floor.store.add(NewTask(task_type="draw", params={"prompt": "a lake"}, project_id=anna.project_id))
    with browser_of(floor, anna.access_token) as mine, browser_of(floor, bert.access_token) as theirs:
        assert re.findall(r'<tr id="row-([^"]+)"', mine.get("/").text) == [waiting, made]
        shown = mine.get("/task", params={"id": made})
        [video] = re.findall(r'<video src="([^"]+)"', shown.text)
        redirected = mine.get(video.replace("&amp;", "&"), follow_redirects=False)
        address = redirected.headers["location"]
        assert redirected.status_code == 302 and redirected.headers["cache-control"] == "no-store"
        assert requests.get(address, timeout=20).content == floor.output(made).read_bytes()
        origin = "/".join(address.split("/")[:3])
        assert f"media-src 'self' {origin}" in shown.headers["content-security-policy"]
        assert "<tr id=" not in theirs.get("/").text
        for path in (f"/task?id={made}", f"/task/live?id={made}", f"/task/media?id={made}&key=output"):
            assert theirs.get(path).status_code == 404, path
        assert theirs.post("/task/do/cancel", data={"id": waiting}).status_code == 404
        assert mine.post("/task/do/cancel", data={"id": waiting}, follow_redirects=False).status_code == 303
        assert floor.store.get(waiting).status is Status.CANCELLED
        for path in ("/workers", "/logs", "/metrics", "/healthz", "/?text=ball&status=Complete"):
            assert mine.get(path).status_code == 200, path
