"""`debug.py chaos`: a run on each of the databases that were asked for."""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from source.chaos.grounds import Ground, ProjectGround, SqliteGround, StackGround
from source.chaos.plan import draw
from source.chaos.report import lines, page, view
from source.chaos.run import MAX_ATTEMPTS, Outcome, Tell, run
from source.errors import InvalidInput
from source.settings import Settings

SEEDS = 1_000_000


def chaos(settings: Settings, given: argparse.Namespace, tell: Tell) -> tuple[Any, str, int]:
    """JSON values, lines, and the exit code. Raises InvalidInput, StoreError, StackError, OSError."""
    for name, most in (("faults", 100_000), ("workers", 64)):
        if not 1 <= getattr(given, name) <= most:
            raise InvalidInput(f"must lie between 1 and {most}", field=name)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the workers end with us
    seed = secrets.randbelow(SEEDS) if given.seed is None else given.seed
    wanted = given.on or ["project" if settings.db_type == "supabase" else "sqlite"]
    outcomes = [_on(ground, seed, settings, given, tell) for ground in dict.fromkeys(wanted)]
    if given.report:
        given.report.write_text(page(outcomes, _commands(wanted, seed, given)), encoding="utf-8")
    well = all(outcome.well for outcome in outcomes)
    return [view(outcome) for outcome in outcomes], "\n".join(map(lines, outcomes)), 0 if well else 1


def _on(kind: str, seed: int, settings: Settings, given: argparse.Namespace, tell: Tell) -> Outcome:
    """The folder stays when something is wrong: histories and logs say what."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-{kind}-", dir=given.folder))
    with closing(_ground(kind, folder, settings)) as ground:
        plan = draw(seed, given.faults, given.workers, list(ground.faults), ground.project)
        outcome = run(ground, plan, given.workers, folder, tell)
    if outcome.well:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        tell(f"{outcome.ground}: histories and logs are in {folder}")
    return outcome


def _ground(kind: str, folder: Path, settings: Settings) -> Ground:
    match kind:
        case "sqlite":
            return SqliteGround(folder, MAX_ATTEMPTS)
        case "stack":
            return StackGround(folder, MAX_ATTEMPTS)
    return ProjectGround(settings)


def _commands(wanted: Sequence[str], seed: int, given: argparse.Namespace) -> list[str]:
    where = " ".join(f"--on {ground}" for ground in wanted)
    return [f"debug.py chaos --seed {seed} --faults {given.faults} --workers {given.workers} {where}"]
