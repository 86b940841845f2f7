"""The metrics of a database: what is queued, who works, what ended lately. Asked of the store at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from source.diagnostics.workers import STYLES, workers_view
from source.metrics import names
from source.metrics.names import OTHER, Metric
from source.store.base import TaskStore
from source.store.types import OpenState

__all__ = ["CONTENT_TYPE", "database_metrics"]

HOUR_S = 3600.0

Numbers = Counter[tuple[str, ...]]


def database_metrics(store: TaskStore, task_types: Collection[str]) -> bytes:
    """All of `names.DATABASE`, as Prometheus reads them (`CONTENT_TYPE`). Types that are not among `task_types` count
    as one: rows may hold any. Raises StoreError."""
    return generate_latest(_Database(store, frozenset(task_types)))


class _Database(Collector):
    def __init__(self, store: TaskStore, task_types: Collection[str]) -> None:
        self._store = store
        self._task_types = task_types

    def collect(self) -> Iterator[Family]:
        """Asks the store five questions."""
        yield from self._queue()
        counts = self._store.counts()
        yield _family(names.TASKS, Counter({(status.value,): count for status, count in counts.items()}))
        views = workers_view(self._store.workers(), self._store.now())
        health: Numbers = Counter({(name,): 0 for name in STYLES})
        health.update((view["health"],) for view in views)
        yield _family(names.WORKERS, health)
        yield from self._ended()

    def _queue(self) -> Iterator[Family]:
        tasks: Numbers = Counter()
        oldest: dict[tuple[str, ...], float] = {(state.value,): 0.0 for state in OpenState}
        for depth in self._store.queue_depths():
            tasks[depth.state.value, self._type(depth.task_type)] += depth.count
            oldest[depth.state.value,] = max(oldest[depth.state.value,], depth.oldest_s)
        yield _family(names.QUEUE_TASKS, tasks)
        yield _family(names.QUEUE_OLDEST, oldest)

    def _ended(self) -> Iterator[Family]:
        counts: Numbers = Counter()
        seconds: dict[tuple[str, ...], float] = {}
        for bucket in self._store.throughput(since_s=HOUR_S, bucket_s=HOUR_S):
            labels = (bucket.status.value, self._type(bucket.task_type))
            counts[labels] += bucket.count
            seconds[labels] = seconds.get(labels, 0.0) + bucket.seconds
        yield _family(names.ENDED_LAST_HOUR, counts)
        yield _family(names.ENDED_SECONDS, seconds)

    def _type(self, task_type: str) -> str:
        return task_type if task_type in self._task_types else OTHER


def _family(metric: Metric, values: dict[tuple[str, ...], float] | Numbers) -> Family:
    family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family
