"""Pause, resume and requeue from outside, and which tasks a choice means."""

from __future__ import annotations

import pytest
from contract_rows import LONG_S, FrontEnd, a_child, a_task, claim, claim_that, event_names, fan_out, statuses

from source.errors import InvalidInput, StaleClaim, TaskNotFound
from source.store import Status, TaskFilter, TaskStore, child_id

QUEUED, RUNNING, COMPLETE, FAILED, CANCELLED = Status
NOBODY = "00000000-0000-4000-8000-00000000dead"


def claimable(store: TaskStore) -> list[str]:
    """What a claim would hand out now."""
    taken = store.claim("a passer-by", lease_s=LONG_S, limit=100)
    for task in taken:
        store.release(task.claim)
    return [task.id for task in taken]


class InterventionContract:
    # -- pause ------------------------------------------------------------------------------------------------------

    def test_a_paused_row_is_not_claimed_until_it_is_resumed(self, store: TaskStore) -> None:
        held, other = store.add_many([a_task(), a_task()])
        assert store.pause(held) == QUEUED
        assert store.pause(held) == QUEUED
        assert claimable(store) == [other]
        assert store.resume(held) == QUEUED
        assert sorted(claimable(store)) == sorted([held, other])
        assert [name for name in event_names(store, held) if name in ("paused", "resumed")] == ["paused", "resumed"]

    def test_a_waiting_parent_is_paused_with_its_queued_children(self, store: TaskStore) -> None:
        parent, (first, second, last) = fan_out(store, "a", "b", "c")
        running = claim_that(store, first)
        assert store.pause(parent) == RUNNING
        assert claimable(store) == []
        store.complete(running, "files/a.mp4")
        assert store.open_tasks() == 0
        store.resume(parent)
        for task_id in (second, last):
            store.complete(claim_that(store, task_id), "files/b.mp4")
        assert store.get(parent).status == COMPLETE

    def test_what_runs_goes_on_and_is_held_when_it_comes_back(self, store: TaskStore) -> None:
        added = store.add(a_task())
        used = claim(store).claim
        assert store.pause(added) == RUNNING
        assert store.progress(used, {"step": 1}) is False
        store.release(used)
        assert (store.get(added).paused, claimable(store)) == (True, [])
        store.resume(added)
        store.complete(claim(store).claim, None)

    def test_a_parent_that_plans_while_it_is_paused_makes_paused_children(self, store: TaskStore) -> None:
        parent = store.add(a_task(task_type="travel_orchestrator"))
        used = claim(store).claim
        store.pause(parent)
        store.fan_out(used, [a_child(parent, "a:0")], final_child=child_id(parent, "a:0"))
        assert claimable(store) == []
        store.resume(parent)
        assert len(claimable(store)) == 1

    def test_a_paused_row_can_be_cancelled(self, store: TaskStore) -> None:
        added = store.add(a_task())
        store.pause(added)
        assert store.cancel(added) == CANCELLED

    def test_only_rows_that_have_not_ended_are_paused(self, store: TaskStore) -> None:
        added = store.add(a_task())
        store.cancel(added)
        for act in (store.pause, store.resume):
            with pytest.raises(InvalidInput, match="is Cancelled; only a task that has not ended"):
                act(added)
            with pytest.raises(TaskNotFound):
                act(NOBODY)

    # -- requeue ----------------------------------------------------------------------------------------------------

    def test_a_requeued_row_burns_no_attempt_and_its_old_claim_is_stale(self, store: TaskStore) -> None:
        added = store.add(a_task())
        used = claim(store).claim
        assert store.requeue(added) == QUEUED
        assert store.heartbeat("worker-1", [used], lease_s=LONG_S).lost == {added}
        task = claim(store, "worker-2")
        assert (task.attempts, task.claim_number) == (0, 2)
        with pytest.raises(StaleClaim):
            store.complete(used, "files/a.mp4")
        store.complete(task.claim, "files/b.mp4")
        assert store.get(added).output_location == "files/b.mp4"
        assert event_names(store, added) == ["queued", "claimed", "requeued", "claimed", "complete"]

    def test_a_waiting_parent_is_requeued_by_what_runs_of_it(self, store: TaskStore) -> None:
        parent, (first, second, _) = fan_out(store, "a", "b", "c")
        done, used = claim_that(store, first), claim_that(store, second)
        store.complete(done, None)
        assert store.requeue(parent) == RUNNING
        assert statuses(store, first, second) == [COMPLETE, QUEUED]
        assert store.heartbeat("worker-1", [used], lease_s=LONG_S).lost == {second}

    def test_a_row_that_was_to_be_cancelled_is_cancelled_by_requeueing(self, store: TaskStore) -> None:
        added = store.add(a_task())
        claim(store)
        store.cancel(added)
        assert store.requeue(added) == CANCELLED

    def test_only_what_runs_can_be_requeued(self, store: TaskStore) -> None:
        added = store.add(a_task())
        parent, _ = fan_out(store, "a", "b")
        for task_id, status in ((added, QUEUED), (parent, RUNNING)):
            with pytest.raises(InvalidInput, match=f"is {status}, and nothing of it runs"):
                store.requeue(task_id)
        with pytest.raises(TaskNotFound):
            store.requeue(NOBODY)

    # -- choosing ---------------------------------------------------------------------------------------------------

    def test_a_choice_means_the_rows_for_which_everything_holds(self, store: TaskStore) -> None:
        first, second, third = store.add_many([a_task(task_type="a"), a_task(task_type="b"), a_task(task_type="b")])
        store.pause(first)
        store.fail(claim(store, "gpu-1-0badf00d").claim, "boom", error_class="transient")
        store.resume(first)
        store.pause(third)
        choices: dict[str, tuple[TaskFilter, list[str]]] = {
            "all": (TaskFilter(), [first, second, third]),
            "type": (TaskFilter(task_type="b"), [second, third]),
            "status": (TaskFilter(statuses=(QUEUED,)), [first, third]),
            "statuses": (TaskFilter(statuses=(QUEUED, FAILED)), [first, second, third]),
            "class": (TaskFilter(error_class="transient"), [second]),
            "worker": (TaskFilter(worker_id="gpu-1-0badf00d"), [second]),
            "name": (TaskFilter(worker_id="gpu-1"), [second]),
            "another's name": (TaskFilter(worker_id="gpu"), []),
            "age": (TaskFilter(older_than_s=0), [first, second, third]),
            "old": (TaskFilter(older_than_s=60), []),
            "paused": (TaskFilter(paused=True), [third]),
            "both": (TaskFilter(task_type="b", paused=False), [second]),
        }
        for name, (chosen, expected) in choices.items():
            assert [task.id for task in store.select(chosen)] == expected, name
        assert [task.id for task in store.select(TaskFilter(), limit=1)] == [first]
        assert store.select(TaskFilter(), limit=0) == []

    def test_age_counts_from_when_a_row_was_added(self, store: TaskStore, front_end: FrontEnd) -> None:
        old, _ = store.add_many([a_task(), a_task()])
        front_end.update(old, created_at="2020-01-01T00:00:00.000Z")
        assert [task.id for task in store.select(TaskFilter(older_than_s=7200.5))] == [old]

    def test_a_run_is_an_orchestrator_with_all_that_came_of_it(self, store: TaskStore) -> None:
        params = {"orchestrator_details": {"run_id": "20260101"}}
        parent, children = fan_out(store, "a", "b", params=params)
        fan_out(store, "a", params={"orchestrator_details": {"run_id": "another"}})
        store.add(a_task(params=params))
        for run in (parent, "20260101"):
            assert [task.id for task in store.select(TaskFilter(run=run))] == [parent, *children]
        assert [task.id for task in store.select(TaskFilter(run=children[1]))] == children[1:]
        assert store.select(TaskFilter(run="nobody's")) == []
