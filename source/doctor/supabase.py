"""A Supabase project: its address, its database, its functions, its storage, and who sees what."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import cache, partial
from typing import Any

from source.doctor.checks import Check, Finding, doubtful, failed, skipped, well
from source.doctor.clocks import Clock, compared
from source.doctor.functions import functions
from source.doctor.rest import anonymous
from source.doctor.storage import round_trip
from source.edge_functions import EdgeFunctions, FunctionFailed, Token, TokenRefused, watched_patience
from source.errors import RefusedWrite, StoreError, TaskNotFound
from source.settings import Settings
from source.store.supabase import SupabaseStore
from source.store.supabase_schema import newest_migration

#: tries at the clock: the quickest says most
LOOKS = 3
#: what people's rows are looked through for
MAX_ROWS, MAX_PROJECTS = 200, 20
#: longer than the door asks again
PATIENT_S = 60.0
TOKEN = "give the service key, a personal access token, or a user's JWT by SUPABASE_ACCESS_TOKEN"
PUSH = (
    "`supabase db push` applies the migrations, on the local stack `python -m source.devstack up` (docs/supabase.md); "
    "the log of task-store says more"
)
DOWN = (
    "look whether the database runs: in the project's dashboard, or by `python -m source.devstack status`; the log of "
    "task-store says more"
)

Installation = Callable[[], Mapping[str, Any]]


def supabase_checks(settings: Settings, clock: Clock, opened: ExitStack) -> list[Check]:
    """Those of a project; `opened` closes what they use. Raises ConfigurationError for a token that cannot be read."""
    door = EdgeFunctions.of(settings, watched_patience)
    store = opened.enter_context(closing(SupabaseStore(door)))
    assert settings.supabase_access_token is not None
    own = Token(settings.supabase_access_token.get_secret_value()).value
    installation: Installation = cache(store.installation)
    personal = cache(partial(_is_person, door))
    reach = "check SUPABASE_URL, that the project is not paused, and the way to it (DNS, proxy, firewall)"
    return [
        Check("address", partial(address, door, settings), reach, PATIENT_S),
        Check("token", partial(whose_token, door), TOKEN, PATIENT_S, needs="address"),
        Check("database", partial(database, installation), DOWN, PATIENT_S, needs="token"),
        Check("clock", partial(clock_difference, store, settings, clock), timeout_s=PATIENT_S, needs="database"),
        Check("functions", lambda: functions(door, own, personal()), reach, 2 * PATIENT_S, needs="address"),
        Check("storage", partial(round_trip, door, settings), "", 2 * PATIENT_S, needs="token"),
        Check("rls", partial(row_level_security, installation), timeout_s=PATIENT_S, needs="database"),
        Check("other people", lambda: other_people(store, door, personal()), timeout_s=PATIENT_S, needs="database"),
        Check("strangers", partial(anonymous, settings), reach, PATIENT_S, needs="address"),
    ]


def address(door: EdgeFunctions, settings: Settings) -> Finding:
    """Whether anything answers there."""
    started = time.monotonic()
    status = door.status("task-store", {}, None)
    return well(f"{settings.supabase_url} answers ({status}) in {time.monotonic() - started:.2f} s")


def whose_token(door: EdgeFunctions) -> Finding:
    """Whether the token is accepted, and as whose. Raises TokenRefused and RefusedWrite."""
    try:
        person = _person(door)
    except (TokenRefused, RefusedWrite):
        raise
    except StoreError as error:
        return doubtful(f"not known whose it is: {error}", "see below")
    return well("the service key" if person is None else f"of the person {person}")


def database(installation: Installation) -> Finding:
    """Whether it has the migrations of this version. Raises StoreError when it does not answer."""
    try:
        found = installation()
    except FunctionFailed as error:
        return failed(str(error), PUSH)
    applied, ours = found.get("schema"), newest_migration()
    told = f"Postgres {found.get('postgres')}, newest migration {applied or 'not written down'}"
    if applied is None:
        return doubtful(told, "apply migrations by `supabase db push`, which writes down what was applied")
    if ours is not None and applied < ours:
        return failed(f"{told}; this version needs {ours}", PUSH)
    if ours is not None and applied > ours:
        return doubtful(f"{told}; this version knows {ours}", "update this program")
    return well(told)


def clock_difference(store: SupabaseStore, settings: Settings, clock: Clock) -> Finding:
    """The database's clock against ours, in the middle of the quickest question."""
    looks = []
    for _ in range(LOOKS):
        started, ours = time.monotonic(), clock()
        theirs = store.now()
        took_s = time.monotonic() - started
        looks.append((took_s, (theirs - ours).total_seconds() - took_s / 2))
    took_s, ahead_s = min(looks)
    where = "ahead of" if ahead_s >= 0 else "behind"
    told = f"the database's is {abs(ahead_s):.2f} s {where} this machine's (give or take {took_s / 2:.2f} s)"
    return compared(ahead_s, settings.lease_s, told)


def row_level_security(installation: Installation) -> Finding:
    """Whether every table that the API shows has its rows guarded."""
    bare = installation().get("tables_without_rls")
    if bare:
        cure = "\n".join(f"alter table public.{table} enable row level security;" for table in bare)
        return failed(f"off for {', '.join(bare)}: whoever may read the table sees everybody's rows", cure)
    return well("on for every table")


def other_people(store: SupabaseStore, door: EdgeFunctions, is_person: bool | None) -> Finding:
    """Whether a person sees tasks of projects alone that are theirs."""
    if not is_person:
        return skipped("the service key sees all there is; look again with a person's token")
    seen = {task.project_id for task in store.tasks(limit=MAX_ROWS)}
    foreign = [project for project in sorted(seen)[:MAX_PROJECTS] if not _is_theirs(door, project)]
    if foreign:
        return failed(
            f"tasks of projects are seen that are not theirs: {', '.join(foreign)}",
            "the policy `own` of public.tasks is not what the migrations made; make it again",
        )
    return well(f"the tasks that this person sees are of their own projects ({len(seen)})")


def _is_theirs(door: EdgeFunctions, project_id: str) -> bool:
    try:
        door.call("get-completed-segments", {"run_id": "doctor", "project_id": project_id})
    except (TaskNotFound, RefusedWrite):
        return False
    return True


def _person(door: EdgeFunctions) -> str | None:
    """The id of the person whose token it is; None for the service key. Raises StoreError."""
    answer = door.call("task-counts", {"include_active": False})
    return answer.get("user_id") if isinstance(answer, dict) else None


def _is_person(door: EdgeFunctions) -> bool | None:
    """None when nobody says."""
    try:
        return _person(door) is not None
    except StoreError:
        return None
