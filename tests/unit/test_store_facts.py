"""How long a SQLite file keeps what workers say of themselves, and what that costs."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from source.errors import StoreError
from source.store import LogFilter, NewTask
from source.store.sqlite import SqliteStore
from source.store.sqlite_facts import PRUNED
from source.store.supabase_schema import migrations
from source.store.types import Retention
from source.worker_logs import BATCH, WorkerLogs


def fill(path: Path, statement: str, number: int) -> None:
    """So many rows, by plain SQL."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) {statement}")


def ask(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


OLD_LINES = """INSERT INTO log_lines (at, level, message, worker_id)
    SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-10 days'), 'INFO', 'line ' || i, 'w' FROM n"""
NEW_LINES = OLD_LINES.replace("-10 days", "-1 days")


def test_old_lines_and_samples_go_a_few_with_each_heartbeat(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "tasks.db")) as store:
        fill(store.path, OLD_LINES, PRUNED + 5)
        store.heartbeat("w", [], lease_s=60, sample={"rss": 1})
        assert ask(store.path, "SELECT count(*) FROM log_lines") == [(5,)]
        fill(store.path, "UPDATE worker_samples SET at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-25 hours')", 1)
        store.heartbeat("w", [], lease_s=60, sample={"rss": 2})
        assert ask(store.path, "SELECT count(*) FROM log_lines") == [(0,)]
        assert [sample.values for sample in store.samples(since_s=1e6)] == [{"rss": 2}]


def test_no_more_lines_than_the_setting_says(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "tasks.db", retention=Retention(log_lines=10))) as store:
        fill(store.path, NEW_LINES, 15)
        store.heartbeat("w", [], lease_s=60)
        assert ask(store.path, "SELECT min(id), count(*) FROM log_lines") == [(6, 10)]


def test_workers_that_are_gone_for_long_are_forgotten_when_a_new_one_comes(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "tasks.db")) as store:
        for name in ("gone", "stale", "waiting"):
            store.heartbeat(name, [], lease_s=60, sample={"rss": 1})
        days = "UPDATE workers SET last_heartbeat = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{} days') WHERE id = '{}'"
        fill(store.path, days.format(31, "gone"), 1)
        fill(store.path, days.format(29, "stale"), 1)
        store.heartbeat("waiting", [], lease_s=60)
        assert len(store.workers()) == 3
        store.heartbeat("new", [], lease_s=60)
        assert {worker.id for worker in store.workers()} == {"new", "waiting", "stale"}
        assert {sample.worker_id for sample in store.samples()} == {"waiting", "stale"}


def test_lines_of_a_heartbeat_that_failed_go_with_the_next(tmp_path: Path) -> None:
    logs = WorkerLogs()
    with closing(SqliteStore(tmp_path / "tasks.db", logs=logs)) as store:
        logs.emit(logging.LogRecord("source", logging.INFO, "", 1, "kept", (), None))
        fill(store.path, "UPDATE workers SET id = id", 1)
        store.connections.close()
        with pytest.raises(StoreError):
            store.heartbeat("w", [], lease_s=60)
        assert [entry["message"] for entry in logs.take()] == ["kept"]


def claims_beside_heartbeats(store: SqliteStore) -> float:
    """Seconds that a claim takes, the median of 20, each behind a heartbeat."""
    store.add_many([NewTask(task_type="t2v", params={}) for _ in range(20)])
    took_s = []
    for _ in range(20):
        store.heartbeat("w", [], lease_s=60)
        began = time.perf_counter()
        store.claim("w", lease_s=60)
        took_s.append(time.perf_counter() - began)
    return sorted(took_s)[10]


def test_a_flood_of_lines_does_not_slow_claims(tmp_path: Path) -> None:
    """A heartbeat takes a batch along, whatever waits; and removes no more than a batch of its own."""
    with closing(SqliteStore(tmp_path / "quiet.db")) as store:
        quiet_s = claims_beside_heartbeats(store)
    logs = WorkerLogs(capacity=5000)
    with closing(SqliteStore(tmp_path / "tasks.db", logs=logs, retention=Retention(log_lines=50_000))) as store:
        fill(store.path, NEW_LINES, 100_000)
        for number in range(5000):
            logs.emit(logging.LogRecord("source", logging.INFO, "", 1, f"line {number}", (), None))
        assert claims_beside_heartbeats(store) < 5 * quiet_s + 0.02
        assert ask(store.path, "SELECT count(*) FROM log_lines") == [(100_000 + 20 * (BATCH - PRUNED),)]
        plans = ask(store.path, "EXPLAIN QUERY PLAN SELECT id FROM log_lines WHERE at < '2026' ORDER BY at LIMIT 1000")
        assert "USING COVERING INDEX log_lines_by_age" in str(plans)


def test_throughput_of_many_rows_reads_an_index_alone(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "tasks.db")) as store:
        fill(
            store.path,
            """INSERT INTO tasks (id, task_type, params, status, generation_started_at, generation_processed_at)
            SELECT 't' || i, 'type ' || (i % 5), '{}', CASE i % 10 WHEN 0 THEN 'Failed' ELSE 'Complete' END,
                strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -(i % 86000 + 20) || ' seconds'),
                strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -(i % 86000 + 10) || ' seconds') FROM n""",
            20_000,
        )
        began = time.perf_counter()
        found = store.throughput(since_s=86_400.0, bucket_s=3600.0)
        took_s = time.perf_counter() - began
        assert sum(bucket.count for bucket in found) == 20_000
        assert sum(bucket.seconds for bucket in found) == pytest.approx(200_000, rel=1e-3)
        assert took_s < 2
        assert store.logs(LogFilter()) == []


def test_each_migration_of_the_project_has_a_number_of_its_own() -> None:
    """The Supabase CLI applies of two with one number the first alone."""
    numbers = [path.name.partition("_")[0] for path in migrations()]
    assert len(set(numbers)) == len(numbers) > 20
