"""Lists for people: the newest first, page by page, with parents' children counted."""

from __future__ import annotations

import pytest
from contract_rows import FrontEnd, a_task, claim_that, fan_out

from source.errors import TaskNotFound
from source.store import Status, TaskFilter, TaskStore

QUEUED, RUNNING, COMPLETE, FAILED, CANCELLED = Status
NOBODY = "00000000-0000-4000-8000-00000000dead"


def found(store: TaskStore, chosen: TaskFilter, **values: object) -> list[str]:
    return [task.id for task in store.select(chosen, newest_first=True, **values)]  # type: ignore[arg-type]


class ListContract:
    def test_pages_follow_each_other_and_leave_nothing_out(self, store: TaskStore) -> None:
        """Rows of one call share their time: the order goes on by the order of adding."""
        ids = [*store.add_many([a_task() for _ in range(5)]), store.add(a_task())]
        newest = ids[::-1]
        assert found(store, TaskFilter()) == newest
        seen: list[str] = []
        while page := found(store, TaskFilter(), limit=2, after=seen[-1] if seen else None):
            seen += page
        assert seen == newest
        oldest = [task.id for task in store.select(TaskFilter(), after=ids[3])]
        assert oldest == ids[4:]

    def test_what_is_added_meanwhile_moves_no_page(self, store: TaskStore) -> None:
        first, second = store.add(a_task()), store.add(a_task())
        store.add(a_task())
        assert found(store, TaskFilter(), after=second) == [first]

    def test_a_page_goes_on_behind_a_row_that_the_choice_leaves_out_by_now(self, store: TaskStore) -> None:
        first, second = store.add(a_task()), store.add(a_task())
        store.cancel(second)
        assert found(store, TaskFilter(statuses=(QUEUED,)), after=second) == [first]

    def test_a_row_that_is_gone_is_said_to_be(self, store: TaskStore) -> None:
        with pytest.raises(TaskNotFound):
            store.select(TaskFilter(), newest_first=True, after=NOBODY)

    def test_ids_are_found_by_what_they_begin_with(self, store: TaskStore) -> None:
        ids = ["5e1fa000-0000-4000-8000-000000000001", "5e1fa000-0000-4000-8000-000000000002",
               "5e1fb000-0000-4000-8000-000000000003"]  # fmt: skip
        store.add_many([a_task(id=each) for each in ids])
        assert store.ids_like("5e1fa") == ids[:2]
        assert store.ids_like("5e1f", limit=1) == ids[:1]
        assert store.ids_like(ids[2][:-1]) == store.ids_like(ids[2]) == ids[2:]
        assert [store.ids_like(nothing) for nothing in ("5e1fc", "nobody", "", "5e1f%", ids[0] + "0")] == [[]] * 5

    def test_rows_are_chosen_by_when_they_came_and_ended(self, store: TaskStore, front_end: FrontEnd) -> None:
        old, ended, stays = (store.add(a_task()) for _ in range(3))
        store.cancel(ended)
        front_end.update(old, created_at="2020-01-01T00:00:00.000Z")
        for chosen, expected in (
            (TaskFilter(newer_than_s=3600), [stays, ended]),
            (TaskFilter(older_than_s=3600), [old]),
            (TaskFilter(ended_within_s=3600), [ended]),
            (TaskFilter(ended_within_s=3600, statuses=(QUEUED,)), []),
        ):
            assert found(store, chosen) == expected, chosen

    def test_a_text_is_looked_for_where_people_can_see_it(self, store: TaskStore, front_end: FrontEnd) -> None:
        """Not among all parameters: who may search them could guess a secret piece by piece."""
        params = {"prompt": 'A Harbour at 100% "dusk"', "api_key": "s3cret-value", "model_name": "vace_14B"}
        wanted = store.add(a_task(task_type="vace", params=params))
        failed = store.add(a_task(params={"base_prompt": "reeds"}))
        store.fail(claim_that(store, failed), "the disk is FULL", error_class="disk_full")
        for text in ("harbour AT", '100% "', "vace", "VACE_14b", wanted[:13]):
            assert found(store, TaskFilter(text=text)) == [wanted], text
        for text in ("reeds", "is full"):
            assert found(store, TaskFilter(text=text)) == [failed], text
        for text in ("s3cret", "api_key", "harbour_at"):
            assert found(store, TaskFilter(text=text)) == [], text

    def test_parents_alone_with_their_children_counted(self, store: TaskStore) -> None:
        parent, children = fan_out(store, "a", "b", "c")
        single = store.add(a_task())
        store.complete(claim_that(store, children[0]), "files/a.mp4")
        assert found(store, TaskFilter(top=True)) == [single, parent]
        assert found(store, TaskFilter(top=False)) == children[::-1]
        assert store.child_counts([single, parent]) == {parent: {COMPLETE: 1, QUEUED: 2}}
        assert store.child_counts([]) == {}
