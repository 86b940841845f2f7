"""The migrations of the Supabase project that belongs to this version."""

from __future__ import annotations

from pathlib import Path

SUPABASE = Path(__file__).resolve().parent.parent.parent / "supabase"


def migrations() -> list[Path]:
    """Oldest first; none where the package is installed without the folder supabase."""
    return sorted((SUPABASE / "migrations").glob("*.sql"))


def newest_migration() -> str | None:
    """The version of the newest one, the digits that its name begins with. None where there are no migrations."""
    return max((path.name.partition("_")[0] for path in migrations()), default=None)
