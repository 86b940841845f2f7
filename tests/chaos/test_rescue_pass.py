"""F6: Postgres dies in the middle of the pass that takes back the tasks of a dead worker, while the worker that asked
for it generates."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from place import place

from source.chaos.grounds import StackGround

DEAD, LONG_S = 3, 3600
#: the third row that a pass takes back waits for whoever holds this lock
LOCK = 7
HALFWAY = f"""
create function public.halfway() returns trigger language plpgsql as $$
begin
    if (select count(*) from public.task_events where name = 'rescued') >= 2 then
        perform pg_advisory_xact_lock({LOCK});
    end if;
    return new;
end
$$;
create trigger halfway before insert on public.task_events
    for each row when (new.name = 'rescued') execute function public.halfway();
"""


class Watched(StackGround):
    """Its database can be looked at by the superuser."""

    def superuser(self) -> psycopg.Connection:
        return psycopg.connect(self._stack.postgres.uri(), autocommit=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_postgres_dies_inside_the_rescue_pass_and_nothing_is_stranded(folder: Path) -> None:
    with place(Watched, folder) as at, at.ground.superuser() as held, at.ground.superuser() as seen:
        held.execute(HALFWAY.encode())
        held.execute("select pg_advisory_lock(%s)", (LOCK,))
        left = at.add(DEAD)
        assert len(at.store.claim("dead", lease_s=LONG_S, limit=DEAD)) == DEAD
        crew = at.crew("w", CHAOS_STEP_S="1", CHAOS_STEPS="5", LEASE_S="60", MAX_IN_FLIGHT="1")
        [own] = at.add(1)
        at.until_runs(own)
        seen.execute("update public.tasks set lease_expires_at = now() where worker_id = 'dead'")
        waits = "select from pg_locks where locktype = 'advisory' and objid = %s and not granted"
        at.until(lambda: seen.execute(waits, (LOCK,)).fetchall(), "a pass has taken two rows back and not the third")
        at.ground.faults["kill_postgres"]()
        at.ground.heal()
        rows = at.until_complete([own, *left])
        assert crew.starts == 1
        assert crew.leave() == [0]
        rescues = [[event.name for event in at.store.events(task)].count("rescued") for task in left]
    print(f"claims {[row.claim_number for row in rows]}, rescues {rescues}")
    assert [(row.claim_number, row.attempts) for row in rows] == [(1, 0)] + [(2, 1)] * DEAD
    assert rescues == [1] * DEAD
