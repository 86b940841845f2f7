"""What was found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from source.diagnostics.words import printable
from source.doctor.checks import Examined, State, healthy
from source.logs import redact

STYLES = {
    State.OK: "green",
    State.WARNING: "bold yellow",
    State.FAILED: "bold red",
    State.SKIPPED: "dim",
}


def report(subject: str, examined: Sequence[Examined], secrets: Sequence[str] = ()) -> dict[str, Any]:
    """As JSON values, without `secrets`; `subject` says what was looked at."""
    checks = [
        {
            "check": each.check,
            "state": each.finding.state,
            "measured": printable(redact(each.finding.measured, secrets)),
            "advice": printable(redact(each.finding.advice, secrets)),
            "seconds": round(each.seconds, 3),
        }
        for each in examined
    ]
    return {"healthy": healthy(examined), "subject": subject, "checks": checks}


def rendered_report(view: dict[str, Any]) -> RenderableType:
    """One row a check, with what to do below what was found, and the sum."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in view["checks"]:
        state = State(check["state"])
        told = Text(check["measured"], style="dim" if state is State.SKIPPED else "")
        if check["advice"] and state is not State.OK:
            told.append("\n")
            told.append("\n".join(f"-> {line}" for line in check["advice"].splitlines()), style="cyan")
        table.add_row(Text(state, style=STYLES[state]), Text(check["check"]), told)
    counts = Counter(State(check["state"]) for check in view["checks"])
    sum_of = ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state])
    verdict = Text(sum_of, style="green" if view["healthy"] else "bold red")
    return Group(Text(view["subject"], style="bold"), table, verdict)
