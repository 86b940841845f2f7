"""Secrets in the parameters of a row whose form is opened again: never sent to a browser, and kept all the same.

What a form shows of a row is redacted. A value that comes back as it was shown is the row's own again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from source.redaction import REDACTED, redact_values


def restored(sent: Any, original: Any) -> Any:
    """What was sent, with the original values wherever it is what was shown of them."""
    return _restored(sent, redact_values(original), original)


def _restored(sent: Any, shown: Any, original: Any) -> Any:
    if sent == shown:
        return original
    if isinstance(sent, Mapping) and isinstance(original, Mapping):
        names = {redact_values(name): name for name in original}
        return {
            names.get(name, name): _restored(value, shown.get(name), original.get(names.get(name, name)))
            for name, value in sent.items()
        }
    if isinstance(sent, list) and isinstance(original, list):
        return [_restored(item, *_counterpart(item, place, shown, original)) for place, item in enumerate(sent)]
    return sent


def _counterpart(item: Any, place: int, shown: list[Any], original: list[Any]) -> tuple[Any, Any]:
    """What an entry of a list was shown as, and what it is: the one that reads the same, else the one of its place."""
    if place < len(shown) and shown[place] == item:
        return shown[place], original[place]
    if item in shown:
        place = shown.index(item)
    return (shown[place], original[place]) if place < len(shown) else (None, None)


def half_written(sent: Any, original: Any, path: str = "") -> Iterator[str]:
    """Where something was written around a secret that was not shown, so that nobody knows what is meant."""
    if isinstance(sent, Mapping):
        for name, value in sent.items():
            inner = original.get(name) if isinstance(original, Mapping) else None
            yield from half_written(value, inner, f"{path}.{name}" if path else str(name))
    elif isinstance(sent, list):
        for place, value in enumerate(sent):
            inner = original[place] if isinstance(original, list) and place < len(original) else None
            yield from half_written(value, inner, f"{path}.{place}")
    elif isinstance(sent, str) and REDACTED in sent and _is_hidden(original):
        yield path


def _is_hidden(original: Any) -> bool:
    """Whether it was shown without a secret of it."""
    return isinstance(original, str) and REDACTED not in original and REDACTED in redact_values(original)
