"""Adding and reading rows, and what is refused."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from contract_rows import FrontEnd, a_child, a_task, claim, claim_that, event_names, fan_out

from source.errors import InvalidInput, TaskNotFound
from source.store import Status, TaskStore
from source.store.types import DEFAULT_PROJECT_ID


class AddingContract:
    def test_an_added_row_reads_back_as_it_was_given(self, store: TaskStore) -> None:
        new = a_task(params={"prompt": "Zürich 東京 🎬", "seed": 0}, priority=3, project_id="p1")
        assert store.add(new) == new.id
        task = store.get(new.id)
        assert (task.task_type, task.params, task.status) == ("t2v", new.params, Status.QUEUED)
        assert (task.priority, task.project_id, task.attempts, task.claim_number) == (3, "p1", 0, 0)
        assert task.created_at.endswith("Z") and len(task.created_at) == len("2026-01-01T00:00:00.000Z")
        assert event_names(store, new.id) == ["queued"]

    def test_now_is_by_the_clock_that_rows_are_stamped_with(self, store: TaskStore) -> None:
        before = store.now()
        task = store.get(store.add(a_task()))
        assert before <= datetime.fromisoformat(task.created_at) <= store.now()

    def test_an_id_that_exists_is_left_alone(self, store: TaskStore) -> None:
        first = a_task(params={"prompt": "one"})
        again = a_task(id=first.id, params={"prompt": "two"})
        store.add(first)
        assert store.add_many([again, again]) == [first.id, first.id]
        assert store.get(first.id).params == {"prompt": "one"}
        assert sum(store.counts().values()) == 1

    @pytest.mark.parametrize(
        ("params", "model"),
        [
            ({"model_name": "a", "model": "c", "orchestrator_details": {"model_name": "b"}}, "a"),
            ({"model": "c", "orchestrator_details": {"model_name": "b"}}, "b"),
            ({"model_name": "", "model": "c"}, "c"),
            ({"model_name": 7, "orchestrator_details": "none"}, None),
        ],
    )
    def test_the_model_is_read_from_the_params(
        self, store: TaskStore, front_end: FrontEnd, params: dict[str, object], model: str | None
    ) -> None:
        assert store.get(store.add(a_task(params=params))).model == model
        front_end.insert(id="direct", task_type="t2v", params=params)
        assert store.get("direct").model == model

    @pytest.mark.parametrize(("params", "priority"), [({"priority": 7}, 7), ({"priority": "high"}, 0), ({}, 0)])
    def test_a_priority_in_the_params_counts(
        self, store: TaskStore, front_end: FrontEnd, params: dict[str, object], priority: int
    ) -> None:
        front_end.insert(id="direct", task_type="t2v", params=params)
        assert store.get("direct").priority == priority

    def test_a_front_end_gives_three_columns_and_the_row_runs(self, store: TaskStore, front_end: FrontEnd) -> None:
        front_end.insert(id="direct", task_type="t2v", params={"prompt": "x"})
        task = claim(store)
        assert (task.id, task.project_id, task.params) == ("direct", DEFAULT_PROJECT_ID, {"prompt": "x"})
        assert event_names(store, "direct") == ["queued", "claimed"]

    def test_params_that_cannot_be_json_are_refused_by_name(self, store: TaskStore) -> None:
        with pytest.raises(InvalidInput, match="params"):
            store.add_many([a_task(), a_task(params={"seed": object()})])
        with pytest.raises(InvalidInput, match="params"):
            store.add(a_task(params={"fps": float("nan")}))
        assert sum(store.counts().values()) == 0

    def test_an_unknown_dependency_is_refused_and_nothing_is_added(self, store: TaskStore) -> None:
        with pytest.raises(InvalidInput, match="there is no task nowhere"):
            store.add_many([a_task(), a_task(dependant_on=("nowhere",))])
        assert sum(store.counts().values()) == 0

    def test_a_failed_or_cancelled_dependency_is_refused(self, store: TaskStore) -> None:
        failed, cancelled = store.add(a_task()), store.add(a_task())
        store.fail(claim_that(store, failed), "boom", error_class="bad_input")
        store.cancel(cancelled)
        for dependency, status in ((failed, "Failed"), (cancelled, "Cancelled")):
            with pytest.raises(InvalidInput, match=f"{dependency} is {status}"):
                store.add(a_task(dependant_on=(dependency,)))

    def test_cycles_are_refused(self, store: TaskStore) -> None:
        one, two, three = a_task(dependant_on=("3",), id="1"), a_task(dependant_on=("1",), id="2"), a_task(id="3")
        with pytest.raises(InvalidInput, match="wait for each other"):
            store.add_many([one, two, a_task(id="3", dependant_on=("2",))])
        with pytest.raises(InvalidInput, match="wait for each other"):
            store.add(a_task(id="self", dependant_on=("self",)))
        assert store.add_many([two, one, three]) == ["2", "1", "3"]

    def test_a_child_that_waits_for_its_parent_is_refused(self, store: TaskStore) -> None:
        parent = store.add(a_task())
        after_parent = store.add(a_task(dependant_on=(parent,)))
        claimed = claim_that(store, parent)
        for dependency in (parent, after_parent):
            child = a_child(parent, "segment:0", dependant_on=(dependency,))
            with pytest.raises(InvalidInput, match="wait for each other"):
                store.fan_out(claimed, [child], final_child=child.id)
        assert store.children(parent) == []

    def test_a_child_key_is_unique_within_its_parent(self, store: TaskStore) -> None:
        store.add(a_task(parent_id="p", child_key="segment:0"))
        with pytest.raises(InvalidInput, match="cannot be added"):
            store.add(a_task(parent_id="p", child_key="segment:0"))

    def test_a_missing_row_is_named(self, store: TaskStore) -> None:
        for verb in (store.get, store.cancel, store.retry):
            with pytest.raises(TaskNotFound, match="no task nowhere"):
                verb("nowhere")

    def test_lists_show_the_newest_first_and_filter(self, store: TaskStore) -> None:
        ids = store.add_many([a_task(), a_task(task_type="i2v"), a_task()])
        store.cancel(ids[0])
        assert [task.id for task in store.tasks()] == ids[::-1]
        assert [task.id for task in store.tasks(limit=1)] == ids[2:]
        assert [task.id for task in store.tasks(status=Status.CANCELLED)] == ids[:1]
        assert [task.id for task in store.tasks(task_type="i2v", status=Status.QUEUED)] == ids[1:2]
        assert store.counts() == {
            Status.QUEUED: 2, Status.IN_PROGRESS: 0, Status.COMPLETE: 0, Status.FAILED: 0, Status.CANCELLED: 1,
        }  # fmt: skip

    def test_dependencies_and_children_keep_their_order(self, store: TaskStore) -> None:
        parent, children = fan_out(store, "b:0", "a:0", "stitch:0")
        assert [task.id for task in store.children(parent)] == children
        assert [task.id for task in store.dependencies(children[-1])] == children[:-1]
        assert store.get(children[-1]).dependant_on == tuple(children[:-1])
        assert store.get(children[0]).child_key == "b:0"

    def test_a_bare_id_as_dependency_is_a_list_of_one(self, store: TaskStore, front_end: FrontEnd) -> None:
        first = store.add(a_task())
        front_end.insert(id="second", task_type="t2v", params={}, dependant_on=first)
        assert store.get("second").dependant_on == (first,)
        assert [task.id for task in store.claim("w", lease_s=9, limit=9)] == [first]

    def test_idle_means_that_no_row_can_change(self, store: TaskStore, front_end: FrontEnd) -> None:
        assert store.idle()
        running, paused = store.add(a_task()), store.add(a_task())
        front_end.update(paused, paused=True)
        assert store.open_tasks() == 1
        claimed = claim_that(store, running)
        assert not store.idle()
        store.complete(claimed, None)
        assert store.idle()

    def test_what_waits_for_a_paused_row_is_held_up_too(self, store: TaskStore, front_end: FrontEnd) -> None:
        """A worker that leaves when nothing is left to do would never leave otherwise."""
        paused = store.add(a_task())
        front_end.update(paused, paused=True)
        dependant = store.add(a_task(dependant_on=(paused,)))
        store.add(a_task(dependant_on=(dependant,)))
        assert store.idle()
        parent = store.add(a_task())
        children = [a_child(parent, "segment:0"), a_child(parent, "segment:1")]
        store.fan_out(claim(store).claim, children, final_child=children[1].id)
        assert store.open_tasks() == 3
        front_end.update(children[0].id, paused=True)
        assert store.open_tasks() == 1
        front_end.update(paused, paused=False)
        assert store.open_tasks() == 4

    @pytest.mark.parametrize("priority", [2**53, -(2**53)])
    def test_a_priority_beyond_what_json_counts_exactly_is_refused(
        self, store: TaskStore, front_end: FrontEnd, priority: int
    ) -> None:
        for whole in (2**53 - 1, 1 - 2**53):
            assert store.get(store.add(a_task(priority=whole))).priority == whole
        with pytest.raises(InvalidInput, match=r"priority: must be .* -9007199254740991"):
            store.add(a_task(priority=priority))
        with pytest.raises(Exception, match=r"must be between -9007199254740991 and"):
            front_end.insert(id="too-much", task_type="t2v", params={}, priority=priority)
        front_end.insert(id="params", task_type="t2v", params={"priority": priority})
        assert store.get("params").priority == 0

    def test_a_task_depends_on_1000_others_at_most(self, store: TaskStore, front_end: FrontEnd) -> None:
        others = store.add_many([a_task() for _ in range(1001)])
        assert len(store.get(store.add(a_task(dependant_on=tuple(others[1:])))).dependant_on) == 1000
        with pytest.raises(InvalidInput, match="dependant_on: a task may depend on 1000 others at most"):
            store.add(a_task(dependant_on=tuple(others)))
        front_end.insert(id="one", task_type="t2v", params={}, dependant_on=others[0])
        with pytest.raises(Exception, match="a task may depend on 1000 others at most"):
            front_end.update("one", dependant_on=json.dumps(others))
