"""Values as every database takes them: JSON text, and text that UTF-8 can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from source.errors import InvalidInput


def encoded(value: Mapping[str, Any], field: str) -> str:
    """`value` as JSON text. Raises InvalidInput when it cannot be written as JSON."""
    try:
        return plain(json.dumps(dict(value), ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"cannot be stored as JSON: {error}", field=field) from error


def plain(text: str) -> str:
    """`text` without what UTF-8 cannot hold (lone surrogates, from damaged input)."""
    return text.encode("utf-8", "replace").decode("utf-8")
