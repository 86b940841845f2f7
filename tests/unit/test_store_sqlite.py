"""What is special to the SQLite file: its schema, its errors, its connections, and that claims stay fast."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from source.errors import InvalidInput, RefusedWrite, StoreError
from source.store import NewTask, Status, sqlite_claiming, sqlite_dependencies, sqlite_endings, sqlite_queueing
from source.store import sqlite as sqlite_store
from source.store.migrations import STEPS
from source.store.sqlite import SqliteStore

LEASE_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


@pytest.fixture
def sql(store: SqliteStore, path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def a_task(**values: Any) -> NewTask:
    return NewTask(**{"task_type": "t2v", "params": {}} | values)


class TestSchema:
    def test_a_row_in_progress_without_a_worker_cannot_exist(self, sql: sqlite3.Connection) -> None:
        insert = "INSERT INTO tasks (id, task_type, params, status) VALUES ('a', 't2v', '{}', ?)"
        for status in ("In Progress", "Running"):
            with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
                sql.execute(insert, (status,))

    @pytest.mark.parametrize("status", ["Complete", "Cancelled"])
    def test_a_final_row_stays_final_for_everybody(self, sql: sqlite3.Connection, status: str) -> None:
        sql.execute("INSERT INTO tasks (id, task_type, params, status) VALUES ('a', 't2v', '{}', ?)", (status,))
        with pytest.raises(sqlite3.IntegrityError, match="final"):
            sql.execute("UPDATE tasks SET status = 'Queued'")

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            (None, ()), ("", ()), ("null", ()), ("[]", ()), ("a", ("a",)), ('"a"', ("a",)), ("17", ("17",)),
            ('["b", "a", null, "b"]', ("b", "a")), ('{"id": 1}', ('{"id": 1}',)), ("[a", ("[a",)),
        ],
    )  # fmt: skip
    def test_dependencies_are_read_in_every_spelling(
        self, store: SqliteStore, sql: sqlite3.Connection, written: str | None, read: tuple[str, ...]
    ) -> None:
        sql.execute("INSERT INTO tasks (id, task_type, params, dependant_on) VALUES ('t', 't2v', '{}', ?)", (written,))
        edges = sql.execute("SELECT depends_on FROM task_dependencies ORDER BY position").fetchall()
        assert tuple(edge[0] for edge in edges) == read == store.get("t").dependant_on

    def test_changed_dependencies_count_and_deleted_rows_leave_nothing(
        self, store: SqliteStore, sql: sqlite3.Connection
    ) -> None:
        first, second = store.add_many([a_task(id="first"), a_task(id="second", dependant_on=("first",))])
        sql.execute("PRAGMA foreign_keys = ON")
        sql.execute("UPDATE tasks SET dependant_on = NULL WHERE id = ?", (second,))
        assert len(store.claim("w", lease_s=LEASE_S, limit=9)) == 2
        sql.execute("DELETE FROM tasks WHERE id = ?", (first,))
        assert store.events(first) == []

    def test_bytes_that_are_no_text_do_not_block_the_queue(self, store: SqliteStore, sql: sqlite3.Connection) -> None:
        sql.execute("INSERT INTO tasks (id, task_type, params) VALUES ('bad', 't2v', CAST(x'7bff7d' AS TEXT))")
        store.add(a_task(id="good"))
        assert [task.id for task in store.claim("w", lease_s=LEASE_S)] == ["good"]
        assert store.get("bad").status == Status.FAILED
        assert store.get("bad").params == {"unreadable": "{\ufffd}"}

    def test_an_id_that_is_no_text_does_not_block_the_queue(self, store: SqliteStore, sql: sqlite3.Connection) -> None:
        sql.execute("INSERT INTO tasks (id, task_type, params) VALUES (CAST(x'ff' AS TEXT), 't2v', '{}')")
        store.add(a_task(id="good"))
        assert [task.id for task in store.claim("w", lease_s=LEASE_S, limit=2)] == ["good"]
        assert [task.error_message for task in store.tasks(status=Status.FAILED)] == ["id: must be UTF-8 text"]

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("priority", "high"), ("attempts", "lots"), ("claim_number", 0.5), ("task_type", b"\xff"), ("id", b"id"),
            ("created_at", b"\xff"), ("params", b"{}"), ("run_after", "tomorrow"), ("run_after", "2030-01-01 00:00:00"),
        ],
    )  # fmt: skip
    def test_a_value_of_a_wrong_type_is_refused_to_whoever_writes_it(
        self, sql: sqlite3.Connection, column: str, value: object
    ) -> None:
        """A worker that read a priority of "high" could not order it, and every worker would stop at that row."""
        row = {"id": "a", "task_type": "t2v", "params": "{}"} | {column: value}
        insert = f"INSERT INTO tasks ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        with pytest.raises(sqlite3.IntegrityError, match=column):
            sql.execute(insert, tuple(row.values()))

    def test_a_row_may_be_put_off_with_plain_sql(self, store: SqliteStore, sql: sqlite3.Connection) -> None:
        sql.execute(
            "INSERT INTO tasks (id, task_type, params, run_after, priority)"
            " VALUES ('a', 't2v', '{}', '2100-01-01T00:00:00.000Z', '5')"
        )
        assert store.claim("w", lease_s=LEASE_S) == []
        assert store.get("a").priority == 5


class TestMigrations:
    def test_opening_twice_changes_nothing(self, store: SqliteStore, path: Path) -> None:
        store.add(a_task(id="a"))
        with closing(SqliteStore(path)) as again:
            assert again.get("a") == store.get("a")

    def test_a_file_of_a_newer_program_is_refused(self, store: SqliteStore, path: Path) -> None:
        with closing(sqlite3.connect(path)) as sql:
            sql.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
        with pytest.raises(StoreError, match="update the program"):
            SqliteStore(path)

    def test_a_table_of_the_predecessor_is_taken_over(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as sql, sql:
            sql.execute(
                """CREATE TABLE tasks (id TEXT PRIMARY KEY, task_type TEXT NOT NULL, params TEXT NOT NULL,
                status TEXT NOT NULL DEFAULT 'Queued', dependant_on TEXT, output_location TEXT,
                created_at TEXT NOT NULL, project_id TEXT NOT NULL,
                FOREIGN KEY (project_id) REFERENCES projects (id))"""
            )
            sql.execute("CREATE INDEX idx_status_created ON tasks (status, created_at)")
            rows = [
                ("done", "Complete", None, "files/a.mp4"),
                ("failed", "Failed", None, "boom"),
                ("running", "In Progress", None, None),
                ("next", "Queued", "done", None),
            ]
            sql.executemany(
                "INSERT INTO tasks VALUES (?, 't2v', '{\"model\": \"wan\"}', ?, ?, ?, '2025-01-01T00:00:00Z', 'p')",
                rows,
            )
        with closing(SqliteStore(path)) as store:
            assert (store.get("done").status, store.get("done").output_location) == (Status.COMPLETE, "files/a.mp4")
            assert (store.get("failed").error_message, store.get("failed").output_location) == ("boom", None)
            claimed = store.claim("w", lease_s=LEASE_S, limit=9, loaded_model="wan")
            assert [(task.id, task.model, task.project_id) for task in claimed] == [
                ("running", "wan", "p"), ("next", "wan", "p"),
            ]  # fmt: skip

    def test_task_types_of_the_predecessor_are_found_in_the_params(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as sql, sql:
            sql.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, params TEXT, status TEXT, created_at BLOB)")
            rows = [("a", '{"task_type": "vace"}'), ("b", "{}"), ("c", b"no json")]
            sql.executemany("INSERT INTO tasks VALUES (?, ?, 'Complete', x'32')", rows)
        with closing(SqliteStore(path)) as store:
            types = {task.id: task.task_type for task in store.tasks()}
        assert types == {"a": "vace", "b": "standard_wgp_task", "c": "standard_wgp_task"}


class TestErrors:
    def test_a_write_that_can_never_succeed_is_told_from_an_outage(
        self, store: SqliteStore, sql: sqlite3.Connection
    ) -> None:
        store.add(a_task(id="a"))
        sql.execute(
            "CREATE TRIGGER mine BEFORE UPDATE OF output_location ON tasks BEGIN SELECT RAISE(ABORT, 'not so'); END"
        )
        [task] = store.claim("w", lease_s=LEASE_S)
        with pytest.raises(RefusedWrite, match="not so"):
            store.complete(task.claim, "files/a.mp4")

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"nowhere/tasks\.db: its folder does not exist"):
            SqliteStore(tmp_path / "nowhere" / "tasks.db")

    def test_a_file_that_is_no_database_is_left_as_it_is(self, path: Path) -> None:
        path.write_bytes(b"not a database, but long enough to have a header" * 40)
        before = path.read_bytes()
        with pytest.raises(StoreError, match="is not a SQLite database; name another file"):
            SqliteStore(path)
        assert path.read_bytes() == before

    def test_a_folder_is_no_database(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="cannot be opened; check that it is a file"):
            SqliteStore(tmp_path)

    def test_a_full_disk_is_said_and_nothing_is_half_written(self, store: SqliteStore) -> None:
        store.add(a_task(id="before"))
        with store.connections.reading() as db:
            db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        with pytest.raises(StoreError, match="the disk is full; free some space"):
            store.add_many([a_task(params={"prompt": "x" * 9000}) for _ in range(9)])
        assert [task.id for task in store.tasks()] == ["before"]

    def test_a_closed_store_says_so(self, path: Path) -> None:
        store = SqliteStore(path)
        store.close()
        assert store.wait_for_change(LEASE_S) is False
        with pytest.raises(StoreError, match="was closed"):
            store.counts()

    def test_a_refused_row_leaves_the_store_usable(self, store: SqliteStore) -> None:
        with pytest.raises(InvalidInput):
            store.add(a_task(dependant_on=("nowhere",)))
        assert store.get(store.add(a_task())).status == Status.QUEUED


class TestConnections:
    def test_each_commit_is_synced(self, store: SqliteStore) -> None:
        with store.connections.reading() as db:
            pragmas = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        assert pragmas == ["wal", 2]

    def test_connections_of_ended_threads_are_closed(self, store: SqliteStore) -> None:
        for _ in range(5):
            in_a_thread(store.counts)
        opened = [file for file in psutil.Process().open_files() if file.path == str(store.path)]
        assert len(opened) <= 2

    def test_waiting_ends_when_another_thread_writes(self, store: SqliteStore) -> None:
        store.claim("w", lease_s=LEASE_S)
        in_a_thread(lambda: store.add(a_task()))
        assert store.wait_for_change(LEASE_S) is True
        assert len(store.claim("w", lease_s=LEASE_S)) == 1
        assert store.wait_for_change(0) is False, "what this thread wrote itself is no news"

    def test_closing_wakes_who_waits(self, path: Path) -> None:
        store = SqliteStore(path)
        seen: list[bool] = []
        waiter = threading.Thread(target=lambda: seen.append(store.wait_for_change(LEASE_S)))
        waiter.start()
        store.close()
        waiter.join(LEASE_S / 2)
        assert seen == [False]

    def test_closing_under_busy_threads_refuses_the_rest(self, path: Path) -> None:
        store = SqliteStore(path)
        started = threading.Barrier(5)

        def work(number: int) -> str:
            started.wait()
            try:
                while True:
                    store.add(a_task())
                    store.counts()
            except StoreError as error:
                return str(error)

        with ThreadPoolExecutor(4) as threads:
            endings = threads.map(work, range(4))
            started.wait()
            store.close()
            assert set(endings) == {f"{path}: the store was closed"}


class TestSpeed:
    """F23 in small: a long history and a long queue cost a claim nothing."""

    @pytest.fixture
    def crowded(self, store: SqliteStore, sql: sqlite3.Connection) -> SqliteStore:
        numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
        insert = "INSERT INTO tasks (id, task_type, params, status, model, created_at)"
        sql.execute("BEGIN")
        for prefix, status, rows in (("h", "Complete", 20_000), ("f", "Failed", 5_000), ("q", "Queued", 5_000)):
            sql.execute(
                f"{insert} {numbers.format(rows)} SELECT '{prefix}' || i, 't2v', '{{}}', '{status}', 'm' || (i % 3),"
                " '2025-01-01T00:00:00.000Z' FROM n"
            )
        sql.execute("COMMIT")
        return store

    def test_a_claim_takes_milliseconds(self, crowded: SqliteStore) -> None:
        seconds, models = [], []
        for _ in range(50):
            start = time.perf_counter()
            [task] = crowded.claim("w", lease_s=LEASE_S, loaded_model="m1")
            seconds.append(time.perf_counter() - start)
            models.append(task.model)
        assert models.count("m1") >= 50 * 8 // 9
        assert sorted(seconds)[len(seconds) // 2] < 0.02

    @pytest.mark.parametrize("analysed", [False, True])
    def test_no_statement_of_a_running_worker_scans_the_table(
        self, crowded: SqliteStore, sql: sqlite3.Connection, analysed: bool
    ) -> None:
        if analysed:
            sql.execute("ANALYZE")
        modules = (sqlite_store, sqlite_claiming, sqlite_dependencies, sqlite_endings, sqlite_queueing)
        checked = [statement for module in modules for statement in statements(module)]
        assert len(checked) >= 12
        for statement in checked:
            plan = [row[3] for row in sql.execute(f"EXPLAIN QUERY PLAN {statement}", Everything())]
            assert not [step for step in plan if scans(step, statement)], f"{statement}\n{plan}"

    def test_the_claim_uses_its_indexes(self, crowded: SqliteStore, sql: sqlite3.Connection) -> None:
        owner = "status=? AND priority=? AND project_id=?"
        for statement, step in (
            (sqlite_claiming._OLDEST_OF_ALL, f"SEARCH task USING INDEX tasks_claim ({owner})"),
            (sqlite_claiming._OLDEST_OF_MODEL, f"SEARCH task USING INDEX tasks_claim_model ({owner} AND <expr>=?)"),
        ):
            plan = [row[3] for row in sql.execute(f"EXPLAIN QUERY PLAN {statement}", Everything())]
            assert step in plan
            assert not [step for step in plan if "TEMP B-TREE" in step]


class Everything(dict[str, None]):
    """Any parameter, bound as NULL."""

    def __missing__(self, key: str) -> None:
        return None


def statements(module: ModuleType) -> list[str]:
    """The statements a module keeps as constants, with named parameters only."""
    verbs = ("SELECT", "UPDATE", "INSERT", "WITH")
    texts = [value.strip() for name, value in vars(module).items() if name.startswith("_") and isinstance(value, str)]
    whole = [text for text in texts if text.startswith(verbs) and "{" not in text]
    return [text.replace("?", ":value") for text in whole]


def scans(step: str, statement: str) -> bool:
    """True for a step that reads a whole table, or all rows of a status (a rescue may: it looks at the queued ones)."""
    tables = ("tasks", "task", "needed", "child", "parent", "edge", "task_dependencies", "task_events")
    if step.startswith("SCAN") and step.split()[1] in tables:
        return "tasks_waiting" not in step and "tasks_lease" not in step  # of what runs alone
    return "tasks_by_status" in step and "task.status = 'Queued'" not in statement


def in_a_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.commit()
    with pytest.raises(StoreError, match="belongs to another program"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as db:
        assert [name for (name,) in db.execute("SELECT name FROM sqlite_master")] == ["bookmarks"]
