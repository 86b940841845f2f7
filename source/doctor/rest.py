"""What somebody without a login may do by the REST interface that a hosted project has beside its functions."""

from __future__ import annotations

import requests

from source.addresses import is_loopback
from source.doctor.checks import Finding, failed, skipped, well
from source.settings import Settings

TIMEOUT_S = 20.0
REFUSED, ABSENT = frozenset({401, 403}), frozenset({404})
CURE = "the roles are not as the migrations made them: revoke all on public.tasks from anon"


def anonymous(settings: Settings) -> Finding:
    """Try to read a task, and to write one that the table's rules refuse anyway, with the publishable key alone."""
    if settings.supabase_anon_key is None:
        return skipped("SUPABASE_ANON_KEY (the publishable key) is needed to look what strangers may do")
    key = settings.supabase_anon_key.get_secret_value()
    address = f"{settings.supabase_url}/rest/v1/tasks"
    with requests.Session() as session:
        session.trust_env = not is_loopback(address)
        session.headers.update({"apikey": key, "Authorization": f"Bearer {key}"})
        read = session.get(address, params={"select": "id", "limit": "1"}, timeout=TIMEOUT_S).status_code
        # no type: should anon ever get so far, the check of the table still refuses it
        written = session.post(address, json={"task_type": "", "params": {}}, timeout=TIMEOUT_S).status_code
    if {read, written} <= ABSENT:
        return well("there is no REST interface here")
    wrong = [f"{what} is answered {status}" for what, status in (("reading", read), ("writing", written))
             if status not in REFUSED]  # fmt: skip
    if wrong:
        return failed(f"with the publishable key alone {' and '.join(wrong)}, not 401 or 403", CURE)
    return well("may neither read nor write tasks by the REST interface")
