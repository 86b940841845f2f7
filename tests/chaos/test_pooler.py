"""Workers whose project reaches Postgres by a pooler in transaction mode, while connections break five times a second
and hundreds of other clients have theirs open."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from pooler import PROGRAM, Pooler, through

from source.chaos.grounds import StackGround
from source.chaos.plan import draw
from source.chaos.report import lines
from source.chaos.run import MAX_ATTEMPTS, run
from source.devstack.database import FUNCTIONS, end_connections
from source.errors import StoreError
from source.reporting import persist

IDLE, EVERY_S = 300, 0.2


class PooledGround(StackGround):
    """Nothing befalls it but broken connections."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, MAX_ATTEMPTS)
        self._stack.gateway.kill()
        self.pooler = Pooler(folder / "pooler", self._stack.functions_environment()["SUPABASE_DB_URL"])
        self._gateway = through(self.pooler, self._stack)
        self._gateway.start()
        self._gateway.wait()
        self.ended = 0

    @property
    def faults(self) -> Mapping[str, Callable[[], object]]:
        return {}

    def end_connections(self) -> None:
        self.ended += end_connections(self._stack.postgres.uri(), FUNCTIONS)

    def close(self) -> None:
        self.pooler.close()
        super().close()


@contextmanager
def again_and_again(act: Callable[[], None], answers: Callable[[], object]) -> Iterator[None]:
    """Five times a second. A machine that takes longer to answer after a break is left that long until the next."""
    over = threading.Event()

    def main() -> None:
        pause_s = EVERY_S
        while not over.wait(pause_s):
            act()
            began = time.monotonic()
            with suppress(StoreError):
                persist(answers, over)
            pause_s = max(EVERY_S, time.monotonic() - began)

    thread = threading.Thread(target=main)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pooler_whose_connections_break_costs_nothing(folder: Path) -> None:
    if PROGRAM is None:
        told = pytest.fail if os.environ.get("REQUIRE_PROGRAMS") else pytest.skip
        told("no pgbouncer: scripts/system_package.sh pgbouncer installs it; REQUIRE_PROGRAMS=1 makes this a failure")
    with closing(PooledGround(folder)) as ground, ExitStack() as idle:
        for _ in range(IDLE):
            idle.enter_context(closing(psycopg.connect(ground.pooler.uri, prepare_threshold=None)))
        with again_and_again(ground.end_connections, ground.store.counts):
            outcome = run(ground, draw(13, 25, 3), 3, folder, lambda _: None)
    print(lines(outcome), f"\n  {ground.ended} connections were ended, {IDLE} clients were idle")
    assert outcome.well, lines(outcome)
    assert ground.ended > 10
