"""The local stack for tests: what `python -m source.devstack up` starts, one a process, gone with it.

from local_stack import LocalStack
from local_stack import stack as stack      # fixture: everything runs, nothing is left of earlier tests

def test_…(stack: LocalStack) -> None:
    anna = stack.person()
    requests.post(f"{stack.url}/functions/v1/create-task", headers=bearer(anna.access_token), …)
    stack.gateway.kill(); …; stack.start()  # also: .pause(), .resume(); .postgres, .s3; start() keeps ports
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from functools import cache
from pathlib import Path

import pytest
from postgres_server import Database
from process_end import at_process_end

from source.devstack import database
from source.devstack.servers import BUCKET
from source.devstack.stack import Stack
from source.devstack.state import Person, free_ports, signed_jwt

_STOP = """
import pathlib
from source.devstack.stack import Stack
Stack(pathlib.Path(sys.argv[1])).down(erase=True)
"""


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


class LocalStack:
    """A running stack. `postgres`, `s3` and `gateway` can be stopped, killed, paused, resumed one by one."""

    def __init__(self, folder: Path) -> None:
        self._stack = Stack(folder, durable=False)
        at_process_end(_STOP, folder)
        self._stack.up(ports=free_ports())
        state = self._stack.state
        self.url = self._stack.url
        self.service_key, self.anon_key, self.jwt_secret = state.service_key, state.anon_key, state.jwt_secret
        #: the newer kind of service key
        self.secret_key = state.secret_key
        self.postgres, self.s3, self.gateway = self._stack.postgres, self._stack.s3, self._stack.gateway
        #: as the superuser, or as any role
        self.database = Database(self.postgres.uri())
        #: the folder of the bucket: an object is a file there
        self.objects = self.s3.objects / BUCKET
        #: what the functions are given
        self.functions_environment = self._stack.functions_environment()
        self.log = self.gateway.log

    def start(self) -> None:
        """Start again what does not run, at the same ports, and wait until all of it answers."""
        parts = (self.postgres, self.s3, self.gateway)
        for part in parts:
            part.resume()
        if any(part.process() is None for part in parts):
            self._stack.up()
        for part in parts:
            part.wait()

    def empty(self) -> None:
        """Remove every row and every object."""
        # Objects first: the S3 server believes in them for another 20 ms, which the database takes.
        for path in self.objects.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.database.empty()

    def person(self) -> Person:
        """Somebody new: user_id, project_id, access_token (a PAT)."""
        return database.add_person(self.postgres.uri(), "test")

    def jwt_of(self, person: Person) -> str:
        """What Supabase Auth gives to them."""
        return self._stack.jwt_of(person)

    def expired_jwt(self, person: Person) -> str:
        """The same, too old."""
        return self.signed_jwt(person.user_id, lasts_s=-60)

    def forged_jwt(self, role: str = "service_role", person: Person | None = None) -> str:
        """Signed with a secret that is not the project's."""
        sub = person.user_id if person else str(uuid.uuid4())
        return signed_jwt("another secret, long enough to sign with", role=role, aud="authenticated", sub=sub)

    def signed_jwt(self, sub: str, role: str = "authenticated", lasts_s: float = 3600) -> str:
        """Rightly signed, with these claims."""
        return signed_jwt(self.jwt_secret, lasts_s=lasts_s, role=role, aud="authenticated", sub=sub)


@cache
def local_stack() -> LocalStack:
    """The process's stack."""
    return LocalStack(Path(tempfile.mkdtemp(prefix=f"stack-{os.getpid()}-")))


@pytest.fixture
def stack() -> LocalStack:
    """The process's stack with everything running and nothing in it."""
    running = local_stack()
    running.start()
    running.empty()
    return running
