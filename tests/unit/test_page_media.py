"""What the page gives away of this machine: files that a row names, where they may lie, in ranges."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from source.page.app import page
from source.page.media import named
from source.settings import Settings, load_settings
from source.store import NewTask
from source.store.sqlite import SqliteStore

VIDEO = bytes(range(256)) * 40


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(db_file=tmp_path / "tasks.db", main_output_dir=tmp_path / "outputs")


@pytest.fixture
def store(settings: Settings) -> Iterator[SqliteStore]:
    with closing(SqliteStore(settings.db_file)) as store:
        yield store


@pytest.fixture
def browser(store: SqliteStore, settings: Settings) -> TestClient:
    return TestClient(page(store, settings), base_url="http://localhost")


def completed(store: SqliteStore, location: str, **params: object) -> str:
    task_id = store.add(NewTask(task_type="t2v", params=params))
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute(
            "UPDATE tasks SET status = 'Complete', output_location = ?, result_data = ? WHERE id = ?",
            (location, json.dumps({"outputs": [location]}), task_id),
        )
    return task_id


def put(path: Path, content: bytes = VIDEO) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_player_gets_its_video_whole_and_in_ranges(
    store: SqliteStore, settings: Settings, browser: TestClient
) -> None:
    put(settings.public_dir / "files" / "a.mp4")
    asked = {"id": completed(store, "files/a.mp4"), "key": "output"}
    whole = browser.get("/task/media", params=asked)
    assert (whole.content, whole.headers["content-type"]) == (VIDEO, "video/mp4")
    assert (
        whole.headers["x-content-type-options"] == "nosniff" and "sandbox" in whole.headers["content-security-policy"]
    )
    part = browser.get("/task/media", params=asked, headers={"range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, VIDEO[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(VIDEO)}"
    beyond = browser.get("/task/media", params=asked, headers={"range": f"bytes={len(VIDEO)}-"})
    assert beyond.status_code == 416


@pytest.mark.parametrize(
    "location",
    [
        "files/../../secret.mp4", "../secret.mp4", "{root}/secret.mp4", "files/link.mp4",
        "{root}/public/files/link.mp4", "{root}/public/../secret.mp4", "files/page.html", "files/drawing.svg",
        "files/gone.mp4",
        "file://{root}/secret.mp4", "http://127.0.0.1:1/a.mp4", "files/a\0.mp4",
    ],
)  # fmt: skip
def test_a_row_leads_nowhere_else(
    store: SqliteStore, settings: Settings, browser: TestClient, tmp_path: Path, location: str
) -> None:
    """Whoever writes rows names files; the worker's machine has others."""
    secret = put(tmp_path / "secret.mp4")
    link = settings.public_dir / "files" / "link.mp4"
    put(settings.public_dir / "files" / "page.html")
    put(settings.public_dir / "files" / "drawing.svg")
    link.symlink_to(secret)
    location = location.replace("{root}", str(tmp_path))
    task_id = completed(store, location, video_guide=location)
    for key in ("output", "outputs.0", "params.video_guide"):
        assert browser.get("/task/media", params={"id": task_id, "key": key}).status_code == 404, key
    shown = browser.get("/task", params={"id": task_id})
    assert shown.status_code == 200 and "/task/media" not in shown.text


def test_a_browser_cannot_name_a_file_itself(store: SqliteStore, settings: Settings, browser: TestClient) -> None:
    put(settings.public_dir / "files" / "a.mp4")
    task_id = completed(store, "files/a.mp4")
    for key in ("", "files/a.mp4", "../a.mp4", "params.x", str(settings.public_dir / "files" / "a.mp4")):
        assert browser.get("/task/media", params={"id": task_id, "key": key}).status_code == 404, key
    assert browser.get("/task/media", params={"id": "nobody", "key": "output"}).status_code == 404
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert browser.get(path).status_code == 404, path


def test_inputs_in_the_scratch_space_are_shown(store: SqliteStore, settings: Settings, browser: TestClient) -> None:
    guide = put(settings.main_output_dir / "task" / "guide.mp4")
    task_id = completed(
        store, "text", video_guide=str(guide), image_refs=["a.png", "no picture"], prompt="not a.mp4 file"
    )
    row = store.get(task_id)
    assert dict(named(row)) == {
        "params.video_guide": str(guide), "params.image_refs.0": "a.png",
    }  # fmt: skip
    found = browser.get("/task/media", params={"id": task_id, "key": "params.video_guide"})
    assert found.content == VIDEO
