"""Whether every Edge Function is there, and answers each kind of token with the right code.

What is asked changes no row: a body that is refused, a task that does not exist, or a question.
"""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from source.devstack.state import signed_jwt
from source.doctor.checks import Finding, failed, well
from source.edge_functions import EdgeFunctions

#: questions at the same time
LANES = 6


@dataclass(frozen=True)
class Harmless:
    """A body that changes nothing, and the codes that it is answered with."""

    service: int
    person: int
    body: Mapping[str, Any] = field(default_factory=dict)
    #: the field that names a task which does not exist
    unknown: str | None = None

    def content(self) -> dict[str, Any]:
        """The body, with a task that nobody has."""
        return dict(self.body) | ({self.unknown: str(uuid.uuid4())} if self.unknown else {})

    def wanted(self, is_person: bool | None) -> frozenset[int]:
        """The codes for our own token."""
        return frozenset({True: {self.person}, False: {self.service}, None: {self.person, self.service}}[is_person])


#: each folder of supabase/functions that is a function
HARMLESS: Mapping[str, Harmless] = {
    "task-store": Harmless(200, 200, {"operation": "installation"}),
    # a run type that no task has: not even a server that is not ours would claim one
    "claim-next-task": Harmless(400, 400, {"worker_id": "", "run_type": "doctor"}),
    "heartbeat": Harmless(400, 400, {"worker_id": ""}),
    "create-task": Harmless(400, 400),
    "cancel-task": Harmless(404, 404, unknown="task_id"),
    "complete-task": Harmless(400, 400),
    "complete_task": Harmless(400, 400),
    "generate-upload-url": Harmless(
        404, 404, {"filename": "doctor.txt", "content_type": "text/plain"}, unknown="task_id"
    ),
    "generate-download-url": Harmless(400, 400),
    "probe-storage": Harmless(200, 200),
    "get-task-output": Harmless(404, 404, unknown="task_id"),
    "get-predecessor-output": Harmless(404, 404, unknown="task_id"),
    "get-orchestrator-children": Harmless(404, 404, unknown="orchestrator_task_id"),
    "get-completed-segments": Harmless(200, 400, {"run_id": "doctor"}),
    "task-counts": Harmless(200, 200),
    "update-task-status": Harmless(400, 400),
    "update-worker-model": Harmless(400, 403),
    "upload-input": Harmless(400, 400),
    "update-shot-pair-prompts": Harmless(400, 400),
}

OWN = "our own token"
REFUSED = frozenset({401, 403})
_NOBODY = frozenset({401})
#: tokens that must be refused, and how
STRANGERS: Mapping[str, frozenset[int]] = {
    "no token": _NOBODY,
    "garbage": frozenset({403}),
    "a forged service_role JWT": _NOBODY,
    "an unsigned service_role JWT": _NOBODY,
    "an expired JWT": _NOBODY,
}


@dataclass(frozen=True)
class Answer:
    """What a function answered to a token, and what it should have."""

    function: str
    token: str
    status: int
    wanted: frozenset[int]

    @property
    def right(self) -> bool:
        return self.status in self.wanted


def functions(door: EdgeFunctions, own_token: str, is_person: bool | None) -> Finding:
    """Ask every function as everybody. `is_person`: whose the own token is, None when that is not known.
    Raises StoreError when something does not answer at all."""
    tokens = strangers() | {OWN: own_token}

    def asked(name: str, token: str) -> Answer:
        status = door.status(name, HARMLESS[name].content(), tokens[token])
        return Answer(name, token, status, STRANGERS.get(token) or HARMLESS[name].wanted(is_person))

    pool = ThreadPoolExecutor(LANES)
    try:
        under_way = [pool.submit(asked, name, token) for name in HARMLESS for token in tokens]
        wrong = [answer for answer in (each.result() for each in under_way) if not answer.right]
    finally:  # one that gets no answer is enough
        pool.shutdown(cancel_futures=True)
    if not wrong:
        return well(f"{len(HARMLESS)} functions answer {len(tokens)} kinds of token as they should")
    return failed("\n".join(_complaints(wrong)), "\n".join(dict.fromkeys(map(_cure, wrong))))


def strangers() -> dict[str, str | None]:
    """What they are -> the token."""
    secret, person = secrets.token_urlsafe(48), str(uuid.uuid4())
    made = (
        None,
        secrets.token_urlsafe(24),
        signed_jwt(secret, role="service_role"),
        _unsigned(role="service_role", exp=4_000_000_000),
        signed_jwt(secret, lasts_s=-3600, role="authenticated", aud="authenticated", sub=person),
    )
    return dict(zip(STRANGERS, made, strict=True))


def _unsigned(**claims: Any) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def _complaints(wrong: Sequence[Answer]) -> Iterator[str]:
    """One line for all functions of which the same is to be said."""
    told: dict[str, list[str]] = {}
    for name in dict.fromkeys(answer.function for answer in wrong):
        of_it = [answer for answer in wrong if answer.function == name]
        absent = all(answer.status == 404 for answer in of_it)
        told.setdefault("not there (404)" if absent else "; ".join(map(_complaint, of_it)), []).append(name)
    for complaint, names in told.items():
        yield f"{', '.join(names)}: {complaint}"


def _complaint(answer: Answer) -> str:
    if answer.token == OWN and answer.status in REFUSED:
        return f"{OWN} is refused ({answer.status})"
    return f"{answer.token} is answered {answer.status}, not {_or(answer.wanted)}"


def _or(codes: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(codes)))


def _cure(answer: Answer) -> str:
    if answer.status == 404:
        return f"deploy it: `supabase functions deploy {answer.function}`"
    if answer.status >= 500:
        return "look into the logs of these functions, and the secrets that are set for them (docs/supabase.md)"
    if answer.token == OWN and answer.status in REFUSED:
        return "give a token that is valid: SUPABASE_ACCESS_TOKEN"
    if answer.token == "garbage" and answer.status == 401:
        return "deploy with supabase/config.toml (verify_jwt = false): the gateway refuses personal access tokens"
    if answer.token != OWN and answer.status not in REFUSED:
        return f"{answer.function} lets strangers in: delete it or deploy this version of it at once"
    return f"deploy this version of {answer.function}"
