"""Parents that wait for their children."""

from __future__ import annotations

import pytest
from contract_rows import EXPIRED_S, LONG_S, a_child, a_task, claim, claim_that, event_names, fan_out, statuses

from source.errors import InvalidInput, StaleClaim
from source.store import Status, TaskStore, child_id

QUEUED, RUNNING, COMPLETE, FAILED, CANCELLED = Status


class ParentContract:
    def test_a_parent_waits_without_a_lease(self, store: TaskStore) -> None:
        parent, children = fan_out(store, "segment:0", "segment:1", "stitch:0")
        task = store.get(parent)
        assert (task.status, task.waiting, task.lease_expires_at) == (RUNNING, True, None)
        assert statuses(store, *children) == [QUEUED] * 3
        assert store.rescue() == 0
        assert event_names(store, parent)[-1] == "fanned_out"

    def test_the_last_child_completes_the_parent_with_the_final_output(self, store: TaskStore) -> None:
        parent, children = fan_out(store, "segment:0", "stitch:0", chain=True)
        after = store.add(a_task(dependant_on=(parent,)))
        store.complete(claim_that(store, children[0]), "files/segment.mp4")
        assert store.get(parent).status == RUNNING
        store.complete(claim_that(store, children[1]), "files/stitched.mp4", result_data={"frames": 137})
        task = store.get(parent)
        assert (task.status, task.waiting, task.output_location) == (COMPLETE, False, "files/stitched.mp4")
        assert task.result_data == {"frames": 137}
        assert claim(store).id == after

    def test_a_final_child_that_ends_early_does_not_end_the_parent(self, store: TaskStore) -> None:
        parent = store.add(a_task())
        children = [a_child(parent, "final:0"), a_child(parent, "extra:0")]
        store.fan_out(claim_that(store, parent), children, final_child=children[0].id)
        store.complete(claim_that(store, children[0].id), "files/final.mp4")
        assert store.get(parent).status == RUNNING
        store.complete(claim_that(store, children[1].id), "files/extra.mp4")
        assert store.get(parent).output_location == "files/final.mp4"

    def test_the_first_failure_fails_the_parent_when_the_rest_has_ended(self, store: TaskStore) -> None:
        parent, (zero, one, two, stitch) = fan_out(store, "segment:0", "segment:1", "segment:2", "stitch:0")
        after = store.add(a_task(dependant_on=(parent,)))
        store.fail(claim_that(store, one), "prompt: missing", error_class="bad_input")
        assert statuses(store, parent, zero, two, stitch) == [RUNNING, QUEUED, QUEUED, FAILED]
        store.complete(claim_that(store, zero), None)
        store.fail(claim_that(store, two), "later", error_class="engine")
        task = store.get(parent)
        assert (task.status, task.error_class, task.output_location) == (FAILED, "bad_input", None)
        assert task.error_message == f"child segment:1 ({one}) failed: prompt: missing"
        assert store.get(after).status == FAILED and parent in (store.get(after).error_message or "")

    def test_a_cancelled_child_cancels_the_parent_at_the_end(self, store: TaskStore) -> None:
        parent, (zero, one, stitch) = fan_out(store, "segment:0", "segment:1", "stitch:0")
        store.cancel(zero)
        assert statuses(store, parent, one, stitch) == [RUNNING, QUEUED, CANCELLED]
        store.complete(claim_that(store, one), None)
        assert store.get(parent).status == CANCELLED

    def test_cancelling_a_waiting_parent_cancels_queued_children_at_once(self, store: TaskStore) -> None:
        parent, children = fan_out(store, "segment:0", "segment:1", "stitch:0")
        assert store.cancel(parent) == CANCELLED
        assert statuses(store, *children) == [CANCELLED] * 3

    def test_cancelling_a_waiting_parent_ends_with_the_running_child(self, store: TaskStore) -> None:
        parent, (zero, one, stitch) = fan_out(store, "segment:0", "segment:1", "stitch:0")
        used = claim_that(store, zero)
        assert store.cancel(parent) == RUNNING
        assert statuses(store, zero, one, stitch) == [RUNNING, CANCELLED, CANCELLED]
        assert store.heartbeat("worker-1", [used], lease_s=LONG_S).cancel_requested == {zero}
        store.complete(used, "files/won.mp4")
        assert statuses(store, zero, parent) == [COMPLETE, CANCELLED]

    def test_nested_parents_end_from_the_inside(self, store: TaskStore) -> None:
        outer, (inner,) = fan_out(store, "group:0")
        leaf = a_child(inner, "segment:0")
        store.fan_out(claim_that(store, inner), [leaf], final_child=leaf.id)
        store.complete(claim_that(store, leaf.id), "files/leaf.mp4", result_data={"frames": 5})
        assert statuses(store, inner, outer) == [COMPLETE, COMPLETE]
        assert (store.get(outer).output_location, store.get(outer).result_data) == ("files/leaf.mp4", {"frames": 5})

    def test_cancelling_reaches_the_grandchildren(self, store: TaskStore) -> None:
        outer, (inner,) = fan_out(store, "group:0")
        leaves = [a_child(inner, "segment:0"), a_child(inner, "segment:1")]
        store.fan_out(claim_that(store, inner), leaves, final_child=leaves[0].id)
        used = claim_that(store, leaves[0].id)
        assert store.cancel(outer) == RUNNING
        store.cancelled(used)
        assert statuses(store, leaves[0].id, leaves[1].id, inner, outer) == [CANCELLED] * 4

    # -- repeating --------------------------------------------------------------------------------------------------

    def test_a_fan_out_whose_answer_was_lost_may_be_repeated(self, store: TaskStore) -> None:
        parent = store.add(a_task())
        used = claim(store).claim
        child = a_child(parent, "segment:0")
        assert store.fan_out(used, [child], final_child=child.id) == [child.id]
        before = store.events(parent)
        assert store.fan_out(used, [child], final_child=child.id) == [child.id]
        assert store.events(parent) == before
        with pytest.raises(StaleClaim, match="waits for its children"):
            store.complete(used, None)

    def test_a_retried_parent_keeps_its_finished_children(self, store: TaskStore) -> None:
        parent, (zero, stitch) = fan_out(store, "segment:0", "stitch:0", chain=True)
        store.complete(claim_that(store, zero), "files/zero.mp4")
        store.fail(claim_that(store, stitch), "boom", error_class="engine")
        assert store.get(parent).status == FAILED
        assert store.retry(parent) == QUEUED
        assert statuses(store, zero, stitch) == [COMPLETE, QUEUED]
        again = [a_child(parent, "segment:0"), a_child(parent, "stitch:0", dependant_on=(zero,))]
        assert store.fan_out(claim_that(store, parent), again, final_child=stitch) == [zero, stitch]
        store.complete(claim_that(store, stitch), "files/stitched.mp4")
        assert store.get(parent).output_location == "files/stitched.mp4"

    def test_a_fan_out_whose_children_have_all_ended_ends_the_parent(self, store: TaskStore) -> None:
        parent, (only,) = fan_out(store, "segment:0")
        store.fail(claim_that(store, only), "boom", error_class="engine")
        store.retry(only)
        assert statuses(store, parent, only) == [QUEUED, QUEUED]
        store.complete(claim_that(store, only), "files/a.mp4")
        store.fan_out(claim_that(store, parent), [a_child(parent, "segment:0")], final_child=only)
        assert (store.get(parent).status, store.get(parent).output_location) == (COMPLETE, "files/a.mp4")

    def test_a_parent_that_fails_leaves_no_child_queued(self, store: TaskStore) -> None:
        parent, (zero, one) = fan_out(store, "segment:0", "segment:1", chain=True)
        store.fail(claim_that(store, zero), "boom", error_class="engine")
        store.retry(parent)
        store.fail(claim_that(store, parent), "phase_config: unreadable", error_class="bad_input")
        assert statuses(store, parent, zero, one) == [FAILED] * 3
        assert parent in (store.get(zero).error_message or "")
        store.retry(parent)
        assert statuses(store, parent, zero, one) == [QUEUED] * 3

    def test_a_parent_rescued_before_it_fanned_out_runs_again(self, store: TaskStore) -> None:
        parent = store.add(a_task())
        stale = claim(store, lease_s=EXPIRED_S).claim
        used = claim(store, "worker-2").claim
        child = a_child(parent, "segment:0")
        store.fan_out(used, [child], final_child=child.id)
        with pytest.raises(StaleClaim):
            store.fan_out(stale, [child], final_child=child.id)

    def test_a_parent_cancelled_while_it_plans_cancels_its_new_children(self, store: TaskStore) -> None:
        parent = store.add(a_task())
        used = claim(store).claim
        store.cancel(parent)
        child = a_child(parent, "segment:0")
        store.fan_out(used, [child], final_child=child.id)
        assert statuses(store, parent, child.id) == [CANCELLED, CANCELLED]

    # -- refusals ---------------------------------------------------------------------------------------------------

    def test_children_of_somebody_else_are_refused(self, store: TaskStore) -> None:
        parent, other = store.add_many([a_task(), a_task()])
        used = claim_that(store, parent)
        stranger = a_child(other, "segment:0")
        with pytest.raises(InvalidInput, match="is not a child"):
            store.fan_out(used, [stranger], final_child=stranger.id)
        taken = a_child(parent, "segment:0")
        store.add(a_task(id=taken.id))
        with pytest.raises(InvalidInput, match="exists already and belongs to no parent"):
            store.fan_out(used, [taken], final_child=taken.id)

    def test_a_parent_may_have_any_id(self, store: TaskStore) -> None:
        parents = store.add_many([a_task(id="my-id"), a_task(id="ein Gruß")])
        for parent in parents:
            child = a_child(parent, "segment:0")
            assert child.id == child_id(parent, "segment:0")
            store.fan_out(claim_that(store, parent), [child], final_child=child.id)
        assert len({child.id for parent in parents for child in store.children(parent)}) == 2

    def test_the_final_child_must_be_a_child(self, store: TaskStore) -> None:
        parent = store.add(a_task())
        used = claim(store).claim
        with pytest.raises(InvalidInput, match="final_child"):
            store.fan_out(used, [a_child(parent, "segment:0")], final_child=child_id(parent, "stitch:0"))
        assert (store.get(parent).waiting, store.children(parent)) == (False, [])
