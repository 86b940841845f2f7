"""Random graphs of tasks under random verbs: no child runs early, nothing stays queued, one completion each."""

from __future__ import annotations

from contract_rows import EXPIRED_S, LONG_S, MakeStore, a_child, a_task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from source.store import Status, Task, TaskStore

VERBS = ("claim", "complete", "fail", "retry_later", "release", "die", "fan_out", "cancel", "retry")
Step = tuple[str, int]
Graph = list[list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """For each task, which of the earlier ones it depends on."""
    size = draw(st.integers(1, 8))
    return [draw(st.lists(st.integers(0, i - 1), unique=True, max_size=3)) if i else [] for i in range(size)]


class Driver:
    """Applies verbs to a store as workers and a user would, and checks each claim."""

    def __init__(self, store: TaskStore, graph: Graph) -> None:
        self.store = store
        names = [f"00000000-0000-4000-8000-{i:012d}" for i in range(len(graph))]
        self.ids = store.add_many(
            [a_task(id=names[i], dependant_on=tuple(names[d] for d in needed)) for i, needed in enumerate(graph)]
        )
        self.held: list[Task] = []
        self.completed: list[str] = []

    def apply(self, verb: str, index: int) -> None:
        if verb == "claim":
            self.held += self._claim(LONG_S)
        elif verb == "die":
            self._claim(EXPIRED_S)
        elif verb == "cancel":
            self.store.cancel(self.ids[index % len(self.ids)])
        elif verb == "retry":
            self._retry(self.ids[index % len(self.ids)])
        elif self.held:
            self._end(self.held.pop(index % len(self.held)), verb)

    def finish(self) -> None:
        """Work on until nothing can be claimed any more."""
        self.store.rescue()
        self.held += self._claim(LONG_S)
        while self.held:
            self._end(self.held.pop(), "complete")
            self.store.rescue()
            self.held += self._claim(LONG_S)

    def _claim(self, lease_s: float) -> list[Task]:
        taken = self.store.claim("worker", lease_s=lease_s, limit=2)
        for task in taken:
            assert all(needed.status == Status.COMPLETE for needed in self.store.dependencies(task.id))
        return taken

    def _end(self, task: Task, verb: str) -> None:
        if verb == "complete":
            self.store.complete(task.claim, f"files/{task.id}.mp4")
            self.completed.append(task.id)
        elif verb == "fail":
            self.store.fail(task.claim, "boom", error_class="engine")
        elif verb == "retry_later":
            self.store.retry_later(task.claim, "reset", error_class="transient", delay_s=0)
        elif verb == "fan_out" and task.parent_id is None:
            first = a_child(task.id, "segment:0")
            last = a_child(task.id, "stitch:0", dependant_on=(first.id,))
            self.ids += self.store.fan_out(task.claim, [first, last], final_child=last.id)
        else:
            self.store.release(task.claim)

    def _retry(self, task_id: str) -> None:
        if self.store.get(task_id).status == Status.FAILED:
            self.store.retry(task_id)


# one test, run once by the class of each backend
BY_EACH_BACKEND = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]


#: what a history is made of
HISTORIES = given(graph=graphs(), steps=st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 9)), max_size=40))


def some(histories: int) -> settings:
    """So many of them."""
    return settings(max_examples=histories, deadline=None, suppress_health_check=BY_EACH_BACKEND)


class GraphContract:
    @some(60)
    @HISTORIES
    def test_any_history_ends_with_nothing_queued(self, make_store: MakeStore, graph: Graph, steps: list[Step]) -> None:
        self.check_history(make_store(), graph, steps)

    def check_history(self, store: TaskStore, graph: Graph, steps: list[Step]) -> None:
        driver = Driver(store, graph)
        for verb, index in steps:
            driver.apply(verb, index)
        driver.finish()
        counts = store.counts()
        assert (counts[Status.QUEUED], counts[Status.IN_PROGRESS]) == (0, 0)
        assert store.idle()
        assert len(set(driver.completed)) == len(driver.completed)
        for task in map(store.get, driver.completed):
            assert (task.status, task.output_location) == (Status.COMPLETE, f"files/{task.id}.mp4")
