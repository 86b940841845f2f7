"""A worker process from its settings to its exit code."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from headless.accounting import in_words
from headless.generation import Orchestrator
from headless.model_management import HeadlessTaskQueue
from headless.orchestrator import MemoryPlan, SpeedPlan, WanOrchestrator
from source.chaos.history import History
from source.chaos.witness import witnessed
from source.checkpoints import Checkpoints
from source.daemon import MIN_STOPPING_S, Worker
from source.display import ProgressDisplay
from source.doctor.checkout import upstream_engine
from source.doctor.fitness import check_fitness
from source.edge_functions import FunctionFailed
from source.errors import RefusedWrite, ShuttingDown, StoreError
from source.interrupt import when_told_to_stop
from source.logs import configure_logging, secret_values
from source.loras import LoRAStore
from source.metrics.names import LOG_LINES_DROPPED, OUTBOX_PARCELS
from source.outbox import Outbox
from source.settings import Settings
from source.storage import Storage
from source.store.base import TaskStore
from source.store.opening import open_store
from source.store.supabase import SupabaseStore
from source.store.supabase_schema import newest_migration
from source.supabase_storage import storage_for
from source.supervision import EXIT_FAILED, report_life
from source.task_registry import TaskRegistry, registry
from source.worker_logs import WorkerLogs

if TYPE_CHECKING:
    from source.metrics.worker import WorkerMetrics

log = logging.getLogger(__name__)

#: how long a worker that nobody told to stop waits for its engine
UNHURRIED_S = 60.0
#: what one that was told to stop gets for questions that are on their way, beside the graces of runs and engine
LAST_ANSWERS_S = 10.0


Watching = Callable[[TaskStore, Storage], tuple[TaskStore, Storage]]


@dataclass(frozen=True)
class Equipment:
    """What a worker process works with."""

    engine: Orchestrator
    registry: TaskRegistry
    #: stands between the worker and its store and storage
    watching: Watching


@dataclass(frozen=True)
class Surroundings:
    """What a worker process stands in."""

    console: Console
    metrics: WorkerMetrics | None
    logs: WorkerLogs
    until_idle: bool
    supervised: bool


def run_worker(
    settings: Settings, *, until_idle: bool = False, migrate_only: bool = False, supervised: bool = False,
    equipment: Equipment | None = None,
) -> int:  # fmt: skip
    """Run a worker until it is told to stop, or until the table is idle. Returns the exit code.

    `supervised`: also until the other end of the standard input is closed. `equipment`: another than the usual.
    Raises ConfigurationError, InvalidInput, StoreError and OSError (no place for results) when it cannot start.
    """
    console = Console(stderr=True)
    configure_logging(settings, console)
    logs = _logs_for_the_database(settings)
    with ExitStack() as opened:
        opened.callback(logging.getLogger().removeHandler, logs)
        metrics = None if migrate_only else _metrics(settings, opened)
        store = open_store(settings, logs)
        opened.callback(store.close)
        if isinstance(store, SupabaseStore):
            check_installation(store)
            if migrate_only:
                log.info("nothing to migrate here: the Supabase CLI does that (supabase db push), a worker never does")
        if migrate_only:
            return 0
        if equipment is None:
            check_fitness(settings)
        surroundings = Surroundings(console, metrics, logs, until_idle, supervised)
        return _run(settings, store, surroundings, equipment or _usual(settings))


def _metrics(settings: Settings, opened: ExitStack) -> WorkerMetrics | None:
    """Served from now on, where a port is set: whoever has it taken is said before anything is claimed. Raises
    ConfigurationError."""
    if settings.metrics_port is None:
        return None
    from source.metrics.worker import WorkerMetrics, served

    metrics = WorkerMetrics()
    opened.enter_context(served(metrics, settings.metrics_host, settings.metrics_port))
    return metrics


def check_installation(store: SupabaseStore) -> None:
    """Say what the project is. Raises StoreError when it cannot be used, and says what to do."""
    try:
        found = store.installation(repeat=False)
    except RefusedWrite as error:
        raise RefusedWrite(
            f"the project refuses the token: {error}; set SUPABASE_ACCESS_TOKEN to one of its"
        ) from error
    except FunctionFailed as error:
        raise StoreError(
            f"{error}; was the database migrated (supabase db push) before the functions were deployed? Their log says "
            "more"
        ) from error
    schema, needed = found.get("schema"), newest_migration()
    if schema is not None and needed is not None and schema < needed:
        raise StoreError(
            f"the database is at migration {schema}, and this version needs {needed}; the Supabase CLI applies them: "
            "supabase db push (on the local stack: python -m source.devstack up)"
        )
    log.info("Supabase: Postgres %s, migration %s", found.get("postgres"), schema or "not recorded")


def _logs_for_the_database(settings: Settings) -> WorkerLogs:
    """The log goes there too, with heartbeats."""
    logs = WorkerLogs(secret_values(settings))
    logging.getLogger().addHandler(logs)
    return logs


def _usual(settings: Settings) -> Equipment:
    return Equipment(_engine(settings), registry(), _watching(settings))


def _engine(settings: Settings) -> Orchestrator:
    """The checkout that the settings name, imported already, or our own engine. Raises WanError."""
    if settings.wan_dir is not None:
        upstream = upstream_engine(settings)
        upstream.start()
        return upstream
    return WanOrchestrator(
        checkpoints=settings.ckpts,
        loras=settings.loras_dir,
        definitions=(settings.finetunes,) if settings.finetunes.is_dir() else (),
        device=settings.device,
        memory=_memory_of(settings),
        speed=_speed_of(settings),
    )


def _memory_of(settings: Settings) -> MemoryPlan:
    return MemoryPlan(
        profile=settings.wgp_profile or -1,
        gpu_gb=settings.gpu_budget_gb,
        ram_gb=settings.ram_budget_gb,
        cache_mb=settings.engine_cache_mb,
    )


def _speed_of(settings: Settings) -> SpeedPlan:
    return SpeedPlan(
        attention=settings.wgp_attention_mode or "auto",
        compiled=bool(settings.wgp_compile),
        quantization=settings.wgp_transformer_quantization or "bf16",
        vae_precision=settings.wgp_vae_precision or 32,
        vae_channels_last=settings.vae_channels_last,
    )


def _watching(settings: Settings) -> Watching:
    """Where no history is asked for, nothing stands between."""
    if settings.history_file is None:
        return lambda store, storage: (store, storage)
    history = History(settings.history_file)
    return lambda store, storage: witnessed(store, storage, history)


def _run(settings: Settings, store: TaskStore, around: Surroundings, equipment: Equipment) -> int:
    storage = storage_for(settings, store)
    storage.prepare()
    LoRAStore(settings).prepare()
    Checkpoints(settings).sweep(store)
    outbox = Outbox(settings)
    outbox.sweep(store)
    store, storage = equipment.watching(store, storage)
    if around.metrics is not None:
        store = around.metrics.count(store, (kind.name for kind in equipment.registry))
    orchestrator = equipment.engine
    queue = HeadlessTaskQueue(orchestrator, unload_when_idle="U" in settings.preload_policy)
    with ProgressDisplay(around.console) as display:
        worker = Worker(
            settings, store, queue, registry=equipment.registry, describe=orchestrator.describe, watch=display,
            weights=orchestrator.weight_files, storage=storage,
        )  # fmt: skip
        stop = _leaving_in_time(worker.stop, settings)
        when_told_to_stop(stop)
        if around.metrics is not None:
            others = {OUTBOX_PARCELS: lambda: len(outbox), LOG_LINES_DROPPED: lambda: around.logs.dropped}
            around.metrics.look_at(worker, queue.statistics, others)
        if around.supervised:
            threading.Thread(target=report_life, args=(stop,), name="supervisor", daemon=True).start()
        queue.start(settings.preload_model or None)
        code = _code_of(worker, around.until_idle)
    log.info("where the GPU's time went, %s", in_words(queue.statistics().seconds))
    if report := orchestrator.memory_report():
        log.info("what was in memory: %s", json.dumps(report))
    patience_s = max(settings.shutdown_grace_s, MIN_STOPPING_S) if worker.told_to_stop or code else UNHURRIED_S
    queue.stop(timeout_s=patience_s, reason=ShuttingDown())
    if worker.runs() or queue.alive:
        _leave_now(code, "leaving although the engine has not stopped")
    return code


def _code_of(worker: Worker, until_idle: bool) -> int:
    """The exit code of a worker that ran; what nobody foresaw is no fault of the configuration."""
    try:
        return worker.run(until_idle=until_idle)
    except Exception:
        log.exception("the worker failed for a reason that nobody foresaw")
        return EXIT_FAILED


def _leaving_in_time(stop: Callable[[], None], settings: Settings) -> Callable[[], None]:
    """`stop`, the first time gently and the second at once; safe in signal handlers. Whatever the database and the
    engine do then, the process ends in time: a question of which nothing comes back cannot be taken back.

    The time begins when a signal comes. Its handler may run later: not before the main thread returns from such a
    question, where the system gave the signal to another thread.
    """
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)

    def end_late() -> None:
        told.recv(1)
        threading.Event().wait(3 * max(settings.shutdown_grace_s, MIN_STOPPING_S) + LAST_ANSWERS_S)
        _leave_now(0, "leaving although the database has not answered, or the engine has not stopped")

    def stop_in_time() -> None:
        stop()
        with suppress(BlockingIOError):
            tell.send(b"\0")  # who calls it is perhaps no signal

    threading.Thread(target=end_late, name="end", daemon=True).start()
    return stop_in_time


def _leave_now(code: int, why: str) -> None:
    """Something hangs. Its row is back in the queue, or will be when its lease ends: nothing is lost by not waiting.

    A regular end would be none: torch aborts a process whose other threads are still at work.
    """
    log.warning(why)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)
