"""What each command of debug.py answers: as JSON values, for people, and as an exit code.

What needs media, task types or a browser's page is imported by its own command: half of the start of the others would
be that.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status as RichStatus

from source.command_line import database_of
from source.diagnostics.ids import task_id_of, worker_of
from source.diagnostics.interventions import INTERVENTIONS, Confirm, intervene
from source.diagnostics.logs import checked_hours, follow, log_filter, logs_view, rendered_logs
from source.diagnostics.views import View
from source.errors import InvalidInput
from source.interrupt import Interrupt
from source.settings import Settings
from source.store.base import TaskStore
from source.store.opening import open_existing
from source.store.types import AffinityBound, LogFilter, Status, TaskFilter

MAX_LIMIT = 1_000_000
#: that `workers` looks back
USUAL_HOURS = 2.0
#: log lines of a task that are told; with --debug
MOST_LINES, MOST_LINES_IN_FULL = 50, 1000


@dataclass(frozen=True)
class Answer:
    """What a command has to say: JSON values, the readable form, and the exit code."""

    view: Any
    readable: RenderableType
    code: int = 0


@dataclass(frozen=True)
class Terminal:
    """Who asked."""

    console: Console
    #: shows what is looked at, where that takes a while; stopped by what writes to the terminal itself
    working: RichStatus
    #: asked before many tasks are changed
    confirm: Confirm

    def beginning(self, what: str) -> None:
        """This is about to be looked at."""
        self.working.update(what)


def answer(settings: Settings, given: argparse.Namespace, terminal: Terminal) -> Answer:
    """What the command has to say. Raises TaskNotFound, InvalidInput, InvalidMedia and StoreError."""
    if given.command in _WITHOUT_STORE:
        return _WITHOUT_STORE[given.command](settings, given, terminal)
    with closing(open_existing(settings)) as store:
        _name_tasks(store, given)
        if given.command in INTERVENTIONS:
            return Answer(*intervene(store, given, terminal.confirm))
        return _OF_STORE[given.command](store, settings, given, terminal)


def _name_tasks(store: TaskStore, given: argparse.Namespace) -> None:
    """The first letters of ids become ids."""
    if given.command in ("task", "why", "visualize", "logs") and given.id is not None:
        given.id = task_id_of(store, given.id)


# -- without a database ---------------------------------------------------------------------------------------------


def _doctor(settings: Settings, given: argparse.Namespace, terminal: Terminal) -> Answer:
    from source.doctor.examination import examined
    from source.doctor.report import rendered_report

    report = examined(settings, models=given.models, beginning=terminal.beginning)
    return Answer(report, rendered_report(report), 0 if report["healthy"] else 1)


def _chaos(settings: Settings, given: argparse.Namespace, terminal: Terminal) -> Answer:
    from source.chaos.command import chaos

    return Answer(*chaos(settings, given, terminal.beginning))


def _serve(settings: Settings, given: argparse.Namespace, terminal: Terminal) -> Answer:
    from source.page.serving import serve

    return Answer(*serve(settings, given, terminal.beginning))


def _config(settings: Settings, given: argparse.Namespace, _: Terminal) -> Answer:
    from source.diagnostics.configuration import config_view, rendered_config

    view = config_view(settings, **database_of(given))
    return Answer(view, rendered_config(view, explain=given.explain))


_WITHOUT_STORE = {"doctor": _doctor, "chaos": _chaos, "serve": _serve, "config": _config}


# -- tasks ----------------------------------------------------------------------------------------------------------


def _task(store: TaskStore, settings: Settings, given: argparse.Namespace, _: Terminal) -> Answer:
    from source.diagnostics.task import task_view
    from source.diagnostics.task_page import rendered_task

    most = MOST_LINES_IN_FULL if given.debug else MOST_LINES
    lines = logs_view(store, LogFilter(task_id=given.id), limit=most)
    if given.logs_only:
        store.get(given.id)  # no lines of a task that there is not
        return Answer(lines, rendered_logs(lines))
    view = task_view(store, given.id, _bound(settings)) | {"logs": lines}
    return Answer(view, rendered_task(view, whole=given.debug))


def _why(store: TaskStore, settings: Settings, given: argparse.Namespace, _: Terminal) -> Answer:
    from source.diagnostics.why import rendered_why, why_view

    view = why_view(store, given.id, _bound(settings))
    return Answer(view, rendered_why(view))


def _tasks(store: TaskStore, _: Settings, given: argparse.Namespace, __: Terminal) -> Answer:
    from source.diagnostics.tasks import rendered_summary, rendered_tasks, summary, tasks_view

    chosen = TaskFilter(
        statuses=(Status(given.status),) if given.status else None,
        task_type=given.task_type,
        worker_id=given.worker,
        newer_than_s=_seconds(given.hours),
        text=given.text,
    )
    views = tasks_view(store, chosen, limit=_limit(given.limit))
    if given.summary:
        found = summary(views)
        return Answer(found, rendered_summary(found))
    return Answer(views, rendered_tasks(views))


def _orchestrator(store: TaskStore, _: Settings, given: argparse.Namespace, __: Terminal) -> Answer:
    from source.diagnostics.orchestrators import orchestrators_view, rendered_orchestrators, stalled

    hours = None if given.hours is None else checked_hours(given.hours)
    views = orchestrators_view(store, hours=hours)
    return Answer(views, rendered_orchestrators(views), 1 if stalled(views) else 0)


# -- workers --------------------------------------------------------------------------------------------------------


def _worker(store: TaskStore, _: Settings, given: argparse.Namespace, __: Terminal) -> Answer:
    from source.diagnostics.worker import rendered_worker, worker_view

    view = worker_view(store, given.id, hours=checked_hours(given.hours), startup=given.startup)
    if given.logs_only:
        return Answer(view["logs"], rendered_logs(view["logs"]))
    asked = [name for name in ("disk", "logging") if getattr(given, f"check_{name}")]
    bad = any(not view["checks"][name]["well"] for name in asked)
    return Answer(view, rendered_worker(view, checks=asked), 1 if bad else 0)


def _workers(store: TaskStore, _: Settings, given: argparse.Namespace, __: Terminal) -> Answer:
    from source.diagnostics.workers import rendered_workers, with_ends, workers_view

    views = workers_view(store.workers(), store.now())
    if given.detailed or given.hours is not None:
        views = with_ends(store, views, checked_hours(USUAL_HOURS if given.hours is None else given.hours))
    return Answer(views, rendered_workers(views))


def _logs(store: TaskStore, _: Settings, given: argparse.Namespace, terminal: Terminal) -> Answer:
    worker = worker_of(store.workers(), given.worker).id if given.worker else None
    chosen = log_filter(task_id=given.id, worker_id=worker, level=given.level, hours=given.hours, text=given.text)
    limit = _limit(given.limit)
    if not given.follow:
        lines = logs_view(store, chosen, limit=limit)
        return Answer(lines, rendered_logs(lines))
    if given.json:
        raise InvalidInput("--follow has no end, and JSON needs one; ask without it")
    terminal.working.stop()
    with Interrupt() as interrupt:
        follow(
            store, chosen, lambda lines: _show(terminal.console, lines), limit=limit,
            stopped=lambda: interrupt.heard,
        )  # fmt: skip
    return Answer([], "")


def _show(console: Console, lines: Sequence[View]) -> None:
    if lines:
        console.print(rendered_logs(lines))


def _watch(store: TaskStore, settings: Settings, given: argparse.Namespace, terminal: Terminal) -> Answer:
    from source.diagnostics.watch.live import watch

    terminal.working.stop()
    return Answer(*watch(store, terminal.console, once=given.once or given.json))


# -- the installation, and what was made ----------------------------------------------------------------------------


def _health(store: TaskStore, _: Settings, __: argparse.Namespace, ___: Terminal) -> Answer:
    from source.diagnostics.health import health_view, rendered_health

    view = health_view(store)
    return Answer(view, rendered_health(view), 0 if view["healthy"] else 1)


def _disk(store: TaskStore, settings: Settings, given: argparse.Namespace, _: Terminal) -> Answer:
    from source.diagnostics.disk_use import disk_view, rendered_disk

    view = disk_view(store, _with_scratch(settings, given.main_output_dir), clean=given.clean)
    return Answer(view, rendered_disk(view))


def _visualize(store: TaskStore, settings: Settings, given: argparse.Namespace, _: Terminal) -> Answer:
    from source.diagnostics.travels import visualize_travel

    made = visualize_travel(store, settings, given.id, given.output, given.layout)
    return Answer(made, f"{made['output']}  {made['num_frames']} frames")


def _replay(store: TaskStore, settings: Settings, given: argparse.Namespace, _: Terminal) -> Answer:
    from source.diagnostics.replays import rendered_replay, replay

    queued = replay(
        store, settings, given.file, given=given.input, search=given.search, project_id=given.project_id,
        dry_run=given.dry_run,
    )  # fmt: skip
    return Answer(queued, rendered_replay(queued))


_OF_STORE = {
    "task": _task, "why": _why, "tasks": _tasks, "orchestrator": _orchestrator, "worker": _worker,
    "workers": _workers, "logs": _logs, "watch": _watch, "health": _health, "disk": _disk, "visualize": _visualize,
    "replay": _replay,
}  # fmt: skip


def _bound(settings: Settings) -> AffinityBound:
    return AffinityBound(settings.affinity_tasks, settings.affinity_wait_s)


def _with_scratch(settings: Settings, folder: Path | None) -> Settings:
    return settings if folder is None else settings.model_copy(update={"main_output_dir": folder})


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else checked_hours(hours) * 3600


def _limit(given: int) -> int:
    if not 1 <= given <= MAX_LIMIT:
        raise InvalidInput(f"must lie between 1 and {MAX_LIMIT}", field="limit")
    return given
