"""Values as every database takes them: JSON text, text that UTF-8 can hold, previews."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from source.errors import InvalidInput
from source.store.types import MAX_PREVIEW_BYTES, PREVIEW_MEDIA_TYPES


def encoded(value: Mapping[str, Any], field: str) -> str:
    """`value` as JSON text. Raises InvalidInput when it cannot be written as JSON."""
    try:
        return plain(json.dumps(dict(value), ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"cannot be stored as JSON: {error}", field=field) from error


def check_preview(image: bytes, media_type: str) -> None:
    """Raises InvalidInput for what is no preview."""
    if not 0 < len(image) <= MAX_PREVIEW_BYTES:
        raise InvalidInput(f"must be 1-{MAX_PREVIEW_BYTES} bytes, not {len(image)}", field="image")
    if media_type not in PREVIEW_MEDIA_TYPES:
        raise InvalidInput(f"must be one of {', '.join(sorted(PREVIEW_MEDIA_TYPES))}", field="media_type")


def plain(text: str) -> str:
    """`text` without what UTF-8 cannot hold (lone surrogates, from damaged input)."""
    return text.encode("utf-8", "replace").decode("utf-8")
