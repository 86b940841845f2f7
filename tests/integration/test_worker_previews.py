"""A worker keeps what a task that runs looks like with its row, and is never held up by that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from preview_runs import PATIENCE_S, frames_of
from worker_floor import Floor

from headless.testing import FakeOrchestrator, Gate
from source.errors import StoreError
from source.store.sqlite import SqliteStore
from source.store.types import Claim, Status
from Wan2GP.previews import Preview


@contextmanager
def held(folder: Path, **given: Any) -> Iterator[tuple[Floor, str, Callable[[], None]]]:
    """A floor, a task that stands in its second step, and what lets it go on."""
    gate = Gate()
    floor = Floor(folder, FakeOrchestrator(steps=4, gate=gate, gate_step=2), **{"preview_interval_s": 0} | given)
    task_id = floor.add()
    with floor.working():
        gate.wait_until_held()
        try:
            yield floor, task_id, gate.open
        finally:
            gate.open()


def test_a_task_shows_itself_while_it_runs_and_no_longer(tmp_path: Path) -> None:
    with held(tmp_path) as (floor, task_id, go_on):
        floor.wait_until(lambda: floor.store.preview(task_id) is not None)
        found = floor.store.preview(task_id)
        assert found is not None
        assert (found.claim_number, found.step in (1, 2)) == (1, True)
        shown = frames_of(Preview(found.step, found.media_type, found.image))
        assert shown.shape[0] == 8
        go_on()
        floor.wait_for(task_id, Status.COMPLETE)
        assert floor.store.preview(task_id) is None


@pytest.mark.parametrize("settings", [{"previews": False}, {"preview_interval_s": 600}])
def test_nothing_is_shown_where_nobody_wants_it_or_the_run_is_short(tmp_path: Path, settings: dict[str, Any]) -> None:
    with held(tmp_path, **settings) as (floor, task_id, go_on):
        go_on()
        floor.wait_for(task_id, Status.COMPLETE)
        watchers = [task.watcher is not None for task in floor.engine.tasks]
        assert watchers == [settings.get("previews", True)]
        assert not shown_at_all(floor)


def shown_at_all(floor: Floor) -> bool:
    store = floor.store
    assert isinstance(store, SqliteStore)
    with store.connections.reading() as db:
        return bool(db.execute("SELECT count(*) FROM task_previews").fetchone()[0])


class Hurt(SqliteStore):
    """Previews do not arrive: each is refused, or stands until `released`."""

    def __init__(self, path: Path, released: threading.Event | None) -> None:
        super().__init__(path)
        self.released, self.asked = released, threading.Event()

    def show(self, claim: Claim, image: bytes, *, media_type: str, step: int) -> None:
        self.asked.set()
        if self.released is not None:
            self.released.wait(PATIENCE_S)
        raise StoreError("out of reach")


@pytest.mark.parametrize("stands", [False, True])
def test_a_database_that_takes_no_previews_delays_no_task(tmp_path: Path, stands: bool) -> None:
    released = threading.Event() if stands else None
    with held(tmp_path, open_it=lambda settings: Hurt(settings.db_file, released)) as (floor, task_id, go_on):
        store = floor.store
        assert isinstance(store, Hurt)
        assert store.asked.wait(PATIENCE_S)
        go_on()
        assert floor.wait_for(task_id, Status.COMPLETE).output_location
        if released is not None:
            released.set()
