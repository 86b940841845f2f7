"""`python -m source.chaos.worker`: a worker as worker.py starts it, with the fake engine in the place of the real one.

It takes the settings of the worker from the environment, and some of its own (CHAOS_TRAP, CHAOS_STEPS …). What it did
goes to HISTORY_FILE.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from source.chaos.engine import UnluckyEngine
from source.chaos.history import History
from source.chaos.points import Trap
from source.chaos.tasks import chaos_registry
from source.chaos.witness import witnessed
from source.errors import ConfigurationError
from source.settings import Settings
from source.startup import Equipment, run_worker
from source.storage import Storage
from source.store.base import TaskStore


class ChaosSettings(Settings):
    """The worker's, and what befalls it."""

    history_file: Path | None = Field(Path("history.jsonl"))
    chaos_trap: Trap = Field(Trap(), description="point:n:action")
    chaos_steps: int = Field(3, ge=1, description="denoising steps of a run")
    chaos_step_s: float = Field(0.05, ge=0, description="seconds of a step")
    chaos_clock_s: float = Field(0, description="seconds by which this machine's clock is wrong")


def main(spoil: Callable[[TaskStore], TaskStore] | None = None) -> int:
    """Run the worker. `spoil`: makes a store of the worker's that breaks promises, to see that the checker says so."""
    settings = _settings()
    if settings.chaos_clock_s:
        _shift_the_clock(settings.chaos_clock_s)
    return run_worker(settings, equipment=_equipment(settings, spoil))


def _equipment(settings: ChaosSettings, spoil: Callable[[TaskStore], TaskStore] | None) -> Equipment:
    """The fake engine, the task types of the chaos, and a witness. Raises OSError: no history can be written."""
    assert settings.history_file is not None
    history, trap = History(settings.history_file), settings.chaos_trap
    kinds = chaos_registry()
    names = [kind.name for kind in kinds]

    def met(task_id: str, misfortune: str) -> None:
        history.note("misfortune", task_id, 0, settings.worker or "", detail=misfortune)

    trap.told = partial(met, "")

    def watching(store: TaskStore, storage: Storage) -> tuple[TaskStore, Storage]:
        history.note("up", "", 0, settings.worker or "")
        return witnessed(spoil(store) if spoil else store, storage, history, trap, names)

    engine = UnluckyEngine(trap, met, steps=settings.chaos_steps, step_s=settings.chaos_step_s)
    return Equipment(engine, kinds, watching)


def _settings() -> ChaosSettings:
    try:
        return ChaosSettings()
    except ValidationError as error:
        raise ConfigurationError(str(error)) from None


def _shift_the_clock(seconds: float) -> None:
    """Of this process, and of SQLite in it, which has no clock of its own."""
    right, connect = time.time, sqlite3.connect
    time.time = lambda: right() + seconds

    def shifted(*given: Any, **named: Any) -> Any:
        opened, true = connect(*given, **named), connect(":memory:", check_same_thread=False)

        def strftime(form: str, moment: str, *changes: str) -> Any:
            later = (*changes, f"{seconds} seconds") if moment == "now" else changes
            places = ", ?" * (len(later) + 2)
            return true.execute(f"SELECT strftime({places[2:]})", (form, moment, *later)).fetchone()[0]

        opened.create_function("strftime", -1, strftime)
        return opened

    sqlite3.connect = shifted


if __name__ == "__main__":
    sys.exit(main())
