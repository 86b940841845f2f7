"""Finished results on disk until their rows have them."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from source.errors import InvalidInput, InvalidMedia, TaskNotFound
from source.outbox import Outbox, request_digest
from source.settings import Settings, load_settings
from source.store.sqlite import SqliteStore
from source.store.supabase import SupabaseStore
from source.store.types import NewTask, Status, Task
from source.task_registry import Done
from Wan2GP.media import write_image
from Wan2GP.media.metadata import embedded_texts


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(db_file=tmp_path / "tasks.db", main_output_dir=tmp_path / "outputs")


@pytest.fixture
def store(settings: Settings) -> Iterator[SqliteStore]:
    store = SqliteStore(settings.db_file, max_attempts=3)
    yield store
    store.close()


@pytest.fixture
def outbox(settings: Settings) -> Outbox:
    return Outbox(settings)


def row(task_id: str = "t1", claim_number: int = 1, **params: object) -> Task:
    return Task(
        id=task_id, task_type="t2v", params=params, status=Status.IN_PROGRESS, created_at="",
        claim_number=claim_number,
    )  # fmt: skip


def made(settings: Settings, name: str = "clip.bin", content: bytes = b"a clip") -> Path:
    path = settings.main_output_dir / "t2v" / "t1-1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put(outbox: Outbox, settings: Settings, task: Task, record: str = "{}") -> Path:
    return outbox.put(task, request_digest(task, task.params), Done(made(settings)), record).folder


def held(settings: Settings) -> list[str]:
    """The parcels of any database, and what was left of others, without the marks."""
    folder = settings.main_output_dir / "outbox"
    return sorted(path.name.rpartition("-")[0] for path in folder.iterdir()) if folder.is_dir() else []


def test_a_parcel_holds_the_files_under_their_names_and_what_else_the_row_gets(
    outbox: Outbox, settings: Settings
) -> None:
    picture = write_image(made(settings, "clip.png"), np.zeros((8, 8, 3), np.uint8))
    done = Done(picture, {"a": 1}, poster=made(settings, "same.bin", b"poster"), extra=(made(settings, "x.bin", b"x"),))
    parcel = outbox.put(row(), "request", done, '{"made": "so"}')
    found = outbox.find(row(claim_number=2), "request")
    assert found is not None and found.manifest == parcel.manifest
    assert found.output is not None and found.poster is not None
    assert (found.output.name, found.poster.name, [each.name for each in found.extra]) == (
        "clip.png", "same.bin", ["x.bin"],
    )  # fmt: skip
    assert list(embedded_texts(found.output)) == ['{"made": "so"}']
    assert (found.poster.read_bytes(), found.extra[0].read_bytes()) == (b"poster", b"x")
    assert found.manifest.result_data == {"a": 1}
    assert picture.exists(), "what the caller has stays the caller's"


def test_a_result_without_files_is_one_too(outbox: Outbox) -> None:
    outbox.put(row(), "request", Done(None, {"prompt": "a cat"}), "")
    found = outbox.find(row(claim_number=2), "request")
    assert found is not None
    assert (found.output, found.poster, found.extra, found.manifest.result_data) == (
        None,
        None,
        (),
        {"prompt": "a cat"},
    )


def test_the_next_claim_takes_the_parcel_over(outbox: Outbox, settings: Settings) -> None:
    put(outbox, settings, row())
    asked = request_digest(row(), {})
    second = outbox.find(row(claim_number=2), asked)
    assert second is not None and held(settings) == ["t1-2"]
    assert second.manifest.claim_number == 1
    third = outbox.find(row(claim_number=3), asked)
    assert third is not None and held(settings) == ["t1-3"]
    outbox.remove(second)
    assert held(settings) == ["t1-3"], "who lost the claim removes nothing of the later one"
    outbox.remove(third)
    assert held(settings) == []


def test_a_row_that_asks_for_something_else_is_made_anew(outbox: Outbox, settings: Settings) -> None:
    put(outbox, settings, row(prompt="a cat"))
    changed = row(claim_number=2, prompt="a dog")
    assert outbox.find(changed, request_digest(changed, changed.params)) is None
    assert held(settings) == []


def test_what_a_row_asks_for_does_not_depend_on_the_order_of_its_parameters() -> None:
    first, second = row(), row(claim_number=2)
    assert request_digest(first, {"a": 1, "b": {"c": 2, "d": 3}}) == request_digest(
        second, {"b": {"d": 3, "c": 2}, "a": 1}
    )
    assert request_digest(first, {"a": 1}) != request_digest(replace(first, dependant_on=("x",)), {"a": 1})
    assert request_digest(first, {}) != request_digest(replace(first, task_type="i2v"), {})


@pytest.mark.parametrize("other", ["t1-1", "t", "t11", "T1"])
def test_another_task_gets_nothing(outbox: Outbox, settings: Settings, other: str) -> None:
    put(outbox, settings, row())
    assert outbox.find(row(other, 2), request_digest(row(), {})) is None
    assert held(settings) == ["t1-1"]


def test_another_database_with_the_same_ids_may_share_the_folder(outbox: Outbox, settings: Settings) -> None:
    """A copy of the database, say: neither gets, replaces, settles or sweeps what is the other's."""
    shared = load_settings(db_file=settings.db_file.with_name("copy.db"), main_output_dir=settings.main_output_dir)
    store = SqliteStore(shared.db_file)
    other, asked = Outbox(shared), request_digest(row(), {})
    own = put(outbox, settings, row())
    assert other.find(row(claim_number=2), asked) is None
    theirs = other.put(row(), asked, Done(made(settings, "copy.bin", b"another clip")), "{}").folder
    assert held(settings) == ["t1-1", "t1-1"] and own != theirs
    assert (own / "0/clip.bin").read_bytes() == b"a clip"
    other.settle(row(), store)
    other.sweep(store)
    store.close()
    assert (own.is_dir(), theirs.is_dir()) == (True, False)


def test_a_result_that_holds_nothing_is_not_written_down(outbox: Outbox, settings: Settings) -> None:
    parcel = outbox.put(row(), "request", Done(None), "")
    assert (parcel.output, parcel.poster, parcel.extra, parcel.manifest.result_data) == (None, None, (), None)
    assert held(settings) == []
    outbox.remove(parcel)


@pytest.mark.parametrize("content", [b"", b'{"database": "/tm', b"\0\0\0\0", b"\xff\xfe", b"[]", b'{"version": 9}'])
def test_a_manifest_that_cannot_be_read_is_none(
    outbox: Outbox, settings: Settings, store: SqliteStore, content: bytes
) -> None:
    """Cut short, damaged, or another version's: the task runs again, and the folder goes by its age."""
    folder = put(outbox, settings, row())
    (folder / "manifest.json").write_bytes(content)
    assert outbox.find(row(claim_number=2), request_digest(row(), {})) is None
    outbox.sweep(store)
    assert held(settings) == ["t1-1"]
    os.utime(folder, (0, time.time() - 8 * 86400))
    outbox.sweep(store)
    assert held(settings) == []


def test_a_parcel_that_lost_a_file_is_none(outbox: Outbox, settings: Settings) -> None:
    folder = put(outbox, settings, row())
    (folder / "0" / "clip.bin").unlink()
    assert outbox.find(row(claim_number=2), request_digest(row(), {})) is None
    assert held(settings) == []


@pytest.mark.parametrize("content", [None, b""])
def test_a_missing_or_empty_result_is_refused(outbox: Outbox, settings: Settings, content: bytes | None) -> None:
    path = made(settings, content=content or b"")
    if content is None:
        path.unlink()
    with pytest.raises(InvalidMedia, match=r"clip\.bin of task t1 is missing or empty"):
        outbox.put(row(), "request", Done(path), "{}")
    assert held(settings) == []


def test_a_full_disk_leaves_no_half_parcel(outbox: Outbox, settings: Settings, tmp_path: Path) -> None:
    """Here files may not grow beyond 64 KiB. Later there is room again."""
    own = tmp_path / "own.bin"
    own.write_bytes(b"x" * 200_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            outbox.put(row(), "request", Done(own), "{}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert held(settings) == []
    outbox.put(row(), "request", Done(own), "{}")
    assert own.exists() and held(settings) == ["t1-1"]


def test_what_a_killed_process_was_writing_is_no_parcel(outbox: Outbox, settings: Settings) -> None:
    folder = put(outbox, settings, row())
    os.rename(folder, folder.with_name(f".{folder.name}"))
    assert outbox.find(row(claim_number=2), request_digest(row(), {})) is None
    put(outbox, settings, row())
    assert held(settings) == ["t1-1"]


def ended(store: SqliteStore, status: Status) -> str:
    task = store.add(NewTask(task_type="t2v", params={}))
    if status is Status.CANCELLED:
        store.cancel(task)
    elif status is not Status.QUEUED:
        [claimed] = store.claim("w", lease_s=60)
        if status is Status.COMPLETE:
            store.complete(claimed.claim, None)
        elif status is Status.FAILED:
            store.fail(claimed.claim, "bad", error_class="bad_input")
    return task


@pytest.mark.parametrize("status", list(Status))
def test_what_nobody_can_want_any_more_goes(
    outbox: Outbox, settings: Settings, store: SqliteStore, status: Status
) -> None:
    """A Failed row may be queued again, so its result stays for a while."""
    task = store.get(ended(store, status))
    put(outbox, settings, replace(task, claim_number=1))
    outbox.sweep(store)
    assert bool(held(settings)) == (status not in (Status.COMPLETE, Status.CANCELLED))


def test_results_of_rows_that_are_gone_and_old_ones_go(outbox: Outbox, settings: Settings, store: SqliteStore) -> None:
    put(outbox, settings, row("gone"))
    old = put(outbox, settings, store.get(store.add(NewTask(task_type="t2v", params={}))))
    draft = old.with_name(".draft-1")
    draft.mkdir()
    for path in (old, draft):
        os.utime(path, (0, time.time() - 8 * 86400))
    outbox.sweep(store)
    assert held(settings) == []


class OfAnotherPerson:
    """The functions of a project, for somebody who does not see the row."""

    def call(self, function: str, body: Mapping[str, Any], *, repeat: bool = True) -> Any:
        raise TaskNotFound(f"there is no task {body['task_id']}")

    def close(self) -> None:
        """Nothing is open."""


def test_a_result_of_a_row_that_the_token_does_not_show_stays(tmp_path: Path) -> None:
    """Two persons' workers may share the folder; the one knows nothing of the other's rows."""
    settings = load_settings(
        db_type="supabase",
        supabase_url="https://abc.supabase.co",
        supabase_access_token="pat",
        main_output_dir=tmp_path,
    )
    folder = put(Outbox(settings), settings, row("5f0c1c1e-0000-4000-8000-000000000001"))
    Outbox(settings).sweep(SupabaseStore(OfAnotherPerson()))
    assert folder.is_dir()


def test_what_a_row_gets_is_kept_as_it_is_stored(outbox: Outbox) -> None:
    outbox.put(row(), "request", Done(None, {"prompt": "half a \ud83d"}), "")
    found = outbox.find(row(claim_number=2), "request")
    assert found is not None and found.manifest.result_data == {"prompt": "half a ?"}
    with pytest.raises(InvalidInput, match="result_data: cannot be stored as JSON"):
        outbox.put(row(), "request", Done(None, {"score": float("nan")}), "")
