"""How workers and their GPUs were used over time: samples and ends of tasks become series over one grid of spans."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from headless.accounting import IDLE, Activity
from source.store.types import TERMINAL, Status, ThroughputBucket, WorkerSample

GB = 1e9
#: how far a worker's seconds may be from the database's
_SLACK_S = 1.0
#: what the accelerator's thread is at, for people; from work to idleness
ACTIVITIES = {
    Activity.DENOISE: "denoising",
    Activity.ENCODE: "encoding prompts and media",
    Activity.DECODE: "decoding",
    Activity.SAVE: "writing files",
    Activity.LOAD: "loading models",
    Activity.LENT: "lent to another program",
    Activity.IDLE_WAITING: "idle, a task was being prepared",
    Activity.IDLE_NO_TASK: "idle, no task",
}
ENDS = tuple(status for status in Status if status in TERMINAL)
#: the name that a worker was given, before the mark of one start of it
_NAME = re.compile(r"(.+)-[0-9a-f]{8}")


@dataclass(frozen=True)
class Grid:
    """Spans of equal length, one after another. Seconds since 1970; `begin` is a multiple of `bucket_s`."""

    begin: int
    bucket_s: int
    count: int

    @classmethod
    def until(cls, now: datetime, span_s: int, bucket_s: int) -> Grid:
        """The last `span_s` seconds, and what is left of the first span."""
        begin = int(now.timestamp() - span_s) // bucket_s * bucket_s
        return cls(begin, bucket_s, int(now.timestamp() - begin) // bucket_s + 1)

    @property
    def times(self) -> tuple[int, ...]:
        """The begin of each span."""
        return tuple(range(self.begin, self.begin + self.count * self.bucket_s, self.bucket_s))

    def place(self, at: str) -> int | None:
        """The number of the span that a time of the database lies in; None outside."""
        place = int(seconds(at) - self.begin) // self.bucket_s
        return place if 0 <= place < self.count else None


@dataclass(frozen=True)
class Series:
    """One line, or one part of a stack: a value for each span, None where nothing is known."""

    name: str
    #: what it is drawn as: an activity, a status, or "" for one of several of a kind
    kind: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """Series over the spans of a grid."""

    key: str
    title: str
    unit: str
    times: tuple[int, ...]
    series: tuple[Series, ...]
    #: whether the series add up
    stacked: bool = False
    #: the top of its scale; None: what is seen
    most: float | None = None

    @property
    def known(self) -> bool:
        """Whether there is anything to draw."""
        return any(value for each in self.series for value in each.values)

    @property
    def rows(self) -> list[tuple[str, tuple[float | None, ...]]]:
        """Each span's begin, as the database writes times, with the value of each series."""
        columns = zip(*(each.values for each in self.series), strict=True)
        begins = (datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S") for time in self.times)
        return list(zip(begins, columns, strict=False))

    @property
    def summary(self) -> str:
        """In one sentence, for who cannot see it."""
        parts = (f"{each.name} {_in_words(each, self.unit)}" for each in self.series if any(each.values))
        return f"{self.title}: {'; '.join(parts) or 'nothing'}"

    def as_json(self) -> dict[str, Any]:
        """For programs, and for the script that draws."""
        return asdict(self)


def _in_words(series: Series, unit: str) -> str:
    known = [each for each in series.values if each is not None]
    if unit == "tasks":
        return f"{sum(known):g}"
    return f"{sum(known) / len(known):.1f} {unit} on average, {max(known):.1f} {unit} at most"


@lru_cache(maxsize=1 << 16)
def seconds(at: str) -> float:
    """A time of the database, since 1970. (Each chart asks for the same ones.)"""
    return datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()


def worker_name(worker_id: str) -> str:
    """The name that all starts of a worker share."""
    found = _NAME.fullmatch(worker_id)
    return found[1] if found else worker_id


# -- what was measured ----------------------------------------------------------------------------------------------


def utilisation(samples: Sequence[WorkerSample], grid: Grid) -> Chart:
    """Percent of the time that each worker's GPU was busy."""
    return Chart(
        "utilisation", "GPU utilisation", "%", grid.times, _measured(samples, grid, "gpu_utilization", _mean), most=100
    )


def gpu_memory(samples: Sequence[WorkerSample], grid: Grid) -> Chart:
    """The most memory that was in use on each worker's GPU, in GB; its scale ends with the largest GPU."""
    totals = [each.values.get("gpu_memory_total") or 0 for each in samples]
    series = _measured(samples, grid, "gpu_memory_used", max, GB)
    return Chart("gpu_memory", "GPU memory in use", "GB", grid.times, series, most=max(totals, default=0) / GB or None)


def process_memory(samples: Sequence[WorkerSample], grid: Grid) -> Chart:
    """The most memory of the machine that each worker's process had, in GB."""
    return Chart("process_memory", "Memory of the workers", "GB", grid.times, _measured(samples, grid, "rss", max, GB))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _measured(
    samples: Sequence[WorkerSample], grid: Grid, name: str, of_span: Callable[[list[float]], float], unit: float = 1.0
) -> tuple[Series, ...]:
    """A series for each worker that measured this at all."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in samples:
        value, place = each.values.get(name), grid.place(each.at)
        if isinstance(value, int | float) and place is not None:
            found[worker_name(each.worker_id)][place].append(value / unit)
    return tuple(
        Series(worker, "", tuple(round(of_span(by_place[place]), 3) if place in by_place else None
                                 for place in range(grid.count)))
        for worker, by_place in sorted(found.items())
    )  # fmt: skip


# -- where the seconds went -----------------------------------------------------------------------------------------


def spent(samples: Sequence[WorkerSample], grid: Grid) -> Iterator[tuple[int, str, float]]:
    """(span, activity, seconds) of all accelerators: what each worker's account grew by from sample to sample."""
    before: dict[str, Mapping[str, float]] = {}
    for each in samples:
        now = each.values.get("gpu_seconds")
        place = grid.place(each.at)
        if not isinstance(now, Mapping) or place is None:
            continue
        if each.worker_id not in before and seconds(each.at) - sum(now.values()) < grid.begin - _SLACK_S:
            before[each.worker_id] = now  # it is older than the grid: nobody knows what it did before
        earlier = before.get(each.worker_id, {})
        before[each.worker_id] = now
        for activity, total in now.items():
            if (grown := total - earlier.get(activity, 0.0)) > 0:
                yield place, activity, grown


def activity(samples: Sequence[WorkerSample], grid: Grid) -> Chart:
    """Percent of the accelerators' time by what they were at."""
    totals: dict[int, float] = defaultdict(float)
    by_activity: dict[str, dict[int, float]] = {name: defaultdict(float) for name in ACTIVITIES}
    for place, name, grown in spent(samples, grid):
        if name in by_activity:
            by_activity[name][place] += grown
            totals[place] += grown
    series = tuple(
        Series(ACTIVITIES[Activity(name)], str(name), tuple(
            round(100 * counted[place] / totals[place], 2) if place in totals else None for place in range(grid.count)
        ))
        for name, counted in by_activity.items()
    )  # fmt: skip
    return Chart("activity", "What the GPUs were at", "%", grid.times, series, stacked=True, most=100)


@dataclass(frozen=True)
class Account:
    """Seconds of all accelerators by activity."""

    seconds: Mapping[Activity, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def busy(self) -> float | None:
        """The share that was not idle; None where nothing is known."""
        idle = sum(each for name, each in self.seconds.items() if name in IDLE)
        return 1 - idle / self.total if self.total else None


def account(samples: Sequence[WorkerSample], grid: Grid) -> Account:
    """All that was spent within the grid."""
    found = {name: 0.0 for name in ACTIVITIES}
    for _, name, grown in spent(samples, grid):
        if name in found:
            found[Activity(name)] += grown
    return Account(found)


# -- what ended -----------------------------------------------------------------------------------------------------


def throughput(buckets: Iterable[ThroughputBucket], grid: Grid) -> Chart:
    """Tasks that ended, by how."""
    counted: Counter[tuple[Status, int]] = Counter()
    for each in buckets:
        if (place := grid.place(each.at)) is not None:
            counted[each.status, place] += each.count
    series = tuple(
        Series(status.value, status.value.lower(), tuple(counted[status, place] for place in range(grid.count)))
        for status in ENDS
    )
    return Chart("throughput", "Tasks that ended", "tasks", grid.times, series, stacked=True)


@dataclass(frozen=True)
class Ended:
    """The tasks of one type that ended."""

    task_type: str
    counts: Mapping[Status, int]
    #: from the start of generating to the end, of those that are Complete, all together
    seconds: float

    @property
    def each_s(self) -> float | None:
        """Seconds of one that is Complete, on average."""
        done = self.counts[Status.COMPLETE]
        return self.seconds / done if done else None


def ended(buckets: Iterable[ThroughputBucket]) -> list[Ended]:
    """What ended by type, the type that took longest first."""
    counts: dict[str, Counter[Status]] = defaultdict(Counter)
    took: dict[str, float] = defaultdict(float)
    for each in buckets:
        counts[each.task_type][each.status] += each.count
        took[each.task_type] += each.seconds if each.status is Status.COMPLETE else 0.0
    found = [Ended(name, counted, took[name]) for name, counted in counts.items()]
    return sorted(found, key=lambda each: (-each.seconds, each.task_type))
