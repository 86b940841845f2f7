"""Secrets planted into a real run are in nothing that leaves it: console, files, database, metrics, debug.py."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Status

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ"
BY_PATTERN = {
    "a JWT": JWT,
    "a service key": "sb_secret_plantedplantedplanted01",
    "a bearer token": "planted.bearer.token.0123456789",
    "a signature": "deadbeefplanted02",
    "a password in an address": "plantedpassword03",
    "a key of a service": "r8_plantedplantedplanted04",
}
BY_SETTING = {"HF_TOKEN": "planted-hub-05", "REPLICATE_API_TOKEN": "planted-file-06"}
#: known for a secret by its name in the row's parameters alone
BY_NAME = {"api_key": "planted row key 07", "webhook": {"auth_token": "planted row token 08"}}
PLANTED = (
    *BY_PATTERN.values(), *BY_SETTING.values(), "planted row key 07", "planted row token 08",
    "c2lnbmF0dXJlLXBsYW50ZWQ", "AKIAPLANTED",
)  # fmt: skip
SAID = (
    f"GET https://h/a.png?token={JWT} failed with {JWT} and {BY_PATTERN['a service key']}; Authorization: Bearer "
    f"{BY_PATTERN['a bearer token']}; https://b/x?X-Amz-Credential=AKIAPLANTED%2F1&X-Amz-Signature=deadbeefplanted02 "
    f"postgres://user:plantedpassword03@db/x and {BY_PATTERN['a key of a service']} with planted-hub-05, "
    "planted-file-06, planted row key 07, planted row token 08."
)
DEBUG = """
import json, sys
import debug
for command in json.loads(sys.argv[1]):
    sys.argv = ["debug.py", *command]
    try:
        debug.main()
    except SystemExit:
        pass
"""
TYPES = ("tell", "fail", "fail_later", "crash", "draw")


class Leaky:
    """The worker, and what it wrote to its console."""

    def __init__(self, folder: Path, name: str, **settings: str) -> None:
        (folder / "token").write_text(BY_SETTING["REPLICATE_API_TOKEN"])
        self.folder = folder
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT), "METRICS_PORT": "0", "DEBUG": "1", "HEARTBEAT_S": "0.2", "LEASE_S": "5",
            "POLL_INTERVAL_S": "0.3", "RETRY_DELAY_S": "0", "MAX_ATTEMPTS": "2", "PROGRESS_INTERVAL_S": "0",
            "HF_TOKEN": BY_SETTING["HF_TOKEN"], "REPLICATE_API_TOKEN": f"@{folder / 'token'}", "SAVE_LOGGING": name,
        } | settings  # fmt: skip
        command = [sys.executable, str(ROOT / "tests" / "leaky_worker.py")]
        self.process = subprocess.Popen(
            command, cwd=folder, env=self.environment, stderr=subprocess.PIPE, text=True
        )  # fmt: skip
        self.console: list[str] = []
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.console.extend(self.process.stderr)

    def metrics(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+/metrics", "".join(self.console))
        assert found is not None
        with urllib.request.urlopen(found[0], timeout=DEADLINE_S) as response:
            return str(response.read().decode())

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=DEADLINE_S) == 0
        self._listener.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def debug(self, commands: list[tuple[str, ...]]) -> str:
        """What debug.py prints, one command after another in one process."""
        asked = [sys.executable, "-c", DEBUG, json.dumps([[*command, "--db-file", "tasks.db"] for command in commands])]
        answered = subprocess.run(
            asked, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=DEADLINE_S, check=True
        )
        return answered.stdout + answered.stderr


def everything_of(database: Path) -> Iterator[tuple[str, str]]:
    """Each value in each table, beside what the rows were given."""
    with closing(sqlite3.connect(database)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = db.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in rows.description]
            for row in rows:
                for name, value in zip(names, row, strict=True):
                    if (table, name) != ("tasks", "params"):
                        yield f"{table}.{name}", str(value)


def clean(where: str, text: str) -> None:
    """No planted secret stands there."""
    found = [secret for secret in PLANTED if secret in text]
    assert not found, f"{where} holds {found}: {text[:3000]}"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), [("worker.log", "text"), ("worker.jsonl", "json")])
def test_no_planted_secret_leaves_the_worker(tmp_path: Path, name: str, form: str) -> None:
    with closing(SqliteStore(tmp_path / "tasks.db")) as store:
        (tmp_path / "said").write_text(SAID)
        params = {"prompt": f"a lake at {JWT}", **BY_NAME}
        ids = {kind: store.add(NewTask(task_type=kind, params=params)) for kind in TYPES}
        worker = Leaky(tmp_path, name, LOG_FORMAT=form)
        try:
            for _ in range(round(DEADLINE_S / 0.25)):
                if store.idle() or worker.process.poll() is not None:
                    break
                store.wait_for_change(0.25)
            ends = {kind: store.get(task).status for kind, task in ids.items()}
            assert ends == {kind: Status.COMPLETE if kind in ("tell", "draw") else Status.FAILED for kind in TYPES}
            clean("metrics", worker.metrics())
        finally:
            worker.end()
        told = store.get(ids["tell"])
        # It was there to be found: what stands around the secrets has arrived everywhere.
        console, file = "".join(worker.console), (tmp_path / name).read_text()
        assert told.result_data is not None and "GET https://h/a.png" in told.result_data["told"]
        for kind in ("fail", "fail_later", "crash"):
            assert "postgres://" in (store.get(ids[kind]).error_message or "")
        for text in (console, file):
            assert text.count("GET https://h/a.png") > 5
        tables = dict.fromkeys(where.partition(".")[0] for where, value in everything_of(store.path) if "***" in value)
        assert {"tasks", "task_events", "log_lines"} <= tables.keys()
        assert list((tmp_path / "public").rglob("*.png"))
        clean("console", console)
        for path in tmp_path.rglob("*"):
            if path.is_file() and path.name not in ("token", "said") and not path.name.startswith("tasks.db"):
                clean(str(path), path.read_bytes().decode("utf-8", "replace"))
        for where, value in everything_of(store.path):
            clean(where, value)
        if form == "text":
            shown = worker.debug(commands(*ids.values()))
            assert shown.count("postgres://***@db/x") > 5
            clean("debug.py", shown)


def commands(*ids: str) -> list[tuple[str, ...]]:
    """What people look with."""
    return [
        *(("task", task, "--json") for task in ids), ("task", ids[0]), ("task", ids[1]), ("why", ids[2]),
        ("tasks",), ("tasks", "--json"), ("workers", "--json"), ("logs",), ("logs", "--json"), ("config",), ("health",),
    ]  # fmt: skip
