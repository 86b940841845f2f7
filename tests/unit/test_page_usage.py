"""Samples and ends of tasks become charts: each second and each task is counted once, in its span."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless.accounting import Activity
from source.page.usage import (
    ACTIVITIES,
    Grid,
    account,
    activity,
    ended,
    gpu_memory,
    throughput,
    utilisation,
    worker_name,
)
from source.store.types import Status, ThroughputBucket, WorkerSample

NOW = datetime(2026, 1, 14, 12, 0, 30, tzinfo=UTC)
GRID = Grid.until(NOW, 600, 60)


def at(second: float) -> str:
    """A time of the database, so many seconds after the grid begins."""
    return datetime.fromtimestamp(GRID.begin + second, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def sample(second: float, worker: str = "a-00000001", **values: object) -> WorkerSample:
    return WorkerSample(worker, at(second), values)


def test_a_grid_ends_with_the_span_that_is_going_on() -> None:
    assert (GRID.begin % 60, GRID.count, len(GRID.times)) == (0, 11, 11)
    assert GRID.times[-1] <= NOW.timestamp() < GRID.times[-1] + 60
    assert [GRID.place(at(second)) for second in (-1, 0, 59.999, 60, 659, 660)] == [None, 0, 0, 1, 10, None]


def test_a_span_has_the_mean_of_what_was_measured_in_it_and_nothing_where_nothing_was() -> None:
    samples = [
        sample(0, gpu_utilization=20.0), sample(30, gpu_utilization=40.0), sample(130, gpu_utilization=0.0),
        sample(140, "b-00000001", gpu_utilization=None), sample(150, "c-00000001", gpu_utilization=7.0),
    ]  # fmt: skip
    first, second = utilisation(samples, GRID).series
    assert (first.name, first.values[:4]) == ("a", (30.0, None, 0.0, None))
    assert (second.name, second.values[2]) == ("c", 7.0)


def test_starts_of_one_worker_are_one_line() -> None:
    samples = [sample(0, "a-00000001", gpu_memory_used=2e9, gpu_memory_total=24e9),
               sample(70, "a-0000000f", gpu_memory_used=3e9, gpu_memory_total=24e9)]  # fmt: skip
    chart = gpu_memory(samples, GRID)
    assert ([each.name for each in chart.series], chart.series[0].values[:2], chart.most) == (["a"], (2.0, 3.0), 24.0)
    assert worker_name("render-box-0badf00d") == "render-box" and worker_name("box-1") == "box-1"


def test_what_was_spent_before_the_grid_is_not_counted_and_a_new_worker_is_from_its_start() -> None:
    old = [sample(0, gpu_seconds={"denoise": 5000.0}), sample(20, gpu_seconds={"denoise": 5012.0, "load": 8.0})]
    new = [sample(100, "b-00000001", gpu_seconds={"load": 30.0}), sample(120, "b-00000001", gpu_seconds={"load": 50.0})]
    found = account([*old, *new], GRID).seconds
    assert (found[Activity.DENOISE], found[Activity.LOAD]) == (12.0, 58.0)


def test_a_restarted_worker_begins_at_zero_again() -> None:
    samples = [
        sample(0, gpu_seconds={"denoise": 900.0}),
        sample(20, gpu_seconds={"denoise": 920.0}),
        sample(60, "a-00000002", gpu_seconds={"load": 4.0}),
    ]
    found = account(samples, GRID)
    assert (found.seconds[Activity.DENOISE], found.seconds[Activity.LOAD], found.total) == (20.0, 4.0, 24.0)
    assert found.busy == 1.0


spans = st.lists(st.tuples(st.sampled_from(list(Activity)), st.floats(0.001, 50)), max_size=40)


@given(lives=st.lists(spans, min_size=1, max_size=3))
def test_every_second_is_counted_once_and_the_shares_of_a_span_are_a_whole(
    lives: list[list[tuple[str, float]]],
) -> None:
    samples, expected = [], 0.0
    for number, life in enumerate(lives):
        total: dict[str, float] = {}
        passed = 0.0
        for name, seconds in life:
            if passed + seconds > 600:
                break
            passed += seconds
            total = total | {str(name): total.get(str(name), 0.0) + seconds}
            samples.append(sample(passed, f"w{number}-00000001", gpu_seconds=total))
        expected += passed
    found = account(samples, GRID)
    assert found.total == pytest.approx(expected, abs=1e-3)
    for values in zip(*(each.values for each in activity(samples, GRID).series), strict=True):
        assert values[0] is None or sum(each or 0 for each in values) == pytest.approx(100, abs=0.1)
    assert len(activity(samples, GRID).series) == len(ACTIVITIES) == len(Activity)


def test_ends_are_counted_by_span_and_by_type() -> None:
    buckets = [
        ThroughputBucket(at(0), Status.COMPLETE, "t2v", 3, 30.0),
        ThroughputBucket(at(0), Status.COMPLETE, "vace", 1, 100.0),
        ThroughputBucket(at(60), Status.FAILED, "t2v", 2, 50.0),
    ]
    chart = {each.name: each.values for each in throughput(buckets, GRID).series}
    assert (chart["Complete"][:2], chart["Failed"][:2], sum(v or 0 for v in chart["Cancelled"])) == ((4, 0), (0, 2), 0)
    vace, t2v = ended(buckets)
    assert (vace.task_type, vace.each_s, t2v.each_s, t2v.counts[Status.FAILED]) == ("vace", 100.0, 10.0, 2)
