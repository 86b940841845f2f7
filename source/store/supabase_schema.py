"""The Supabase project that belongs to this version, and its migrations."""

from __future__ import annotations

from pathlib import Path

_INSTALLED = Path(__file__).resolve().parents[1] / "supabase"
#: in a wheel it lies inside the package (setup.py), in a checkout at the top
SUPABASE = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1] / "supabase"


def migrations() -> list[Path]:
    """Oldest first."""
    return sorted((SUPABASE / "migrations").glob("*.sql"))


def newest_migration() -> str | None:
    """The version of the newest one, the digits that its name begins with. None where there are no migrations."""
    return max((path.name.partition("_")[0] for path in migrations()), default=None)
