"""Values on their way to a Supabase project: as Postgres can store them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from source.errors import InvalidInput
from source.store.encoding import encoded, plain
from source.store.supabase_rows import DEFAULT_PROJECT
from source.store.types import DEFAULT_PROJECT_ID


def uuid_of(value: str) -> str:
    """The UUID that an id is there. Raises InvalidInput when it is none."""
    if value == DEFAULT_PROJECT_ID:
        return DEFAULT_PROJECT
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise InvalidInput(f"{value!r} is no UUID, and ids on Supabase are UUIDs") from None


def text(value: str) -> str:
    """Text that Postgres can store: it takes no character 0."""
    return plain(value).replace("\0", "\ufffd")


def json_of(value: Mapping[str, Any], field: str) -> Any:
    """A JSON object that Postgres can store. Raises InvalidInput when it is none."""
    return storable(json.loads(encoded(value, field)))


def storable(value: Any) -> Any:
    """JSON without the character 0."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [storable(each) for each in value]
    if isinstance(value, dict):
        return {storable(name): storable(each) for name, each in value.items()}
    return value
