"""The metrics of a worker, answered on a port of its own (docs/monitoring.md)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from headless.device_memory import MB, device_memory
from headless.generation import QueueStatistics
from source.daemon import Worker
from source.errors import ConfigurationError
from source.metrics import names
from source.metrics.metered import Meters, metered
from source.metrics.names import Metric
from source.metrics.samples import Measurements
from source.provenance.record import DISTRIBUTION, versions
from source.store.base import TaskStore

log = logging.getLogger(__name__)

Labels = tuple[str, ...]
Values = Mapping[Metric, Mapping[Labels, float]]
Look = Callable[[], float]


class Observed(Collector):
    """Numbers that are there anyway, looked at when they are asked for."""

    def __init__(self, look: Callable[[], Values]) -> None:
        self._look = look

    def collect(self) -> Iterator[Family]:
        """A family for each metric; one that nobody knows at the moment is left out."""
        for metric, values in self._look().items():
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.meaning, labels=metric.labels)
            for labels, value in values.items():
                family.add_metric(list(labels), value)
            yield family


class WorkerMetrics:
    """All of one worker: what its store counts, and what is looked at."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, of no use here
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

    def count(self, store: TaskStore, task_types: Iterable[str]) -> TaskStore:
        """The store for the worker. Types that are not among `task_types` count as one."""
        return metered(store, Meters(self.registry, task_types))

    def look_at(self, worker: Worker, statistics: Callable[[], QueueStatistics], others: Mapping[Metric, Look]) -> None:
        """Ask these for the rest at each scrape."""
        version = dict(versions()).get(DISTRIBUTION, "")

        def look() -> Values:
            totals = statistics()
            return {
                names.GPU_SECONDS: {(activity,): spent for activity, spent in totals.seconds.items()},
                names.MODEL_LOADS: {(): totals.model_loads},
                names.LANE_TASKS: {(lane,): count for lane, count in worker.measurements.lanes().items()},
                names.CLAIMING_PAUSED: {(): worker.pauses},
                names.WORKER_INFO: {(worker.worker_id, version): 1},
                **_device(worker.measurements),
                **{metric: {(): ask()} for metric, ask in others.items()},
            }

        self.registry.register(Observed(look))


@contextmanager
def served(metrics: WorkerMetrics, host: str, port: int) -> Iterator[None]:
    """Answer on that address until the block ends. Raises ConfigurationError when it cannot be had."""
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise ConfigurationError(
            f"METRICS_PORT {port} on {host}: {error.strerror or error}; name another port (0 takes a free one), or "
            "another METRICS_HOST, an address of this machine"
        ) from None
    log.info("metrics: http://%s:%d/metrics", host, server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _device(measurements: Measurements) -> Values:
    """Of the accelerator, once the engine has taken one."""
    memory, utilization = device_memory(), measurements.device_use.latest
    found: dict[Metric, Mapping[Labels, float]] = {}
    if memory is not None:
        found[names.GPU_MEMORY_USED] = {(): memory.used_mb * MB}
        found[names.GPU_MEMORY_TOTAL] = {(): memory.total_mb * MB}
    if utilization is not None:
        found[names.GPU_UTILIZATION] = {(): utilization / 100}
    return found
