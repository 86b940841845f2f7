"""`debug.py worker`: everything that is known of one worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from source.diagnostics.ids import worker_of
from source.diagnostics.logs import logs_view, rendered_logs
from source.diagnostics.rendering import heading, in_words, line, result_line, share_text, status_text
from source.diagnostics.views import LIST_KEYS, View, picked, seconds_between, share_done, time_of
from source.diagnostics.words import clock, counted, duration, gigabytes, listed, percent, printable
from source.diagnostics.workers import STYLES, alarming, ends, gpu_busy, memory_words, worker_line
from source.logs import redact_values
from source.store.base import TaskStore
from source.store.types import LogFilter, Status, TaskFilter, WorkerSample

#: tasks and log lines that are told
MOST_TASKS, MOST_LINES = 20, 50
#: log lines of a worker that are looked through for its first
MOST_LOOKED = 1000
#: a worker that runs logs this often at least, in heartbeats of its own
QUIET_S = 900.0
#: what has a place of its own
_ELSEWHERE = frozenset({"gpu_seconds", "vram_used_mb", "vram_total_mb"})


def worker_view(store: TaskStore, given: str, *, hours: float = 24.0, startup: bool = False) -> View:
    """One worker, by its id, the beginning of it, or its name. Raises InvalidInput when there is none.

    its row    see `workers.worker_line`; metadata: what else it says of itself, redacted
    running    its tasks, with share (0 to 1); tasks: the latest 20 that it had within `hours`
    ends       how they ended within `hours`: {ended, failed, failure_rate, failures}
    samples    [{at, values}] within `hours`, oldest first (500 at most); gpu_busy_then: 0 to 1, over them
    logs       the latest 50 lines; with `startup` the first ones since it started
    checks     {logging, disk}: {well, said}
    """
    now = store.now()
    row = worker_of(store.workers(), given)
    held = store.select(TaskFilter(worker_id=row.id, statuses=(Status.IN_PROGRESS,)))
    running = [task for task in held if not task.waiting]
    span_s = hours * 3600
    tasks = store.select(TaskFilter(worker_id=row.id, newer_than_s=span_s), limit=MOST_TASKS, newest_first=True)
    done = TaskFilter(worker_id=row.id, ended_within_s=span_s)
    ended = store.select(done, newest_first=True)
    samples = store.samples(worker_id=row.id, since_s=span_s, limit=500)
    lines = logs_view(store, LogFilter(worker_id=row.id, since_s=span_s), limit=MOST_LOOKED if startup else MOST_LINES)
    view = worker_line(row, now)
    return view | {
        "metadata": redact_values({k: v for k, v in row.metadata.items() if k not in _ELSEWHERE}),
        "running": [picked(task, LIST_KEYS) | {"share": round(share_done(task), 4)} for task in running],
        "tasks": [picked(task, LIST_KEYS) for task in tasks],
        "ends": ends(ended),
        "samples": [{"at": each.at, "values": redact_values(each.values)} for each in samples],
        "gpu_busy_then": _busy_then(samples),
        "logs": lines[:MOST_LINES] if startup else lines[-MOST_LINES:],
        "checks": {"logging": _logging(view, lines, time_of(now)), "disk": _disk(row.metadata)},
    }


def _busy_then(samples: Sequence[WorkerSample]) -> float | None:
    if len(samples) < 2:
        return None
    return gpu_busy(samples[-1].values.get("gpu_seconds"), samples[0].values.get("gpu_seconds"))


def _logging(view: View, lines: Sequence[View], now: str) -> View:
    """Whether its log lines arrive."""
    if not lines:
        here = view["health"] in ("healthy", "late")
        said = "no log line of it came within that time" + (
            "; it is alive, so it either has nothing to say or keeps its lines" if here else ""
        )
        return {"well": False, "said": said}
    age = seconds_between(lines[-1]["at"], now) or 0.0
    said = f"the last of its log lines is {duration(max(age, 0.0))} old"
    return {"well": view["health"] not in ("healthy", "late") or age < QUIET_S, "said": said}


def _disk(metadata: Any) -> View:
    """What it said of its disk with its last heartbeat."""
    short = str(metadata.get("low_disk") or "")
    return {"well": not short, "said": short or "it has the room that it needs"}


# -- for people -----------------------------------------------------------------------------------------------------


def rendered_worker(view: View, *, checks: Sequence[str] = ()) -> RenderableType:
    """All of it; `checks`: those of view["checks"] that are told even where all is well."""
    return Group(*_parts(view, checks))


def _parts(view: View, checks: Sequence[str]) -> Iterator[RenderableType]:
    yield _overview(view)
    for name, check in view["checks"].items():
        if name in checks or (name == "disk" and not check["well"]):
            style = "green" if check["well"] else "bold red"
            yield Text.assemble((f"{name}  ", style), printable(check["said"]))
    if alarming(view["ends"]):
        yield Text(f"{percent(view['ends']['failure_rate'])} of its tasks failed", style="bold red")
    for task in view["running"]:
        words = f"  {task['task_type']} {task['id']}  {in_words(task['progress'] or {})}"
        yield Text.assemble(("runs  ", "bold"), share_text(task["share"], 20), printable(words))
    if view["tasks"]:
        yield heading("latest tasks")
    for task in view["tasks"]:
        yield line(task["id"], status_text(task["status"]), clock(task["created_at"]), "", task["task_type"])
        yield from result_line(task)
    if view["logs"]:
        yield heading("log")
        yield rendered_logs(view["logs"])


def _overview(view: View) -> Table:
    table = Table.grid(padding=(0, 2))
    age = view["heartbeat_age_s"]
    told = view["ends"]
    facts: dict[str, Text | str] = {
        "worker": Text(printable(view["id"]), style="bold"),
        "health": Text.assemble(
            (view["health"], STYLES[view["health"]]),
            "" if age is None else f"  (heartbeat {duration(age)} ago, status {printable(view['status'])})",
        ),
        "since": clock(view["created_at"]),
        "model": Text(printable(view["current_model"] or "")),
        "memory": memory_words(view),
        "GPU busy": _busy_words(view),
        "GPU": ", ".join(f"{name} {duration(each)}" for name, each in (view["gpu_seconds"] or {}).items() if each),
        "loads": ", ".join(f"{m} {duration(s)}" for m, s in (view["metadata"].get("load_s") or {}).items()),
        "ended": f"{counted(told['ended'], 'task')}, {told['failed']} failed"
        + (f" ({listed(told['failures'])})" if told["failures"] else ""),
        "process": _process_words(view["samples"]),
    }
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, style="dim"), Text(printable(value)) if isinstance(value, str) else value)
    return table


def _busy_words(view: View) -> str:
    parts = [f"{percent(view['gpu_busy'])} since its start"] if view["gpu_busy"] is not None else []
    if view["gpu_busy_then"] is not None:
        parts.append(f"{percent(view['gpu_busy_then'])} over {counted(len(view['samples']), 'sample')}")
    return ", ".join(parts)


def _process_words(samples: Sequence[View]) -> str:
    """Memory and CPU of the process, of the latest sample."""
    values = samples[-1]["values"] if samples else {}
    rss, cpu = values.get("rss"), values.get("cpu_percent")
    parts = [f"{gigabytes(rss)} of RAM"] if isinstance(rss, int | float) else []
    parts += [f"{cpu:.0f} % of a CPU core"] if isinstance(cpu, int | float) else []
    return ", ".join(parts)
