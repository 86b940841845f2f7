"""A worker process from its settings to its exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys

from rich.console import Console

from headless.model_management import HeadlessTaskQueue
from headless.orchestrator import WanOrchestrator
from source.daemon import Worker
from source.display import ProgressDisplay
from source.errors import ShuttingDown
from source.logs import configure_logging
from source.settings import Settings
from source.store.sqlite import SqliteStore
from source.task_registry import registry

log = logging.getLogger(__name__)


def run_worker(settings: Settings, *, until_idle: bool = False, migrate_only: bool = False) -> int:
    """Run a worker until it is told to stop, or until the table is idle. Returns the exit code.

    Raises ConfigurationError, InvalidInput and StoreError when it cannot start.
    """
    console = Console(stderr=True)
    configure_logging(settings, console)
    store = SqliteStore(settings.db_file, max_attempts=settings.max_attempts)
    if migrate_only:
        store.close()
        return 0
    orchestrator = WanOrchestrator(
        checkpoints=settings.ckpts,
        definitions=(settings.finetunes,) if settings.finetunes.is_dir() else (),
        wan_dir=settings.wan_dir,
        device=settings.device,
    )
    queue = HeadlessTaskQueue(orchestrator)
    with ProgressDisplay(console) as display:
        worker = Worker(settings, store, queue, registry=registry(), describe=orchestrator.describe, watch=display)
        _stop_on_signals(worker)
        queue.start(settings.preload_model or None)
        code = worker.run(until_idle=until_idle)
    queue.stop(timeout_s=settings.shutdown_grace_s, reason=ShuttingDown())
    if worker.runs():
        _leave_now(code)
    store.close()
    return code


def _stop_on_signals(worker: Worker) -> None:
    """The first SIGTERM or SIGINT stops the worker gently, the second at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())


def _leave_now(code: int) -> None:
    """A run hangs in the engine. Its row is back in the queue, so nothing is lost by not waiting for it."""
    log.warning("leaving although a run has not stopped")
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)
