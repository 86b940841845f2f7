"""Which row goes first: priority, whose turn it is, the loaded model within its bound, age."""

from __future__ import annotations

import pytest
from contract_rows import LONG_S, a_task, claim

from source.store import AffinityBound, TaskStore

Projects = tuple[str, str]
#: of two owners, one with a lot to do
FIRST, LAST = (f"00000000-0000-4000-8000-00000000000{digit}" for digit in "ab")
one_way = pytest.mark.parametrize("projects", [(FIRST, LAST)])
both_ways = pytest.mark.parametrize("projects", [(FIRST, LAST), (LAST, FIRST)])


class OrderContract:
    def test_the_order_is_priority_then_age(self, store: TaskStore) -> None:
        low = store.add(a_task())
        high = store.add_many([a_task(priority=2), a_task(priority=2)])
        assert [task.id for task in store.claim("w", lease_s=LONG_S, limit=9)] == [*high, low]

    def test_the_loaded_model_goes_first_within_a_priority(self, store: TaskStore) -> None:
        cold, warm, urgent = store.add_many(
            [a_task(), a_task(params={"model": "wan"}), a_task(params={"model": "flux"}, priority=1)]
        )
        taken = store.claim("w", lease_s=LONG_S, limit=9, loaded_model="wan")
        assert [task.id for task in taken] == [urgent, warm, cold]

    def test_without_a_loaded_model_only_age_counts(self, store: TaskStore) -> None:
        ids = store.add_many([a_task(params={"model": "wan"}), a_task(), a_task(params={"model": "flux"})])
        assert [task.id for task in store.claim("w", lease_s=LONG_S, limit=9)] == ids

    def test_the_limit_holds_across_both_orders(self, store: TaskStore) -> None:
        ids = store.add_many([a_task(params={"model": "ab"[i % 2]}) for i in range(6)])
        taken = store.claim("w", lease_s=LONG_S, limit=4, loaded_model="b")
        assert [task.id for task in taken] == [ids[1], ids[3], ids[5], ids[0]]
        assert store.claim("w", lease_s=LONG_S, limit=0) == []

    def test_a_row_without_a_model_counts_under_its_type(self, store: TaskStore) -> None:
        cold, warm = store.add_many([a_task(), a_task(task_type="z_image_turbo")])
        taken = store.claim("w", lease_s=LONG_S, limit=9, loaded_model="z_image_turbo")
        assert [task.id for task in taken] == [warm, cold]

    def test_the_oldest_row_is_passed_over_so_often_and_no_more(self, store: TaskStore) -> None:
        cold, *warm = store.add_many([a_task(), *(a_task(params={"model": "wan"}) for _ in range(5))])
        bound = AffinityBound(tasks=2)
        taken = [claim(store, name, loaded_model="wan", affinity=bound).id for name in ("w1", "w2", "w1")]
        assert taken == [warm[0], warm[1], cold]
        rest = store.claim("w1", lease_s=LONG_S, limit=9, loaded_model="wan", affinity=bound)
        assert [task.id for task in rest] == warm[2:]

    def test_the_oldest_row_is_passed_over_so_long_and_no_longer(self, store: TaskStore) -> None:
        """The second claim comes after the first: its 0 seconds are over."""
        cold, *warm = store.add_many([a_task(), *(a_task(params={"model": "wan"}) for _ in range(2))])
        bound = AffinityBound(wait_s=0)
        taken = [claim(store, loaded_model="wan", affinity=bound).id for _ in range(2)]
        assert taken == [warm[0], cold]

    def test_a_row_that_goes_back_to_the_queue_is_passed_over_anew(self, store: TaskStore) -> None:
        cold, *warm = store.add_many([a_task(), *(a_task(params={"model": "wan"}) for _ in range(4))])
        bound = AffinityBound(tasks=1)
        first, second = (claim(store, loaded_model="wan", affinity=bound) for _ in range(2))
        assert [first.id, second.id] == [warm[0], cold]
        store.release(second.claim)
        assert [claim(store, loaded_model="wan", affinity=bound).id for _ in range(2)] == [warm[1], cold]

    def test_a_row_that_suits_nobody_is_taken_by_whoever_asks(self, store: TaskStore) -> None:
        [only] = store.add_many([a_task(params={"model": "ltx"})])
        assert claim(store, "w1", loaded_model="wan", affinity=AffinityBound(tasks=100)).id == only

    # -- fairness ---------------------------------------------------------------------------------------------------

    @one_way
    def test_owners_take_turns_whoever_came_first(self, store: TaskStore, projects: Projects) -> None:
        greedy, other = projects
        many = store.add_many([a_task(project_id=greedy) for _ in range(9)])
        few = store.add_many([a_task(project_id=other) for _ in range(2)])
        taken = [task.id for task in store.claim("w", lease_s=LONG_S, limit=6)]
        assert sorted(taken[:4]) == sorted([*many[:2], *few])
        assert taken[4:] == many[2:4]

    @both_ways
    def test_a_worker_that_runs_one_row_at_a_time_serves_both(self, store: TaskStore, projects: Projects) -> None:
        greedy, other = projects
        store.add_many([a_task(project_id=greedy) for _ in range(9)])
        served = [self._run_one(store)]
        store.add_many([a_task(project_id=other) for _ in range(3)])
        served += [self._run_one(store) for _ in range(7)]
        assert served == [greedy, other, greedy, other, greedy, other, greedy, greedy]

    def _run_one(self, store: TaskStore) -> str:
        task = claim(store)
        store.complete(task.claim, None)
        return task.project_id

    @one_way
    def test_an_owner_of_whom_fewer_rows_run_goes_first(self, store: TaskStore, projects: Projects) -> None:
        greedy, other = projects
        store.add_many([a_task(project_id=greedy) for _ in range(9)])
        for name in ("w1", "w2", "w3"):
            assert claim(store, name).project_id == greedy
        store.add_many([a_task(project_id=other) for _ in range(9)])
        assert [claim(store, "w4").project_id for _ in range(4)] == [other] * 3 + [greedy]

    @one_way
    def test_fairness_goes_before_the_loaded_model_and_after_priority(
        self, store: TaskStore, projects: Projects
    ) -> None:
        greedy, other = projects
        wan = {"model": "wan"}
        store.add_many([a_task(project_id=greedy, params=wan) for _ in range(3)])
        assert claim(store, loaded_model="wan").project_id == greedy
        plain = store.add(a_task(project_id=other))
        urgent = store.add(a_task(project_id=greedy, priority=1))
        assert [claim(store, loaded_model="wan").id for _ in range(2)] == [urgent, plain]

    @both_ways
    def test_an_owner_whose_rows_all_wait_holds_up_nobody(self, store: TaskStore, projects: Projects) -> None:
        blocked, free = projects
        first = store.add(a_task(project_id=free))
        claim(store)
        store.add_many([a_task(project_id=blocked, dependant_on=(first,)) for _ in range(3)])
        added = store.add(a_task(project_id=free))
        assert claim(store).id == added
        assert store.claim("w", lease_s=LONG_S) == []
