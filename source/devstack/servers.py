"""The stack's two HTTP servers: the S3 server (rclone) and the gateway (Deno)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from source.devstack.parts import HOST, Part, answers_http
from source.devstack.programs import program
from source.settings import child_environment
from source.store.supabase_schema import SUPABASE

BUCKET = "image_uploads"
FUNCTIONS = SUPABASE / "functions"
_GATEWAY = SUPABASE / "gateway" / "main.ts"
#: what the functions may ask for beside what they are given: an option of theirs, and what postgres.js looks up
_ALSO_READ = ("STORAGE_VERIFY_MAX_MB", "DB_POOLER_URL", "PG*", "USERNAME", "USER", "LOGNAME")


class ObjectServer(Part):
    """Files below `objects/` as an S3 server: a bucket is a folder there, an object a file."""

    name = "s3"

    def __init__(self, folder: Path, port: int, key_id: str, secret: str) -> None:
        super().__init__(folder, port)
        self.objects = folder / "objects"
        self._keys = (key_id, secret)

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        return [
            program("rclone"), "serve", "s3", str(self.objects), "--addr", f"{HOST}:{self.port}",
            "--vfs-cache-mode", "writes", "--vfs-write-back", "0s", "--cache-dir", str(self.folder / "s3-cache"),
            # People and tests look into the folder, and remove files there. Never 0s or 1ms: then each request takes
            # rclone longer than the one before, a minute after a dozen on a busy machine, without end.
            "--dir-cache-time", "20ms",
        ]  # fmt: skip

    def environment(self) -> Mapping[str, str]:
        """The key pair is one value of a list of comma-separated values, hence the quotes."""
        return child_environment() | {"RCLONE_AUTH_KEY": f'"{",".join(self._keys)}"', "RCLONE_CONFIG": ""}

    def prepare(self) -> None:
        (self.objects / BUCKET).mkdir(parents=True, exist_ok=True)

    def answers(self) -> bool:
        return answers_http(self.port, "/")


class Gateway(Part):
    """`supabase/gateway`: the Edge Functions, and the public objects of the bucket."""

    name = "gateway"

    def __init__(
        self,
        folder: Path,
        port: int,
        secrets: Mapping[str, str],
        may_reach: tuple[int, ...],
        functions: Path = FUNCTIONS,
    ) -> None:
        """`secrets`: variables for the functions; `may_reach`: the ports of this machine that they connect to;
        `functions`: their folder, with config.toml beside it."""
        super().__init__(folder, port)
        self._secrets = secrets
        self._functions = functions
        self._may_reach = may_reach

    def command(self) -> list[str]:
        reachable = ",".join(f"{HOST}:{port}" for port in (self.port, *self._may_reach))
        readable = ",".join(dict.fromkeys([*self._own(), *_ALSO_READ]))
        folder = str(self._functions).replace(",", ",,")  # it is a list of folders
        return [
            program("deno"), "run", "--quiet", "--no-prompt", "--frozen", f"--config={FUNCTIONS / 'deno.json'}",
            f"--allow-net={reachable}", f"--allow-env={readable}", f"--allow-read={folder}",
            str(_GATEWAY), str(self.folder),
        ]  # fmt: skip

    def environment(self) -> Mapping[str, str]:
        """Without the PG… and DB_… of a shell, which would change where and how the functions connect."""
        around = {name: value for name, value in child_environment().items() if not name.startswith(("PG", "DB_"))}
        return around | self._own()

    def prepare(self) -> None:
        """Nothing: Deno fetches the functions' packages by itself, the first time."""

    def answers(self) -> bool:
        return answers_http(self.port, "/healthz")

    def _own(self) -> dict[str, str]:
        return {
            **self._secrets,
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_FUNCTIONS": self._functions.as_uri(),
            "GATEWAY_VERIFY_THEMSELVES": ",".join(_verify_themselves(self._functions.with_name("config.toml"))),
        }


def _verify_themselves(config: Path) -> list[str]:
    """Functions with `verify_jwt = false`: the gateway lets every request to them pass."""
    functions = tomllib.loads(config.read_text(encoding="utf-8")).get("functions", {})
    return sorted(slug for slug, options in functions.items() if options.get("verify_jwt") is False)
