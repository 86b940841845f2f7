"""Where the chaos takes place: a database of its own, what its workers are told of it, and what can befall it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote

import requests

from source.devstack.database import FUNCTIONS, end_connections
from source.devstack.servers import BUCKET
from source.devstack.stack import Stack
from source.devstack.state import free_ports
from source.edge_functions import EdgeFunctions, Token
from source.errors import InvalidInput
from source.settings import Settings
from source.store.base import TaskStore
from source.store.sqlite import SqliteStore
from source.store.supabase import SupabaseStore
from source.store.types import Task
from source.supabase_storage import SupabaseStorage

#: what PostgREST-like lists hand out at most
LISTED = 1000
DOWNLOAD_S = 60.0


class Ground(ABC):
    """One database. Close it."""

    #: for people
    name: str
    store: TaskStore
    #: where the tasks go; None is the usual project
    project: str | None = None
    #: whether all rows there are the chaos's own
    own = True

    @property
    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """Settings of its workers."""

    @property
    def faults(self) -> Mapping[str, Callable[[], object]]:
        """What can befall the machines of the database; `heal` ends it."""
        return {}

    def heal(self) -> None:  # noqa: B027 - nothing to heal where nothing can befall
        """All of it works again."""

    @abstractmethod
    def output(self, location: str) -> bytes | None:
        """A result; None where it is not there."""

    def digest(self, row: Task) -> str | None:
        """SHA-256 of the output of a row."""
        content = self.output(row.output_location) if row.output_location else None
        return None if content is None else hashlib.sha256(content).hexdigest()

    def close(self) -> None:
        """The store, and what was started."""
        self.store.close()


class SqliteGround(Ground):
    """A new file in `folder`."""

    name = "SQLite"

    def __init__(self, folder: Path, max_attempts: int) -> None:
        self._file = folder / "tasks.db"
        self.store = SqliteStore(self._file, max_attempts=max_attempts)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"DB_TYPE": "sqlite", "DB_FILE": str(self._file)}

    def output(self, location: str) -> bytes | None:
        path = self._file.parent / "public" / location
        return path.read_bytes() if path.is_file() else None


class StackGround(Ground):
    """A new local stack in `folder`: Postgres, the gateway with the functions, an S3 server."""

    name = "Postgres"

    def __init__(self, folder: Path, max_attempts: int) -> None:
        self._stack = Stack(folder / "stack")
        self._stack.up(ports=free_ports())
        self._token = self._stack.state.service_key
        self.store = SupabaseStore(EdgeFunctions(self._stack.url, Token(self._token)), max_attempts=max_attempts)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"DB_TYPE": "supabase", "SUPABASE_URL": self._stack.url, "SUPABASE_ACCESS_TOKEN": self._token}

    @property
    def faults(self) -> Mapping[str, Callable[[], object]]:
        stack = self._stack
        return {
            "kill_postgres": stack.postgres.kill,
            "kill_gateway": stack.gateway.kill,
            "kill_s3": stack.s3.kill,
            "freeze_postgres": stack.postgres.pause,
            "freeze_gateway": stack.gateway.pause,
            "freeze_s3": stack.s3.pause,
            "end_connections": lambda: end_connections(stack.postgres.uri(), FUNCTIONS),
        }

    def heal(self) -> None:
        """Start what was killed, let go on what stands still."""
        parts = self._stack.parts()
        for part in parts:
            part.resume()
        if any(part.process() is None for part in parts):
            self._stack.up()

    def output(self, location: str) -> bytes | None:
        key = unquote(location.partition(f"/{BUCKET}/")[2])
        path = self._stack.s3.objects / BUCKET / key
        return path.read_bytes() if key and path.is_file() else None

    def close(self) -> None:
        super().close()
        self._stack.down(erase=True)


class ProjectGround(Ground):
    """An own Supabase project, as a person without other tasks: their rows alone are seen, claimed and changed.

    Raises InvalidInput for a service key, or for a person with open tasks.
    """

    name = "Supabase"
    own = False

    def __init__(self, settings: Settings) -> None:
        functions = EdgeFunctions.of(settings)
        self.store = SupabaseStore(functions, max_attempts=settings.max_attempts)
        self._settings = settings
        self._storage = SupabaseStorage(settings, functions)
        try:
            self._must_be_alone(functions)
        except BaseException:
            self.close()
            raise

    def _must_be_alone(self, functions: EdgeFunctions) -> None:
        counts = functions.call("task-counts", {"include_active": False})
        if not isinstance(counts, dict) or counts.get("user_id") is None:
            raise InvalidInput(
                "is a service key, whose workers would take everybody's tasks: make a person for this alone, and give "
                "their personal access token", field="supabase_access_token",
            )  # fmt: skip
        if waiting := self.store.open_tasks():
            raise InvalidInput(f"is of a person with {waiting} open tasks", field="supabase_access_token")

    @property
    def environment(self) -> Mapping[str, str]:
        token = self._settings.supabase_access_token
        assert self._settings.supabase_url is not None and token is not None
        anon = self._settings.supabase_anon_key
        return {
            "DB_TYPE": "supabase", "SUPABASE_URL": self._settings.supabase_url,
            "SUPABASE_ACCESS_TOKEN": token.get_secret_value(),
            "SUPABASE_ANON_KEY": anon.get_secret_value() if anon else "",
        }  # fmt: skip

    def output(self, location: str) -> bytes | None:
        address = self._storage.address(location, None)
        if address is None:
            return None
        with requests.get(address, timeout=DOWNLOAD_S) as answer:
            return answer.content if answer.ok else None
