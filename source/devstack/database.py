"""What makes an empty database one of a hosted project: roles, migrations, and somebody to try it with.

The only place in source that speaks to Postgres itself. psycopg comes with the extra `dev`, so it is imported when
needed.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from source.devstack.parts import StackError
from source.devstack.state import Person
from source.store.supabase_schema import SUPABASE, migrations

if TYPE_CHECKING:
    import psycopg

#: as on hosted Supabase, migrations belong to a role that is no superuser
OWNER = "project_owner"
#: what Edge Functions log in as
FUNCTIONS = "authenticator"


def bootstrap(uri: str) -> None:
    """Roles, schema auth and default grants of a hosted project, once a database. `uri`: a superuser's."""
    from psycopg import sql

    with _connected(uri) as superuser, superuser.transaction():
        if _value(superuser, "select to_regnamespace('auth')") is None:
            superuser.execute((SUPABASE / "bootstrap.sql").read_bytes())
            database = sql.Identifier(superuser.info.dbname)
            superuser.execute(sql.SQL("grant all on database {} to {}").format(database, sql.Identifier(OWNER)))


def set_passwords(uri: str, passwords: dict[str, str]) -> None:
    """Let roles log in. The server sees a hash only, so that no log of statements holds them."""
    from psycopg import sql

    with _connected(uri) as superuser:
        for role, password in passwords.items():
            hashed = superuser.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
            superuser.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(hashed)))


def migrate(uri: str) -> list[str]:
    """Apply the migrations that are not recorded yet, each in a transaction, where the Supabase CLI records them too.
    Returns their names. `uri`: a superuser's. Raises StackError that names the one that failed."""
    applied = []
    with _connected(uri) as owner:
        owner.execute(f"set session authorization {OWNER}".encode())
        owner.execute(
            "set client_min_messages = warning; create schema if not exists supabase_migrations;"
            "create table if not exists supabase_migrations.schema_migrations"
            " (version text primary key, statements text[], name text)"
        )
        for file in migrations():
            version, name = file.stem.split("_", 1)
            text = file.read_text(encoding="utf-8")
            with owner.transaction():
                recorded = owner.execute(
                    "insert into supabase_migrations.schema_migrations (version, statements, name) values (%s, %s, %s)"
                    " on conflict (version) do nothing returning version",
                    (version, [text], name),
                ).fetchone()
                if recorded:
                    _apply(owner, file.name, text)
                    applied.append(file.name)
    return applied


def _apply(owner: psycopg.Connection[tuple[Any, ...]], name: str, text: str) -> None:
    import psycopg

    try:
        owner.execute(text.encode())
    except psycopg.Error as error:
        raise StackError(f"{name} failed: {error}") from None


def edited_migrations(uri: str) -> list[str]:
    """Names of migrations whose file is not what was applied. (The Supabase CLI records single statements, which are
    not compared.)"""
    with _connected(uri) as superuser:
        if _value(superuser, "select to_regclass('supabase_migrations.schema_migrations')") is None:
            return []
        rows = superuser.execute(
            "select version || '_' || name || '.sql', statements[1]"
            " from supabase_migrations.schema_migrations where cardinality(statements) = 1"
        ).fetchall()
    now = {file.name: file.read_text(encoding="utf-8") for file in migrations()}
    return [name for name, text in rows if now.get(name) != text]


def add_person(uri: str, name: str) -> Person:
    """Somebody new with a project and a personal access token."""
    user_id, project_id = str(uuid.uuid4()), str(uuid.uuid4())
    with _connected(uri) as service:
        service.execute("set role service_role")
        token = _value(service, "select public.create_api_token(%s, %s) ->> 'token'", name, user_id)
        service.execute("insert into public.projects (id, user_id) values (%s, %s)", (project_id, user_id))
    return Person(user_id=user_id, project_id=project_id, access_token=token)


def end_connections(uri: str, role: str) -> int:
    """End the connections of a role, whatever they are doing; returns how many. `uri`: a superuser's."""
    with _connected(uri) as superuser:
        ended = superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", (role,)
        ).fetchall()
    return len(ended)


def _connected(uri: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Closed at the end of the `with` block."""
    import psycopg

    return psycopg.connect(uri, autocommit=True)


def _value(connection: psycopg.Connection[tuple[Any, ...]], statement: str, *values: Any) -> Any:
    row = connection.execute(statement.encode(), values).fetchone()
    return row[0] if row else None
