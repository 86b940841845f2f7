"""Which checks make up the examination of an installation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from source.doctor.checkout import checkout_checks
from source.doctor.checks import Check, examine
from source.doctor.clocks import Clock, machine_clock
from source.doctor.machine import machine_checks
from source.doctor.report import report
from source.doctor.sqlite import sqlite_checks
from source.doctor.supabase import supabase_checks
from source.doctor.weights import weight_checks
from source.logs import secret_values
from source.settings import Settings
from source.store.opening import open_existing


def examined(
    settings: Settings, *, models: Sequence[str] = (), clock: Clock = machine_clock,
    beginning: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """The report on an installation, as JSON values. Nothing that fails raises.

    `models` are looked at down to the content of their files; `beginning` hears the name of each check before it runs.
    """
    with ExitStack() as opened:
        checks = checks_of(settings, opened, models, clock)
        return report(subject_of(settings), examine(checks, beginning), secret_values(settings))


def checks_of(
    settings: Settings, opened: ExitStack, models: Sequence[str] = (), clock: Clock = machine_clock
) -> list[Check]:
    """The database's own first, then the machine's. `opened` closes what they use. Raises ConfigurationError."""
    backend = (
        supabase_checks(settings, clock, opened) if settings.db_type == "supabase" else sqlite_checks(settings, clock)
    )
    weights = weight_checks(settings, lambda: open_existing(settings), models)
    return [*backend, *machine_checks(settings), *checkout_checks(settings), *weights]


def subject_of(settings: Settings) -> str:
    """What is looked at."""
    return f"Supabase {settings.supabase_url}" if settings.db_type == "supabase" else f"SQLite {settings.db_file}"
