"""The use of workers and GPUs over time, as charts and as the tables behind them."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from source.page.context import Page, is_fragment, page_of
from source.page.usage import (
    ACTIVITIES,
    ENDS,
    Account,
    Chart,
    Ended,
    Grid,
    account,
    activity,
    ended,
    gpu_memory,
    process_memory,
    seconds,
    throughput,
    utilisation,
)
from source.store.types import Status, WorkerSample

#: what can be chosen: its text, its seconds, those of one span, and the text of that
SPANS = {
    "1h": ("1 hour", 3600, 60, "each minute"),
    "6h": ("6 hours", 6 * 3600, 300, "each 5 minutes"),
    "24h": ("24 hours", 24 * 3600, 900, "each quarter of an hour"),
    "7d": ("7 days", 7 * 24 * 3600, 7200, "each 2 hours"),
}
_USUAL = "1h"
#: what is said where there is nothing to draw
_MISSING = {
    "utilisation": "No worker measured its GPU in this time: that takes an NVIDIA GPU and nvidia-smi.",
    "activity": "No worker was heard of in this time.",
    "throughput": "No task ended in this time.",
    "gpu_memory": "No worker had a GPU in this time.",
    "process_memory": "No worker was heard of in this time.",
}
#: of one answer; with heartbeats each 20 s that is two days of one worker
_MOST_SAMPLES = 10_000
#: shortest time between two looks of an open page; it looks a few times in each span
_EVERY_S = 20


@dataclass(frozen=True)
class Use:
    """All that one page of charts shows."""

    grid: Grid
    charts: tuple[Chart, ...]
    account: Account
    ended: list[Ended]

    def count(self, status: Status) -> int:
        """Tasks that ended so."""
        return sum(each.counts[status] for each in self.ended)

    @property
    def each_s(self) -> float | None:
        """Seconds of one task that is Complete, on average."""
        done = self.count(Status.COMPLETE)
        return sum(each.seconds for each in self.ended) / done if done else None


def use_of(page: Page, span: str) -> Use:
    """What was measured and what ended. Raises StoreError."""
    _, span_s, bucket_s, _ = SPANS[span]
    now = page.store.now()
    grid = Grid.until(now, span_s, bucket_s)
    since_s = now.timestamp() - grid.begin
    samples = _samples(page, since_s, grid)
    buckets = page.store.throughput(since_s=since_s, bucket_s=bucket_s)
    charts = (
        utilisation(samples, grid),
        activity(samples, grid),
        throughput(buckets, grid),
        gpu_memory(samples, grid),
        process_memory(samples, grid),
    )
    return Use(grid, charts, account(samples, grid), ended(buckets))


def _samples(page: Page, since_s: float, grid: Grid) -> list[WorkerSample]:
    """Those of every worker that was heard of, each worker's oldest first. Where they are too many for one answer, each
    worker is asked for by itself."""
    if len(found := page.store.samples(since_s=since_s, limit=_MOST_SAMPLES)) < _MOST_SAMPLES:
        return found
    found = []
    for worker in page.store.workers():
        if worker.last_heartbeat and seconds(worker.last_heartbeat) >= grid.begin:
            found += page.store.samples(worker_id=worker.id, since_s=since_s, limit=_MOST_SAMPLES)
    return found


def charts(request: Request) -> Response:
    """The page, or what of it changes with time."""
    page, span = page_of(request), _span(request)
    template = "charts_part.html" if is_fragment(request) else "charts.html"
    use = use_of(page, span)
    drawn = [each.as_json() for each in use.charts if each.known]
    return page.rendered(
        request, template, use=use, span=span, spans=SPANS, activities=ACTIVITIES, ends=ENDS, missing=_MISSING,
        each_text=SPANS[span][3], every_s=max(_EVERY_S, SPANS[span][2] // 3), data={"charts": drawn},
    )  # fmt: skip


def data(request: Request) -> Response:
    """The series as JSON."""
    use = use_of(page_of(request), _span(request))
    return JSONResponse({
        "begin": use.grid.begin,
        "bucket_s": use.grid.bucket_s,
        "charts": [each.as_json() for each in use.charts],
        "gpu_seconds": use.account.seconds,
    })  # fmt: skip


def _span(request: Request) -> str:
    wanted = request.query_params.get("span", _USUAL)
    return wanted if wanted in SPANS else _USUAL


routes = [Route("/charts", charts), Route("/charts/data.json", data)]
