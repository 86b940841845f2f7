"""The whole stack in one folder: started, stopped, looked at."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from source.devstack import database
from source.devstack.parts import HOST, Part, StackError, port_is_free, write_private
from source.devstack.postgres import Postgres
from source.devstack.programs import require_all
from source.devstack.servers import BUCKET, Gateway, ObjectServer
from source.devstack.state import Person, State, signed_jwt, usual_ports

#: how long a command waits for another one on the same folder
_TURN_S = 120.0
#: what the very first `up` may leave when it is cut short
_OWN_AT_FIRST = (".lock", ".stack.json.new")
#: any text does: the S3 server has no regions, but signatures name one
_REGION = "local"


@dataclass(frozen=True)
class Started:
    """What `up` did."""

    parts: list[str]
    migrations: list[str]
    #: files that are no longer what was applied
    edited: list[str]


class Stack:
    """`folder` holds everything: data, objects, logs, keys."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder.resolve()
        self._durable = durable

    def up(self, gateway_port: int | None = None, ports: dict[str, int] | None = None) -> Started:
        """Start what does not run and bring the database up to date. Raises StackError, ConfigurationError."""
        require_all()
        with self._turn():
            self._choose(ports or usual_ports(gateway_port), gateway_port)
            missing = [part for part in self.parts() if part.find() is None]
            for part in missing:
                part.require_port()
            for part in missing:
                part.start()
            self.postgres.wait()
            migrated, edited = self._bring_up_to_date()
            for part in self.parts():
                part.wait()
            self._write_environment()
        return Started([part.name for part in missing], migrated, edited)

    def down(self, erase: bool = False) -> list[str]:
        """Stop what runs, last what others need, and say what that was; with `erase` remove the folder too."""
        if State.read(self.folder) is None:
            return []
        with self._turn():
            stopped = [part.name for part in reversed(self.parts()) if part.stop()]
            if erase:
                shutil.rmtree(self.folder)
        return stopped

    def parts(self) -> list[Part]:
        """In the order of their starts."""
        return [self.postgres, self.s3, self.gateway]

    @property
    def state(self) -> State:
        """Raises StackError when the stack was never started."""
        state = State.read(self.folder)
        if state is None:
            raise StackError(f"there is no stack in {self.folder}; start one with: python -m source.devstack up")
        return state

    @property
    def postgres(self) -> Postgres:
        state = self.state
        return Postgres(self.folder, state.ports["postgres"], state.database_password, durable=self._durable)

    @property
    def s3(self) -> ObjectServer:
        state = self.state
        return ObjectServer(self.folder, state.ports["s3"], state.s3_key_id, state.s3_secret)

    @property
    def gateway(self) -> Gateway:
        ports = self.state.ports
        reachable = (ports["postgres"], ports["s3"])
        return Gateway(self.folder, ports["gateway"], self.functions_environment(), reachable)

    @property
    def url(self) -> str:
        """SUPABASE_URL."""
        return f"http://{HOST}:{self.state.ports['gateway']}"

    def functions_environment(self) -> dict[str, str]:
        """What hosted Supabase gives to Edge Functions, and the secrets that an operator sets."""
        state = self.state
        return {
            "SUPABASE_URL": self.url,
            "SUPABASE_ANON_KEY": state.anon_key,
            "SUPABASE_SERVICE_ROLE_KEY": state.service_key,
            "SUPABASE_SECRET_KEYS": json.dumps({"default": state.secret_key}),
            "SUPABASE_DB_URL": self.postgres.uri(database.FUNCTIONS, state.functions_password),
            "JWT_SECRET": state.jwt_secret,
            "S3_ENDPOINT": self.s3.endpoint,
            "S3_REGION": _REGION,
            "S3_ACCESS_KEY_ID": state.s3_key_id,
            "S3_SECRET_ACCESS_KEY": state.s3_secret,
            "STORAGE_BUCKET": BUCKET,
            "STORAGE_PUBLIC": "true",
            "STORAGE_VERIFY_MAX_MB": "256",
        }

    def environment(self) -> dict[str, str]:
        """What a worker or a person at a shell needs."""
        state = self.state
        seeded = {}
        if state.person:
            seeded = {
                "DEVSTACK_USER_ID": state.person.user_id,
                "DEVSTACK_PROJECT_ID": state.person.project_id,
                "DEVSTACK_PAT": state.person.access_token,
                "DEVSTACK_USER_JWT": self.jwt_of(state.person),
            }
        return {
            "SUPABASE_URL": self.url,
            "SUPABASE_ANON_KEY": state.anon_key,
            "SUPABASE_SERVICE_ROLE_KEY": state.service_key,
            "DEVSTACK_DB_URL": self.postgres.uri(database.OWNER),
            **seeded,
        }

    def jwt_of(self, person: Person) -> str:
        """What Supabase Auth gives to a front end when that person signs in."""
        return signed_jwt(self.state.jwt_secret, role="authenticated", aud="authenticated", sub=person.user_id)

    def _choose(self, ports: dict[str, int], gateway_port: int | None) -> None:
        """Keys once; ports once too, unless others took them while nothing of ours ran."""
        state = State.read(self.folder)
        if state is None:
            self._must_be_empty()
            State.new(ports).write(self.folder)
            return
        running = any([part.find() for part in self.parts()])
        if gateway_port and gateway_port != state.ports["gateway"] and running:
            raise StackError(f"the stack runs at {self.url}; stop it first: python -m source.devstack down")
        if not running:
            kept = {name: port if port_is_free(port) else ports[name] for name, port in state.ports.items()}
            kept |= {"gateway": gateway_port} if gateway_port else {}
            state.model_copy(update={"ports": kept}).write(self.folder)

    def _must_be_empty(self) -> None:
        """`erase` removes the whole folder, so nothing else may be in it."""
        if found := sorted(path.name for path in self.folder.iterdir() if path.name not in _OWN_AT_FIRST):
            raise StackError(f"{self.folder} is no stack's folder: it holds {found[0]}; name another with --folder")

    def _bring_up_to_date(self) -> tuple[list[str], list[str]]:
        """Names of migrations: applied now, and edited since they were applied."""
        state, uri = self.state, self.postgres.uri()
        database.bootstrap(uri)
        database.set_passwords(
            uri, {database.OWNER: state.database_password, database.FUNCTIONS: state.functions_password}
        )
        edited = database.edited_migrations(uri)
        try:
            migrated = database.migrate(uri)
        except StackError as error:
            if edited:
                raise StackError(f"{error}\n{edited_since(edited)}") from None
            raise
        if state.person is None:
            person = database.add_person(uri, "local stack")
            state.model_copy(update={"person": person}).write(self.folder)
        return migrated, edited

    def _write_environment(self) -> None:
        write_private(self.folder / "environment", "".join(f"{line}\n" for line in exports(self.environment())))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", timeout=_TURN_S)
        try:
            with lock:
                yield
        except Timeout:
            raise StackError(f"another command works on {self.folder}; try again when it is done") from None


def edited_since(names: list[str]) -> str:
    """What to do about migrations whose files are no longer what was applied."""
    return f"no longer what was applied: {', '.join(names)}; to begin anew: down --erase, then up"


def exports(environment: dict[str, str]) -> list[str]:
    """Lines for a shell."""
    return [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
