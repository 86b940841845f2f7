"""Clients of the older contract: their requests (tests/recorded) sent to the stack, what they get, and the rows then.

A step asks a function (`body`, `status`, `answer`: fields beyond these are welcome), PUTs or GETs a file, or looks at a
row. `$name` stands for what this run calls it, `keep` names parts of an answer, `<uuid>` and the like for a kind of
value.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import pytest
import requests
from local_stack import LocalStack, bearer
from local_stack import stack as stack

RECORDED = Path(__file__).resolve().parents[1] / "recorded"
VIDEO, FRAME = b"a video" * 100, b"\xff\xd8\xff a picture"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
KINDS = {
    "<any>": lambda value: True,
    "<text>": lambda value: isinstance(value, str) and value,
    "<url>": lambda value: isinstance(value, str) and value.startswith("http://"),
    "<uuid>": lambda value: isinstance(value, str) and UUID.fullmatch(value),
    "<number>": lambda value: isinstance(value, int | float),
    "<object>": lambda value: isinstance(value, dict),
    "<list>": lambda value: isinstance(value, list),
}


class Replay:
    """One recording against the stack."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        anna, ben = stack.person(), stack.person()
        self.tokens = {
            "service": stack.service_key, "pat": anna.access_token, "jwt": stack.jwt_of(anna),
            "forged": stack.forged_jwt(), "unknown": "pat_of_nobody",
        }  # fmt: skip
        self.known = {
            "url": stack.url, "user": anna.user_id, "project": anna.project_id, "other_user": ben.user_id,
            "other_project": ben.project_id, "video": _base64(VIDEO), "frame": _base64(FRAME),
        }  # fmt: skip
        self.known |= {f"id_{number}": str(uuid.uuid4()) for number in range(1, 5)}
        for person in (anna, ben):
            (stack.objects / person.user_id).mkdir()
            (stack.objects / person.user_id / "there.mp4").write_bytes(VIDEO)

    def step(self, step: Mapping[str, Any]) -> None:
        if "function" in step:
            self._ask(step)
        elif "row" in step:
            self._look(self.filled(step["row"]), self.filled(step["is"]))
        else:
            self._carry(step)

    def _ask(self, step: Mapping[str, Any]) -> None:
        headers = bearer(self.tokens[step["token"]]) if step["token"] else {}
        url = f"{self.stack.url}/functions/v1/{step['function']}"
        answer = requests.post(url, headers=headers, json=self.filled(step["body"]), timeout=30)
        assert answer.status_code in _listed(step["status"]), answer.text
        value = answer.json() if answer.content else None
        if "answer" in step:
            check(self.filled(step["answer"]), value, step["function"])
        assert step.get("says", "") in answer.text
        for name, field in step.get("keep", {}).items():
            self.known[name] = value[field]
            self.known[f"{name}_in_url"] = quote(value[field])

    def _look(self, task: str, wanted: Mapping[str, Any]) -> None:
        with self.stack.database.acting("service_role") as service:
            [[row]] = service.execute("select public.get_task(%s)", (task,)).fetchall()
        check(wanted, row, f"row {task}")

    def _carry(self, step: Mapping[str, Any]) -> None:
        data = base64.b64decode(self.filled(step["data"]))
        if "put" in step:
            headers = {"Content-Type": step["content_type"]}
            answer = requests.put(self.filled(step["put"]), data=data, headers=headers, timeout=30)
        else:
            answer = requests.get(self.filled(step["get"]), timeout=30)
            assert answer.content == data
        assert answer.status_code == step["status"], answer.text

    def filled(self, value: Any) -> Any:
        """The value with what the names stand for."""
        if isinstance(value, str):
            return Template(value).substitute(self.known)
        if isinstance(value, list):
            return [self.filled(each) for each in value]
        if isinstance(value, dict):
            return {name: self.filled(each) for name, each in value.items()}
        return value


def check(wanted: Any, value: Any, where: str) -> None:
    """Compare what was wanted with what came."""
    if isinstance(wanted, dict):
        assert isinstance(value, dict), where
        for name, each in wanted.items():
            assert name in value, f"{where} lacks {name}: {value}"
            check(each, value[name], f"{where}.{name}")
    elif isinstance(wanted, list):
        assert isinstance(value, list) and len(value) == len(wanted), f"{where}: {value}"
        for place, (each, came) in enumerate(zip(wanted, value, strict=True)):
            check(each, came, f"{where}.{place}")
    elif isinstance(wanted, str) and wanted in KINDS:
        assert KINDS[wanted](value), f"{where} is {value!r}, not a {wanted}"
    else:
        assert value == wanted, f"{where} is {value!r}, not {wanted!r}"


def _listed(status: int | list[int]) -> list[int]:
    return status if isinstance(status, list) else [status]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.json")))
def test_a_client_of_the_older_contract_still_works(stack: LocalStack, name: str) -> None:
    replay = Replay(stack)
    for number, step in enumerate(json.loads((RECORDED / f"{name}.json").read_text())["steps"], start=1):
        try:
            replay.step(step)
        except (AssertionError, KeyError) as error:
            raise AssertionError(f"{name}, step {number} ({step}): {error}") from error
