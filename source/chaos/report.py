"""What a run of the chaos came to: as JSON, as lines, and as a page."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from source.chaos.run import LEASE_S, Outcome

#: sentences that are shown of one kind
SHOWN = 20

_PAGE = """# Chaos: a report

`make chaos` wrote this on {day}, on a machine of {cores} CPU cores ({system}, Python {python}), with other programs at
work beside it. [reliability.md](reliability.md) says what is promised and what is checked.

{table}

Faults from outside: {kinds}.

Traps that sprang inside the workers (killed, stopped or an answer lost at a named point): {traps}. Errors and deaths
that the engine was told of: {misfortunes}.

The lease was {lease:g} s. The same plan again: `{commands}`.
"""
_COLUMNS = (
    "database", "seed", "faults", "workers", "processes", "tasks", "ends", "lost", "unexpected", "duplicated",
    "stale accepted", "executions", "of them repeated", "seconds",
)  # fmt: skip


def view(outcome: Outcome) -> dict[str, Any]:
    """JSON values."""
    found = outcome.findings
    return {
        "database": outcome.ground, "seed": outcome.plan.seed, "workers": outcome.workers,
        "processes": outcome.starts, "injected": dict(outcome.injected), "met": dict(outcome.met),
        "tasks": found.tasks, "ends": dict(found.ends), "lost": list(found.lost), "unexpected": list(found.unexpected),
        "duplicated": list(found.duplicated), "stale_accepted": list(found.stale_accepted),
        "executions": found.executions, "duplicate_executions": found.duplicate_executions, "faults": found.faults,
        "exit_codes": list(outcome.exit_codes), "seconds": round(outcome.seconds, 1), "well": outcome.well,
    }  # fmt: skip


def lines(outcome: Outcome) -> str:
    """For people."""
    found = outcome.findings
    said = [
        f"{outcome.ground}: seed {outcome.plan.seed}, {len(outcome.plan.faults)} faults, {outcome.workers} workers, "
        f"{outcome.seconds:.0f} s",
        f"  {found.tasks} tasks: {_counted(found.ends)}",
        f"  lost {len(found.lost)}, unexpected {len(found.unexpected)}, duplicated {len(found.duplicated)}, "
        f"stale accepted {len(found.stale_accepted)}",
        f"  executions {found.executions}, repeated {found.duplicate_executions} (at most {found.faults}: the faults)",
        f"  faults: {_counted(outcome.injected)}; inside: {_counted(outcome.met)}",
    ]
    said += [f"  ! {sentence}" for sentence in found.violations[:SHOWN]]
    if not set(outcome.exit_codes) <= {0}:
        said.append(f"  ! exit codes at the end: {', '.join(map(str, outcome.exit_codes))}")
    return "\n".join(said)


def page(outcomes: Sequence[Outcome], commands: Sequence[str]) -> str:
    """A page of the documentation. `commands` repeat the plans."""
    injected, met = _together(o.injected for o in outcomes), _together(o.met for o in outcomes)
    return _PAGE.format(
        day=f"{datetime.now(UTC):%Y-%m-%d}", cores=os.cpu_count(), system=platform.system(),
        python=platform.python_version(), table=_table(outcomes), kinds=_counted(injected), traps=met.pop("trap", 0),
        misfortunes=_counted(met), lease=LEASE_S, commands="`, `".join(commands),
    )  # fmt: skip


def _table(outcomes: Sequence[Outcome]) -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS)]
    for outcome in outcomes:
        found = outcome.findings
        numbers = [
            outcome.ground, outcome.plan.seed, sum(outcome.injected.values()), outcome.workers, outcome.starts,
            found.tasks, _counted(found.ends), len(found.lost), len(found.unexpected), len(found.duplicated),
            len(found.stale_accepted), found.executions, found.duplicate_executions, round(outcome.seconds),
        ]  # fmt: skip
        rows.append(tuple(map(str, numbers)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _together(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, number in each.items():
            total[name] = total.get(name, 0) + number
    return total


def _counted(counts: Mapping[str, int]) -> str:
    """7 kill, 2 cancel."""
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"
