"""What the page shows of a database, and that nothing that rows hold becomes part of the page itself."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from source.page.access import Access
from source.page.actions import actions_of
from source.page.app import page
from source.page.context import STATIC
from source.page.graph import graph_of
from source.page.task import EVENTS
from source.page.tasks import LISTED, prompt_of
from source.page.wording import said
from source.settings import load_settings
from source.store import NewTask, Status, Task, child_id
from source.store.sqlite import SqliteStore

TOKEN = "correct-horse-battery-staple"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'{{7*7}}"
SECRET = "hf_abcdefghijklmnopqrstuvwxyz0123"


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "tasks.db")) as store:
        yield store


@pytest.fixture
def browser(store: SqliteStore) -> TestClient:
    app = page(store, load_settings(db_file=store.path), Access(TOKEN))
    return TestClient(app, base_url="http://localhost", headers={"authorization": f"Bearer {TOKEN}"})


def claimed(store: SqliteStore, worker: str = "gpu-1") -> Task:
    [task] = store.claim(worker, lease_s=600)
    return task


def listed(text: str) -> list[str]:
    """The ids of a list's rows, as they stand there."""
    return re.findall(r'<tr id="row-([^"]+)"', text)


def fragment(browser: TestClient, path: str, **params: str) -> Any:
    return browser.get(path, params=params, headers={"hx-request": "true"})


# -- what rows hold stays text --------------------------------------------------------------------------------------


def evil_database(store: SqliteStore) -> list[str]:
    """Rows, workers and log lines of somebody who means ill. Returns the pages that show them."""
    child = f"{EVIL}-child"
    params = {"prompt": EVIL, EVIL: [EVIL], "video_guide": f"{EVIL}.mp4", "loras": [EVIL]}
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("INSERT INTO tasks (id, task_type, params, model) VALUES (?, ?, '{}', ?)", (EVIL, EVIL, EVIL))
    store.add(NewTask(id=child, task_type=EVIL, params=params, parent_id=EVIL, child_key=EVIL))
    task = claimed(store, EVIL)
    store.progress(task.claim, {"phase": EVIL, "text": EVIL, "step": 1, "total": 2})
    store.note(task.claim, "warning", EVIL)
    store.heartbeat(EVIL, [], lease_s=60, current_model=EVIL, status=EVIL)
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute(
            "INSERT INTO log_lines (at, level, message, worker_id, task_id) "
            "VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'ERROR', ?, ?, ?)", (EVIL, EVIL, EVIL),
        )  # fmt: skip
    store.fail(task.claim, EVIL, error_class=EVIL)
    return ["/", "/task", "/logs", "/workers"]


def test_what_rows_hold_stays_text(store: SqliteStore, browser: TestClient) -> None:
    paths = evil_database(store)
    child = f"{EVIL}-child"
    asked = [(path, {"id": EVIL, "text": "", "open": EVIL}) for path in paths]
    asked += [("/task", {"id": child}), ("/", {"text": EVIL, "type": EVIL, "worker": EVIL, "run": EVIL})]
    asked += [("/logs", {"text": EVIL, "task": EVIL}), ("/task", {"id": f"{EVIL}?"}), ("/logs", {"level": EVIL})]
    for path, params in asked:
        text = browser.get(path, params=params).text
        assert "&lt;script&gt;" in text, path
        for tag, attributes in Elements(text).found:
            assert tag != "script" or attributes["src"].startswith("/static/"), path
            assert not [name for name in attributes if name.startswith("on") or name == "style"], (path, attributes)
        assert "<script>alert" not in text and "{{7*7}}" in text


def test_nothing_of_a_page_comes_from_elsewhere(store: SqliteStore, browser: TestClient) -> None:
    evil_database(store)
    for path in ("/", "/task?id=" + EVIL, "/logs", "/workers", "/login", "/nowhere"):
        answer = browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        for _, attributes in Elements(answer.text).found:
            for name in ("src", "href", "action", "hx-get", "hx-post"):
                assert attributes.get(name, "/").startswith(("/", "#")) and not attributes.get(name, "").startswith(
                    "//"
                )
    for name in ("page.css", "page.js"):
        assert "://" not in (STATIC / name).read_text()
    for vendored in ("htmx", "idiomorph"):
        assert (STATIC / "vendor" / f"{vendored}-LICENSE.txt").is_file()


def test_secrets_of_a_row_are_not_shown_and_cannot_be_searched_for(store: SqliteStore, browser: TestClient) -> None:
    params = {
        "prompt": f"a lake, Bearer {SECRET}",
        "hf_token": SECRET,
        "url": f"https://x.example/a.png?token={SECRET}",
    }
    task_id = store.add(NewTask(task_type="t2v", params=params))
    for path in (f"/task?id={task_id}", "/"):
        text = browser.get(path).text
        assert SECRET not in text and "a lake" in text
    assert listed(browser.get("/", params={"text": "x.example"}).text) == []


# -- the queue ------------------------------------------------------------------------------------------------------


def test_the_queue_goes_back_page_by_page(store: SqliteStore, browser: TestClient) -> None:
    ids = store.add_many([NewTask(task_type="t2v", params={}) for _ in range(LISTED + 10)])
    first = browser.get("/").text
    assert listed(first) == ids[::-1][:LISTED]
    [older] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = browser.get(older.replace("&amp;", "&")).text
    assert listed(second) == ids[::-1][LISTED:]
    assert 'rel="next"' not in second and "hx-trigger" not in second.split('id="list"')[1].split(">")[0]


def test_children_are_folded_under_their_parent_and_found_when_asked_for(
    store: SqliteStore, browser: TestClient
) -> None:
    parent, children = a_travel(store)
    folded = browser.get("/").text
    assert listed(folded) == [parent] and "0 of 3 children" in folded
    [unfold] = re.findall(r'class="fold" id="[^"]+" href="([^"]+)"', folded)
    assert listed(browser.get(unfold.replace("&amp;", "&")).text) == [parent, *children]
    assert sorted(listed(browser.get("/", params={"type": "travel_segment"}).text)) == sorted(children[:2])
    assert sorted(listed(browser.get("/", params={"run": parent}).text)) == sorted([parent, *children])


def test_filters_hold_together(store: SqliteStore, browser: TestClient) -> None:
    lake, boat = (store.add(NewTask(task_type="t2v", params={"prompt": text})) for text in ("a lake", "a boat"))
    held = claimed(store)
    assert held.id == lake
    for params, expected in (
        ({"status": "In Progress"}, [lake]), ({"status": "Queued"}, [boat]), ({"text": "BOAT"}, [boat]),
        ({"worker": "gpu-1"}, [lake]), ({"worker": "gpu-1", "status": "Queued"}, []), ({"type": "vace"}, []),
        ({"status": "nonsense"}, [boat, lake]), ({"text": lake[:9]}, [lake]),
    ):  # fmt: skip
        assert listed(browser.get("/", params=params).text) == expected, params
    assert browser.get("/", params={"after": "nobody"}).status_code == 404


# -- a task ---------------------------------------------------------------------------------------------------------


def a_travel(store: SqliteStore) -> tuple[str, list[str]]:
    parent = store.add(NewTask(task_type="travel_orchestrator", params={}))
    keys = ["travel_segment:0", "travel_segment:1", "travel_stitch:0"]
    ids = [child_id(parent, key) for key in keys]
    needs: list[tuple[str, ...]] = [(), (ids[0],), (ids[0], ids[1])]
    children = [
        NewTask(id=each, task_type=key.split(":")[0], params={}, parent_id=parent, child_key=key, dependant_on=needed)
        for each, key, needed in zip(ids, keys, needs, strict=True)
    ]
    store.fan_out(claimed(store).claim, children, final_child=ids[2])
    return parent, ids


def test_a_task_moves_while_it_runs_and_is_left_alone_when_it_has_ended(
    store: SqliteStore, browser: TestClient
) -> None:
    task_id = store.add(NewTask(task_type="t2v", params={"prompt": "a lake"}))
    claim = claimed(store).claim
    store.progress(claim, {"phase": "denoising", "step": 3, "total": 12, "fraction": 0.25, "eta_s": 42.0})
    store.show(claim, b"RIFF", media_type="image/webp", step=3)
    live = fragment(browser, "/task/live", id=task_id)
    assert live.status_code == 200 and 'hx-trigger="every 1s"' in live.text
    assert 'value="0.2500"' in live.text and "3/12" in live.text and "0:42 left" in live.text
    [shown] = re.findall(r'<img class="preview" src="([^"]+)"', live.text)
    assert browser.get(shown.replace("&amp;", "&")).content == b"RIFF"
    store.complete(claim, "a text", result_data={"num_frames": 81, "enhanced": "<b>calm</b>\nwater", "parts": [1]})
    ended = fragment(browser, "/task/live", id=task_id)
    assert ended.status_code == 286 and "hx-trigger" not in ended.text and "Complete" in ended.text
    assert "<dt>num_frames</dt><dd>81</dd>" in ended.text and "&lt;b&gt;calm&lt;/b&gt;" in ended.text
    gone = browser.get(shown.replace("&amp;", "&"))  # a page may ask for it just then
    assert (gone.status_code, gone.content) == (204, b"")


def test_buttons_do_what_they_say(store: SqliteStore, browser: TestClient) -> None:
    task_id = store.add(NewTask(task_type="t2v", params={}))

    def press(name: str) -> Status:
        shown = browser.get("/task", params={"id": task_id}).text
        assert f'action="/task/do/{name}"' in shown
        answer = browser.post(f"/task/do/{name}", data={"id": task_id}, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        return store.get(task_id).status

    assert press("pause") is Status.QUEUED and store.get(task_id).paused
    press("resume")
    claimed(store)
    assert press("requeue") is Status.QUEUED
    store.fail(claimed(store).claim, "no", error_class="engine")
    assert press("retry") is Status.QUEUED
    assert press("cancel") is Status.CANCELLED
    assert "/task/do/" not in browser.get("/task", params={"id": task_id}).text
    late = browser.post("/task/do/retry", data={"id": task_id})
    assert late.status_code == 400 and "only a Failed task can be retried" in late.text
    assert browser.post("/task/do/delete", data={"id": task_id}).status_code == 404
    assert browser.post("/task/do/cancel", data={"id": "nobody"}).status_code == 404


def test_the_page_says_so_when_the_database_does_not_answer(store: SqliteStore, browser: TestClient) -> None:
    store.close()
    assert browser.get("/healthz").status_code == 503
    answer = browser.get("/")
    assert answer.status_code == 503 and "closed" in answer.text


def test_prometheus_reads_the_metrics_of_the_database(store: SqliteStore, browser: TestClient) -> None:
    store.add_many([NewTask(task_type="t2v", params={}), NewTask(task_type="t2v", params={})])
    claimed(store)
    answer = browser.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert re.search(r'_tasks\{status="In Progress"\} 1\.0', answer.text), answer.text


# -- the drawing ----------------------------------------------------------------------------------------------------


def drawn(**needs: str) -> dict[str, tuple[float, float]]:
    children = [
        {"id": name, "dependant_on": each.split(), "child_key": name, "task_type": "t", "status": "Queued", "share": 0}
        for name, each in needs.items()
    ]
    graph = graph_of(children)
    assert graph is not None
    places = {node.view["id"]: (node.x, node.y) for node in graph.nodes}
    assert len(set(places.values())) == len(children)
    assert all(0 <= x < graph.width and 0 <= y < graph.height for x, y in places.values())
    return places


def test_what_is_needed_stands_left_of_what_needs_it() -> None:
    places = drawn(stitch="a b c", b="guide", a="guide", c="guide", guide="")
    columns = {name: x for name, (x, _) in places.items()}
    assert columns["guide"] < columns["a"] == columns["b"] == columns["c"] < columns["stitch"]
    heights = sorted(places[name][1] for name in "abc")
    assert places["guide"][1] == places["stitch"][1] == heights[1]


def test_lines_do_not_cross_where_they_need_not() -> None:
    places = drawn(a="", b="", c="", z="a", y="b", x="c")
    order = {name: y for name, (_, y) in places.items()}
    assert [order[each] for each in "abc"] == [order[each] for each in "zyx"]


def test_what_follows_from_the_rest_is_not_drawn() -> None:
    chain = [
        {"id": name, "dependant_on": needs, "child_key": name, "task_type": "t", "status": "Queued", "share": 0}
        for name, needs in (("a", []), ("b", ["a"]), ("c", ["a", "b"]), ("d", ["a", "b", "c", "gone"]))
    ]
    graph = graph_of(chain)
    assert graph is not None and len(graph.paths) == 3


def test_what_needs_nothing_stands_before_what_needs_it() -> None:
    places = drawn(a="", b="a", late="", last="b late")
    assert places["late"][0] == places["b"][0] > places["a"][0]


def test_rows_in_a_circle_are_drawn_too() -> None:
    """A front end can write them; the database ends them."""
    assert len(drawn(a="b", b="a", c="a")) == 3
    assert graph_of([]) is None


# -- words ----------------------------------------------------------------------------------------------------------


def test_values_beside_names_stand_on_one_line_where_they_are_short() -> None:
    assert said("files/a.mp4") == "files/a.mp4"
    assert said([0, 16, 41]) == "[0, 16, 41]"
    assert said(list(range(60))).splitlines()[1] == "  0,"


def test_a_long_prompt_shows_that_it_goes_on() -> None:
    assert prompt_of({"prompt": "short"}) == "short"
    assert prompt_of({"prompt": "word " * 100}).endswith("word…")


def test_a_row_of_a_type_that_is_gone_leads_to_no_form(browser: TestClient, store: SqliteStore) -> None:
    """Its page stands, without the link; who asks for the form all the same is told what there is not."""
    gone, there = store.add(NewTask(task_type="no_longer", params={})), store.add(NewTask(task_type="t2v", params={}))
    texts = {task_id: browser.get("/task", params={"id": task_id}).text for task_id in (gone, there)}
    assert "Again with changes" not in texts[gone]
    assert "Again with changes" in texts[there]
    assert "there is no task type no_longer" in browser.get("/new/no_longer").text
    assert "there is no such page" in browser.get("/nowhere").text


def test_each_action_says_what_it_means(store: SqliteStore) -> None:
    """For one task; a new one without its sentence would show here."""
    for status in Status:
        for paused in (False, True):
            task = replace(store.get(store.add(NewTask(task_type="t2v", params={}))), status=status, paused=paused)
            assert all(text.endswith(".") for text in actions_of(task).values())


def test_of_a_long_timeline_the_newest_events_are_shown(browser: TestClient, store: SqliteStore) -> None:
    store.add(NewTask(task_type="t2v", params={}))
    task = claimed(store)
    for number in range(EVENTS + 9):
        store.note(task.claim, "noted", f"number {number}.")
    text = browser.get("/task", params={"id": task.id}).text
    assert len(re.findall('class="event ', text)) == EVENTS
    assert f"number {EVENTS + 8}." in text and "number 8." not in text
    assert re.search(r">(1\d) earlier ones", text)
