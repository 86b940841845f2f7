"""`debug.py health`: whether tasks are worked off, and what is wrong where they are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from source.diagnostics.views import View, seconds_between, time_of
from source.diagnostics.words import counted, duration, listed, percent, printable
from source.diagnostics.workers import ALARM, HEALTHY_S, alarming, ends, workers_view
from source.store.base import TaskStore
from source.store.types import Status, Task, TaskFilter

HOUR_S = 3600.0
#: a row that could be claimed for so long, while workers are alive, is held up by something
LONG_S = 3600.0
#: Queued rows, the oldest first, among which one is looked for that could be claimed
MOST_LOOKED = 100
#: of those, rows whose dependencies are asked for one by one
MOST_ASKED = 10
MOST_ENDED = 1000


def health_view(store: TaskStore) -> View:
    """How the installation is: {healthy, problems, …}.

    problems    sentences, none where all is well
    tasks       rows by status; waiting: parents in progress that wait for children
    workers     by health
    last_hour   {ended, failed, failure_rate, failures}, and completed
    oldest_claimable   {id, task_type, age_s} of the oldest row that a worker could take now; None: there is none
    expired     rows in progress whose lease ran out: {id, task_type, worker_id, seconds_ago}
    low_disk    {worker id: what it says}, of those alive
    """
    now = store.now()
    counts = store.counts()
    rows = store.workers()
    workers = workers_view(rows, now)
    running = store.select(TaskFilter(statuses=(Status.IN_PROGRESS,)), newest_first=True)
    ended = store.select(TaskFilter(ended_within_s=HOUR_S), limit=MOST_ENDED)
    alive = {view["id"] for view in workers if view["health"] == "healthy"}
    view = {
        "tasks": {str(status): number for status, number in counts.items()},
        "waiting": sum(task.waiting for task in running),
        "workers": dict(Counter(str(view["health"]) for view in workers)),
        "last_hour": ends(ended) | {"completed": sum(task.status is Status.COMPLETE for task in ended)},
        "oldest_claimable": _oldest_claimable(store, now) if counts[Status.QUEUED] else None,
        "expired": list(_expired(running, time_of(now))),
        "low_disk": {row.id: str(row.metadata["low_disk"]) for row in rows
                     if row.id in alive and row.metadata.get("low_disk")},
    }  # fmt: skip
    problems = list(_problems(view))
    return {"healthy": not problems, "problems": problems, **view}


def _oldest_claimable(store: TaskStore, now: datetime) -> View | None:
    queued = store.select(TaskFilter(statuses=(Status.QUEUED,), paused=False), limit=MOST_LOOKED)
    at, asked = time_of(now), 0
    for task in queued:
        if (seconds_between(task.run_after, at) or 0.0) < 0:
            continue
        if task.dependant_on:
            asked += 1
            if asked > MOST_ASKED:
                continue
            if any(row.status is not Status.COMPLETE for row in store.dependencies(task.id)):
                continue
        since = max(task.created_at, task.run_after or "")
        return {"id": task.id, "task_type": task.task_type, "age_s": seconds_between(since, at)}
    return None


def _expired(running: Sequence[Task], now: str) -> Iterator[View]:
    for task in running:
        past = seconds_between(task.lease_expires_at, now)
        if past is not None and past > 0 and not task.waiting:
            facts = {"id": task.id, "task_type": task.task_type, "worker_id": task.worker_id}
            yield {**facts, "seconds_ago": round(past, 1)}


def _problems(view: View) -> Iterator[str]:
    alive, oldest = view["workers"].get("healthy", 0), view["oldest_claimable"]
    if oldest and not alive:
        yield (
            f"{counted(view['tasks'][Status.QUEUED], 'task')} are queued and no worker is alive (none sent a heartbeat "
            f"within {HEALTHY_S:.0f} s): start one with `python worker.py`"
        )
    elif oldest and oldest["age_s"] > LONG_S:
        yield (
            f"{oldest['task_type']} {oldest['id']} could be claimed for {duration(oldest['age_s'])}: "
            f"`debug.py why {oldest['id']}`; more workers, or what they do instead (`debug.py workers`)"
        )
    for row in view["expired"]:
        yield (
            f"the lease of {row['task_type']} {row['id']} ran out {duration(row['seconds_ago'])} ago and nobody "
            f"rescued it: {row['worker_id']} is gone, and no other worker looks"
        )
    hour = view["last_hour"]
    if alarming(hour):
        yield (
            f"{percent(hour['failure_rate'])} of what ended within the last hour failed ({listed(hour['failures'])}; "
            f"alarm at {percent(ALARM)}): `debug.py tasks --status Failed`"
        )
    yield from (f"{worker} claims nothing: {said}" for worker, said in view["low_disk"].items())


# -- for people -----------------------------------------------------------------------------------------------------


def rendered_health(view: View) -> RenderableType:
    """The verdict, the numbers, and what is wrong."""
    verdict = Text("healthy", style="bold green") if view["healthy"] else Text("something is wrong", style="bold red")
    table = Table.grid(padding=(0, 2))
    hour, oldest = view["last_hour"], view["oldest_claimable"]
    failures = f" ({listed(hour['failures'])})" if hour["failures"] else ""
    waits = f"{oldest['task_type']} {oldest['id']}, for {duration(oldest['age_s'])}" if oldest else "nothing"
    facts = {
        "workers": listed(view["workers"]) or "none",
        "tasks": listed(view["tasks"]) or "none",
        "waiting parents": str(view["waiting"] or ""),
        "last hour": f"{hour['completed']} completed, {hour['failed']} failed{failures}",
        "next in line": waits,
    }
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, style="dim"), Text(printable(value)))
    return Group(verdict, table, *(Text(f"- {printable(each)}", style="red") for each in view["problems"]))
