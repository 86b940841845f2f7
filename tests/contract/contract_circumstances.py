"""What a store knows of why a row waits: `TaskStore.circumstances`."""

from __future__ import annotations

import pytest
from contract_rows import LONG_S, FrontEnd, a_task, claim, fan_out

from source.errors import TaskNotFound
from source.store import AffinityBound, Status, TaskStore

GREEDY, OTHER = (f"00000000-0000-4000-8000-00000000000{digit}" for digit in "ab")


class CircumstancesContract:
    def test_what_goes_before_a_queued_row(self, store: TaskStore) -> None:
        older = [store.add(a_task(project_id=OTHER)) for _ in range(2)]
        row = store.add(a_task(project_id=OTHER))
        store.add(a_task(project_id=OTHER, params={"model": "wan"}))
        store.add(a_task(project_id=OTHER, dependant_on=(row,), priority=1))
        store.add(a_task(priority=1))
        store.add_many([a_task(project_id=GREEDY) for _ in range(3)])
        store.heartbeat("w", [], lease_s=LONG_S, current_model="flux", metadata={"takes_first": "wan"})
        found = store.circumstances(row)
        assert (found.task.id, found.task.status, found.task.params) == (row, Status.QUEUED, {})
        assert found.ahead is not None
        assert (found.ahead.higher, found.ahead.older, found.ahead.others) == (1, 2, (3,))
        assert found.loaded == {"wan": 1}
        assert (found.needed, found.missing, found.parent, found.children) == ((), (), None, ())
        assert found.type_active
        assert {task.id for task in found.running} == set() and older

    def test_how_often_and_since_when_it_was_passed_over(self, store: TaskStore) -> None:
        row, *_ = store.add_many([a_task(), *(a_task(params={"model": "wan"}) for _ in range(2))])
        for _ in range(2):
            claim(store, loaded_model="wan", affinity=AffinityBound(tasks=9))
        found = store.circumstances(row)
        assert found.passed_over == 2
        assert found.passed_over_since and found.passed_over_since <= found.now

    def test_what_it_waits_for_down_to_the_root(self, store: TaskStore, front_end: FrontEnd) -> None:
        root = store.add(a_task())
        done = store.add(a_task(priority=1))
        store.complete(claim(store).claim, None)
        middle = store.add(a_task(dependant_on=(root, done)))
        row = store.add(a_task(dependant_on=(middle,)))
        front_end.update(root, paused=True)
        found = store.circumstances(row)
        assert [(task.id, task.paused) for task in found.needed] == [(root, True), (middle, False)]
        assert found.needed[1].dependant_on == (root, done)
        front_end.insert(id="lost", task_type="t2v", params={}, dependant_on='["gone"]')
        assert store.circumstances("lost").missing == ("gone",)

    def test_a_family_is_named_and_what_is_complete_left_out(self, store: TaskStore) -> None:
        parent, (first, last) = fan_out(store, "segment:0", "stitch:0")
        store.complete(claim(store).claim, None)
        found = store.circumstances(parent)
        assert [child.id for child in found.children] == [last]
        assert (found.task.waiting, found.ahead) == (True, None)
        above = store.circumstances(last).parent
        assert above is not None and above.id == parent
        assert store.circumstances(first).task.status == Status.COMPLETE

    def test_workers_with_what_they_run_and_say_of_themselves(self, store: TaskStore) -> None:
        store.add(a_task(params={"model": "wan"}))
        task = claim(store, "w")
        store.heartbeat("w", [task.claim], lease_s=LONG_S, current_model="wan", metadata={"load_s": {"wan": 12.5}})
        store.heartbeat("w", [task.claim], lease_s=LONG_S, current_model="wan", metadata={"vram_used_mb": 7})
        store.progress(task.claim, {"phase": "denoising", "step": 3, "total": 20})
        found = store.circumstances(task.id)
        [worker] = found.workers
        assert (worker.id, worker.current_model) == ("w", "wan")
        assert worker.metadata == {"load_s": {"wan": 12.5}, "vram_used_mb": 7}
        assert [worker] == store.workers()
        [running] = found.running
        assert (running.id, running.worker_id, running.model) == (task.id, "w", "wan")
        assert running.progress == {"phase": "denoising", "step": 3, "total": 20}
        assert found.owner.running == 1

    def test_a_row_that_is_not_there(self, store: TaskStore) -> None:
        with pytest.raises(TaskNotFound):
            store.circumstances("nobody")
