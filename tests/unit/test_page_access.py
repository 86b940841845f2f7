"""Who may look at the page and who may change something: the token, sessions, forms of other sites, foreign names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from source.errors import ConfigurationError
from source.page.access import MOST_TRIES, SESSION_S, TRIES_S, Access, access_of
from source.page.app import page
from source.page.guard import is_our_host
from source.settings import load_settings
from source.store import NewTask, Status
from source.store.sqlite import SqliteStore

TOKEN = "correct-horse-battery-staple"
HERE = "http://127.0.0.1:8700"
HTML = {"accept": "text/html"}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "tasks.db")) as store:
        yield store


def client(store: SqliteStore, access: Access | None = None) -> TestClient:
    app = page(store, load_settings(db_file=store.path), access)
    return TestClient(app, base_url=HERE, follow_redirects=False)


def logged_in(store: SqliteStore, access: Access | None = None) -> TestClient:
    found = client(store, access or Access(TOKEN))
    assert found.post("/login", data={"token": TOKEN}).status_code == 303
    return found


def csrf_of(browser: TestClient) -> str:
    return browser.get("/").text.split('name="csrf" value="')[1].split('"')[0]


def cancelling(browser: TestClient, task_id: str, csrf: str, **headers: str) -> int:
    return browser.post("/task/do/cancel", data={"id": task_id, "csrf": csrf}, headers=headers).status_code


# -- without a token ------------------------------------------------------------------------------------------------


def test_without_a_token_everybody_here_may_look_and_nobody_may_change(store: SqliteStore) -> None:
    task_id = store.add(NewTask(task_type="t2v", params={}))
    browser = client(store)
    shown = browser.get("/task", params={"id": task_id})
    assert shown.status_code == 200 and "/task/do/" not in shown.text and "read-only" in shown.text
    assert cancelling(browser, task_id, "") == 403
    assert browser.post("/login", data={"token": ""}).status_code == 403
    assert browser.post("/logout").status_code == 403
    assert store.get(task_id).status is Status.QUEUED


# -- with one -------------------------------------------------------------------------------------------------------


def test_with_a_token_nothing_is_seen_before_it_was_shown(store: SqliteStore) -> None:
    browser = client(store, Access(TOKEN))
    for path in ("/", "/task?id=a", "/logs", "/workers", "/task/media?id=a&key=output", "/metrics", "/nowhere"):
        answer = browser.get(path)
        assert (answer.status_code, store.path.name in answer.text) == (401, False), path
    asked = browser.get("/task?id=a%2Fb&done=x", headers=HTML)
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=/task%3Fid%3Da%252Fb%26done%3Dx")
    assert browser.get("/healthz").status_code == 200
    assert browser.get("/static/page.css").status_code == 200


def test_who_pastes_the_token_may_change_tasks(store: SqliteStore) -> None:
    task_id = store.add(NewTask(task_type="t2v", params={}))
    browser = client(store, Access(TOKEN))
    answer = browser.post("/login", data={"token": f" {TOKEN}\n", "next": f"/task?id={task_id}"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/task?id={task_id}")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and TOKEN not in cookie
    assert cancelling(browser, task_id, csrf_of(browser)) == 303
    assert store.get(task_id).status is Status.CANCELLED


@pytest.mark.parametrize(
    "wanted", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_logging_in_leads_to_this_page_alone(store: SqliteStore, wanted: str) -> None:
    answer = client(store, Access(TOKEN)).post("/login", data={"token": TOKEN, "next": wanted})
    assert answer.headers["location"] == "/"


def test_over_tls_the_cookie_is_sent_over_tls_alone(store: SqliteStore) -> None:
    app = page(store, load_settings(db_file=store.path), Access(TOKEN))
    browser = TestClient(app, base_url="https://localhost", follow_redirects=False)
    assert "secure" in browser.post("/login", data={"token": TOKEN}).headers["set-cookie"].lower()


def test_a_program_sends_the_token_itself(store: SqliteStore) -> None:
    task_id = store.add(NewTask(task_type="t2v", params={}))
    program = client(store, Access(TOKEN))
    assert program.get("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert program.get("/", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert cancelling(program, task_id, "", authorization=f"Bearer {TOKEN}") == 303


def test_tries_are_counted(store: SqliteStore) -> None:
    clock = Clock()
    browser = client(store, Access(TOKEN, clock))
    for _ in range(MOST_TRIES):
        assert browser.post("/login", data={"token": "guess"}).status_code == 403
    assert browser.post("/login", data={"token": TOKEN}).status_code == 429
    refused = browser.get("/", headers={"authorization": f"Bearer {TOKEN}"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    clock.now += TRIES_S
    assert browser.post("/login", data={"token": TOKEN}).status_code == 303


def test_nobody_fills_the_memory_without_the_token(store: SqliteStore) -> None:
    browser = client(store, Access(TOKEN))
    assert browser.post("/login", data={"token": "x" * 20_000}).status_code == 413
    endless = browser.post("/login", content=iter([b"token=" + b"x" * 20_000]))
    assert endless.status_code == 413
    assert browser.post("/uploads", content=b"x" * 20_000).status_code == 401


def test_a_session_ends_with_its_time_and_when_it_is_left(store: SqliteStore) -> None:
    clock = Clock()
    access = Access(TOKEN, clock)
    first, second = logged_in(store, access), logged_in(store, access)
    cookies = dict(first.cookies)
    assert first.post("/logout", data={"csrf": csrf_of(first)}).status_code == 303
    first.cookies.update(cookies)
    assert first.get("/").status_code == 401
    assert second.get("/").status_code == 200
    clock.now += SESSION_S
    assert second.get("/").status_code == 401


# -- other sites ----------------------------------------------------------------------------------------------------


def test_a_page_that_stands_open_when_its_session_ends_leads_to_the_log_in(store: SqliteStore) -> None:
    """As htmx asks: for any type, with the address in the browser."""
    asked = {"hx-request": "true", "accept": "*/*", "hx-current-url": f"{HERE}/task?id=a%2Fb"}
    answer = client(store, Access(TOKEN)).get("/task/live?id=a%2Fb", headers=asked)
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login?next=/task%3Fid%3Da%252Fb")
    assert answer.text == ""


def test_a_form_of_another_site_changes_nothing(store: SqliteStore) -> None:
    task_id = store.add(NewTask(task_type="t2v", params={}))
    access = Access(TOKEN)
    browser, other = logged_in(store, access), logged_in(store, access)
    csrf = csrf_of(browser)
    assert cancelling(browser, task_id, "") == 403
    assert cancelling(browser, task_id, csrf_of(other)) == 403
    assert cancelling(browser, task_id, csrf, origin="https://evil.example") == 403
    assert cancelling(browser, task_id, csrf, origin="null") == 403
    assert cancelling(browser, task_id, csrf, **{"sec-fetch-site": "cross-site"}) == 403
    assert cancelling(browser, task_id, csrf, **{"x-csrf-token": "another"}) == 403
    assert browser.get("/task/do/cancel", params={"id": task_id, "csrf": csrf}).status_code == 405
    assert store.get(task_id).status is Status.QUEUED
    assert cancelling(browser, task_id, csrf, origin=HERE) == 303


def test_a_foreign_name_that_leads_here_is_refused(store: SqliteStore) -> None:
    """DNS rebinding: a page of others asks its own name, which leads to this machine by now."""
    browser = client(store)
    for host in ("evil.example", "evil.example:8700", "127.0.0.1.evil.example", "localhost@evil.example", ""):
        assert browser.get("/", headers={"host": host}).status_code == 421, host
    for host in ("127.0.0.1", "localhost:8700", "[::1]:8700", "10.1.2.3:80"):
        assert browser.get("/", headers={"host": host}).status_code == 200, host
    assert is_our_host("studio.example:443", ["Studio.example"]) and not is_our_host("studio.example", [])


# -- the token ------------------------------------------------------------------------------------------------------


def test_the_token_is_read_from_a_file_and_must_not_be_guessable(tmp_path: Path) -> None:
    path = tmp_path / "page.token"
    path.write_text(f"{TOKEN}\n")
    assert access_of(f"@{path}").token == TOKEN
    assert not access_of(None).required
    with pytest.raises(ConfigurationError, match="cannot be read"):
        access_of(f"@{tmp_path}/none")
    with pytest.raises(ConfigurationError, match="at least 16") as refused:
        access_of("short")
    assert "short" not in str(refused.value)
