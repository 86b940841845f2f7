"""What a stack has chosen once and keeps: its ports, its keys, and the person that it was seeded with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from source.devstack.parts import HOST, StackError, port_is_free, write_private

#: the ports that Supabase's own local stack has, where they are free
_USUAL_PORTS = {"gateway": 54321, "postgres": 54322, "s3": 54323}
_TEN_YEARS_S = 10 * 365 * 24 * 3600


class Person(BaseModel):
    """Somebody with a project."""

    model_config = ConfigDict(frozen=True)

    user_id: str
    project_id: str
    access_token: str = Field(repr=False)


class State(BaseModel):
    """`stack.json` in the stack's folder, for its owner's eyes alone."""

    model_config = ConfigDict(frozen=True)

    ports: dict[str, int]
    jwt_secret: str = Field(repr=False)
    #: of the superuser and of the migrations' owner; of the role that functions log in as
    database_password: str = Field(repr=False)
    functions_password: str = Field(repr=False)
    s3_key_id: str
    s3_secret: str = Field(repr=False)
    anon_key: str = Field(repr=False)
    service_key: str = Field(repr=False)
    #: what newer projects have beside, or instead of, the service key
    secret_key: str = Field(repr=False)
    person: Person | None = None

    @classmethod
    def new(cls, ports: Mapping[str, int]) -> Self:
        """Fresh keys."""
        secret = secrets.token_hex(32)
        return cls(
            ports=dict(ports), jwt_secret=secret,
            database_password=secrets.token_hex(16), functions_password=secrets.token_hex(16),
            s3_key_id=secrets.token_hex(16), s3_secret=secrets.token_hex(32),
            anon_key=signed_jwt(secret, role="anon"), service_key=signed_jwt(secret, role="service_role"),
            secret_key=f"sb_secret_{secrets.token_urlsafe(24)}",
        )  # fmt: skip

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What stands in the folder, or None. Raises StackError."""
        file = folder / "stack.json"
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StackError(f"{file} cannot be read: {error}") from None
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, item["loc"])) for item in error.errors()) or "no JSON"
            raise StackError(f"{file} is not of this version ({fields}); remove {folder} to begin anew") from None

    def write(self, folder: Path) -> None:
        """Keep it."""
        write_private(folder / "stack.json", self.model_dump_json(indent=2))


def signed_jwt(secret: str, *, lasts_s: float = _TEN_YEARS_S, **claims: Any) -> str:
    """A token as Supabase Auth signs them with the legacy secret (HS256). A negative `lasts_s` has expired."""
    now = int(time.time())
    body = {"iss": "supabase", "iat": now, "exp": int(now + lasts_s)} | claims
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, body)]
    signature = hmac.digest(secret.encode(), ".".join(parts).encode(), hashlib.sha256)
    return ".".join([*parts, _base64(signature)])


def usual_ports(gateway: int | None = None) -> dict[str, int]:
    """A free port for each part; the gateway's may be named."""
    ports = {name: port if port_is_free(port) else _any_port() for name, port in _USUAL_PORTS.items()}
    return ports | ({"gateway": gateway} if gateway else {})


def free_ports() -> dict[str, int]:
    """The same for a stack beside others: none of the usual ones."""
    return {name: _any_port() for name in _USUAL_PORTS}


def _any_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
