"""Who gets which row, for how long, and what a worker that lost its row may still do: nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contract_rows import EXPIRED_S, LONG_S, FrontEnd, MakeStore, a_child, a_task, claim, claim_that, event_names

from source.errors import StaleClaim
from source.store import Claim, Status, TaskStore, child_id

WRITES: dict[str, Callable[[TaskStore, Claim], object]] = {
    "generation_started": lambda store, claim: store.generation_started(claim),
    "progress": lambda store, claim: store.progress(claim, {"step": 1}, event="step"),
    "note": lambda store, claim: store.note(claim, "warning", "a frame is missing"),
    "fan_out": lambda store, claim: store.fan_out(
        claim, [a_child(claim.task_id, "segment:0")], final_child=child_id(claim.task_id, "segment:0")
    ),
    "complete": lambda store, claim: store.complete(claim, "files/stale.mp4"),
    "fail": lambda store, claim: store.fail(claim, "stale", error_class="engine"),
    "retry_later": lambda store, claim: store.retry_later(claim, "stale", error_class="engine", delay_s=0),
    "release": lambda store, claim: store.release(claim),
    "cancelled": lambda store, claim: store.cancelled(claim),
}


class ClaimContract:
    def test_a_claim_takes_the_row_with_a_lease_and_a_number(self, store: TaskStore) -> None:
        added = store.add(a_task())
        task = claim(store, "worker-1")
        assert (task.id, task.status, task.worker_id, task.claim_number) == (added, Status.IN_PROGRESS, "worker-1", 1)
        assert task.lease_expires_at and task.claimed_at and task.lease_expires_at > task.claimed_at
        assert task.generation_started_at is not None
        assert store.claim("worker-2", lease_s=LONG_S) == []
        assert store.get(added) == task

    def test_only_the_task_types_asked_for_are_claimed(self, store: TaskStore) -> None:
        store.add(a_task(task_type="t2v"))
        wanted = store.add(a_task(task_type="travel_stitch"))
        assert claim(store, task_types={"travel_stitch", "travel_orchestrator"}).id == wanted
        assert store.claim("w", lease_s=LONG_S, task_types=[]) == []

    def test_paused_rows_stay_until_they_are_resumed(self, store: TaskStore, front_end: FrontEnd) -> None:
        added = store.add(a_task())
        front_end.update(added, paused=True)
        assert store.claim("w", lease_s=LONG_S) == []
        front_end.update(added, paused=False)
        assert claim(store).id == added

    def test_a_row_waits_until_run_after(self, store: TaskStore) -> None:
        store.add(a_task())
        store.retry_later(claim(store).claim, "busy", error_class="transient", delay_s=LONG_S)
        assert store.claim("w", lease_s=LONG_S) == []

    def test_a_row_waits_for_every_dependency(self, store: TaskStore) -> None:
        one, two = store.add_many([a_task(), a_task()])
        last = store.add(a_task(dependant_on=(one, two)))
        store.complete(claim_that(store, one), None)
        assert [task.id for task in store.claim("w", lease_s=EXPIRED_S, limit=9)] == [two]
        store.complete(claim_that(store, two), None)
        assert claim(store).id == last

    @pytest.mark.parametrize("params", ["not json", "[1, 2]", "null", "", "[" * 5000, '"text"'])
    def test_unreadable_params_fail_and_do_not_hold_up_the_next(
        self, store: TaskStore, front_end: FrontEnd, params: str
    ) -> None:
        front_end.insert(id="bad", task_type="t2v", params=params, priority=9)
        good = store.add(a_task())
        assert claim(store).id == good
        bad = store.get("bad")
        assert (bad.status, bad.error_class) == (Status.FAILED, "bad_input")
        assert bad.error_message and "params: must be a JSON object" in bad.error_message

    # -- leases -----------------------------------------------------------------------------------------------------

    def test_a_claim_rescues_an_expired_lease_first(self, store: TaskStore) -> None:
        added = store.add(a_task())
        claim(store, "dead", lease_s=EXPIRED_S)
        task = claim(store, "alive")
        assert (task.id, task.claim_number, task.attempts, task.worker_id) == (added, 2, 1, "alive")
        assert event_names(store, added) == ["queued", "claimed", "rescued", "claimed"]
        assert store.events(added)[2].worker_id == "dead"

    def test_rescue_leaves_a_living_sibling_alone(self, store: TaskStore) -> None:
        dead, living = store.add_many([a_task(), a_task()])
        claim(store, "box-1:a", lease_s=EXPIRED_S)
        kept = store.claim("box-1:b", lease_s=LONG_S)[0]
        assert {kept.id} < {dead, living}
        assert store.rescue() == 0
        store.heartbeat("box-1:b", [kept.claim], lease_s=EXPIRED_S)
        assert store.rescue() == 1
        assert store.get(kept.id).status == Status.QUEUED

    def test_a_heartbeat_keeps_the_lease_and_the_worker_row(self, store: TaskStore) -> None:
        store.add(a_task())
        task = claim(store, lease_s=EXPIRED_S)
        reply = store.heartbeat("worker-1", [task.claim], lease_s=LONG_S, current_model="wan")
        assert (reply.lost, reply.cancel_requested) == (frozenset(), frozenset())
        assert store.rescue() == 0
        store.heartbeat("worker-1", [], lease_s=LONG_S, status="stopping")
        [worker] = store.workers()
        assert (worker.id, worker.status, worker.current_model) == ("worker-1", "stopping", None)
        assert worker.last_heartbeat is not None and worker.last_heartbeat >= worker.created_at

    def test_a_heartbeat_names_what_was_lost_and_what_to_stop(self, store: TaskStore) -> None:
        lost, stop, kept = store.add_many([a_task(priority=2), a_task(priority=1), a_task()])
        claims = [claim(store, lease_s=EXPIRED_S).claim]
        claim(store, "worker-2")
        claims += [task.claim for task in store.claim("worker-1", lease_s=LONG_S, limit=2)]
        store.cancel(stop)
        reply = store.heartbeat("worker-1", claims, lease_s=LONG_S)
        assert (reply.lost, reply.cancel_requested) == (frozenset({lost}), frozenset({stop}))
        assert store.get(kept).status == Status.IN_PROGRESS

    # -- fencing ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("next_worker", ["worker-1", "worker-2"])
    def test_a_stale_claim_writes_nothing(self, store: TaskStore, write: str, next_worker: str) -> None:
        added = store.add(a_task())
        stale = claim(store, "worker-1", lease_s=EXPIRED_S).claim
        claim(store, next_worker)
        before, timeline = store.get(added), store.events(added)
        with pytest.raises(StaleClaim, match=rf"claim 1 of worker-1 is stale.*claimed by {next_worker} \(claim 2\)"):
            WRITES[write](store, stale)
        assert (store.get(added), store.events(added), store.children(added)) == (before, timeline, [])

    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("end", ["release", "fail", "cancelled"])
    def test_a_claim_ends_with_the_row(self, store: TaskStore, write: str, end: str) -> None:
        added = store.add(a_task())
        used = claim(store).claim
        WRITES[end](store, used)
        before = store.get(added)
        with pytest.raises(StaleClaim):
            WRITES[write](store, used)
        assert store.get(added) == before

    def test_the_claim_number_survives_the_way_through_the_queue(self, store: TaskStore) -> None:
        store.add(a_task())
        for number in (1, 2, 3):
            task = claim(store)
            assert (task.claim_number, task.attempts) == (number, 0)
            store.release(task.claim)

    # -- death ------------------------------------------------------------------------------------------------------

    def test_a_task_that_kills_its_workers_fails_as_poison(self, store: TaskStore) -> None:
        added = store.add(a_task())
        after = store.add(a_task(dependant_on=(added,)))
        for number in (1, 2, 3):
            claim(store, f"victim-{number}", lease_s=EXPIRED_S)
        assert store.rescue() == 1
        task = store.get(added)
        assert (task.status, task.error_class, task.attempts) == (Status.FAILED, "poison", 3)
        assert task.error_message and "died 3 time(s)" in task.error_message and "victim-3" in task.error_message
        assert store.get(after).status == Status.FAILED

    def test_the_retry_budget_is_configurable(self, make_store: MakeStore) -> None:
        store = make_store(max_attempts=1)
        added = store.add(a_task())
        claim(store, lease_s=EXPIRED_S)
        assert store.rescue() == 1
        assert store.get(added).error_class == "poison"

    def test_rescue_cancels_what_was_to_be_cancelled(self, store: TaskStore) -> None:
        added = store.add(a_task())
        claim(store, lease_s=EXPIRED_S)
        store.cancel(added)
        assert store.rescue() == 1
        assert store.get(added).status == Status.CANCELLED

    def test_rescue_fails_rows_that_can_never_run(self, store: TaskStore, front_end: FrontEnd) -> None:
        dead = store.add(a_task())
        store.fail(claim(store).claim, "boom", error_class="engine")
        front_end.insert(id="orphan", task_type="t2v", params={}, dependant_on='["gone"]')
        front_end.insert(id="late", task_type="t2v", params={}, dependant_on=dead)
        front_end.insert(id="later", task_type="t2v", params={}, dependant_on="late")
        front_end.insert(id="ring-1", task_type="t2v", params={}, dependant_on="ring-2")
        front_end.insert(id="ring-2", task_type="t2v", params={}, dependant_on="ring-1")
        assert store.rescue() == 5
        why = {"orphan": "gone", "late": dead, "later": dead, "ring-1": "circle", "ring-2": "circle"}
        for task_id, named in why.items():
            task = store.get(task_id)
            assert (task.status, task.error_class) == (Status.FAILED, "dependency")
            assert task.error_message and named in task.error_message
        assert store.rescue() == 0

    def test_rescue_ends_what_a_front_end_cancelled_by_hand(self, store: TaskStore, front_end: FrontEnd) -> None:
        first = store.add(a_task())
        after = store.add(a_task(dependant_on=(first,)))
        front_end.update(first, status="Cancelled")
        assert store.rescue() == 1
        assert store.get(after).status == Status.CANCELLED

    def test_waiting_sees_what_others_wrote_since_the_last_claim(self, store: TaskStore, front_end: FrontEnd) -> None:
        store.claim("w", lease_s=LONG_S)
        assert store.wait_for_change(0) is False
        front_end.insert(id="new", task_type="t2v", params={})
        assert store.wait_for_change(LONG_S) is True
        assert store.wait_for_change(0) is False
