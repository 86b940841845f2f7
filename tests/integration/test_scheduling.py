"""The order of claims over whole traces (F20): few loads, nobody waits for ever, nobody is starved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mixed_traces import GREEDY, OTHER, Arrival, Play, in_order_of_age, mixed_trace
from postgres_server import Database
from postgres_server import database as database
from postgres_server import shared_database as shared_database
from postgres_store import PostgresStore

from source.store import AffinityBound, TaskStore
from source.store.sqlite import SqliteStore

Empty = Callable[[], TaskStore]
SEED = 20
TASK_S, LOAD_S = 1.0, 2.0


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Empty]:
    """A new file each time."""
    stores: list[SqliteStore] = []
    numbers = count()

    def make() -> SqliteStore:
        stores.append(SqliteStore(tmp_path / f"{next(numbers)}.db"))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def postgres(database: Database) -> Empty:
    def make() -> PostgresStore:
        database.empty()
        with database.acting("service_role") as service:
            for project in (GREEDY, OTHER):
                service.execute("insert into public.projects (id) values (%s)", (project,))
        return PostgresStore(database)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_a_mixed_trace_of_a_greedy_user_and_another(backend: str, request: pytest.FixtureRequest) -> None:
    """200 rows of 5 models, two workers."""
    check_trace(request.getfixturevalue(backend), mixed_trace(SEED), fewer=3)


def test_a_shorter_trace(sqlite: Empty) -> None:
    check_trace(sqlite, mixed_trace(SEED, rows=60, others=6), fewer=2)


def check_trace(make: Empty, trace: list[Arrival], *, fewer: float) -> None:
    times = {"task_s": TASK_S, "load_s": LOAD_S}
    fifo = Play(make(), in_order_of_age(trace), bound=None, **times).run()
    ours = Play(make(), trace, bound=AffinityBound(), **times).run()
    print(f"seed {SEED}: {fifo.loads} loads by age, {ours.loads} by our order; {fifo.seconds} s, {ours.seconds} s")
    assert ours.loads <= fifo.loads / fewer
    assert ours.seconds < fifo.seconds
    # the bound of the preference, and so of every wait
    assert ours.passed_over <= AffinityBound().tasks
    assert max(ours.waits.values()) < max(fifo.waits.values())
    # the other user
    assert len(ours.first_waits[OTHER]) >= 3
    assert max(ours.first_waits[OTHER]) <= TASK_S + LOAD_S < max(fifo.first_waits[GREEDY] + list(fifo.waits.values()))


ARRIVALS = st.builds(
    Arrival, st.floats(0, 10), st.sampled_from([GREEDY, OTHER]), st.sampled_from(["wan", "flux", "ltx"]),
    st.integers(0, 1),
)  # fmt: skip


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trace=st.lists(ARRIVALS, min_size=1, max_size=20), workers=st.integers(1, 3), tasks=st.integers(0, 3),
    load_s=st.sampled_from([0.0, 0.5, 5.0]),
)  # fmt: skip
def test_every_row_of_any_trace_is_run_by_whoever_is_free(
    tmp_path_factory: pytest.TempPathFactory, trace: list[Arrival], workers: int, tasks: int, load_s: float
) -> None:
    """No row waits for a worker that has its model, so workers never defer to each other; nothing else is taken first
    than the order allows (`Play` asserts both at each claim), and no oldest row is passed over more often than that."""
    ordered = sorted(trace, key=lambda arrival: arrival.at)
    with closing(SqliteStore(tmp_path_factory.mktemp("trace") / "tasks.db")) as store:
        played = Play(store, ordered, workers=workers, load_s=load_s, bound=AffinityBound(tasks=tasks)).run()
    assert played.passed_over <= tasks
    assert len(played.waits) == len(trace)


def test_a_row_that_is_always_passed_over_by_newcomers_is_run_all_the_same(sqlite: Empty) -> None:
    """One row of another model, and so many of the loaded one that there always is one: the bound takes it out."""
    trace = [
        Arrival(0, GREEDY, "wan"), Arrival(0.1, GREEDY, "rare"), *(Arrival(0.2 + i, GREEDY, "wan") for i in range(30))
    ]  # fmt: skip
    played = Play(sqlite(), trace, workers=1, bound=AffinityBound(tasks=8)).run()
    assert 8 <= played.waits[1] <= 11
