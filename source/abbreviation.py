"""Long values in log lines, shortened: a picture inside the params must not fill the disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set
from typing import Any

from source.redaction import redact, redact_values

#: characters of a text inside others, and of one value in all
INNER, LONGEST = 500, 1000
#: entries of a list, and lists within lists
ENTRIES, LEVELS = 5, 3


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text` where it is short, else its begin and how long it is."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def abbreviated(value: Any, levels: int = LEVELS) -> Any:
    """JSON with long texts, lists and objects cut short, and what lies deep left out."""
    if isinstance(value, str):
        return shortened(value, INNER)
    if not isinstance(value, Mapping | list | tuple | Set):
        return value
    if levels == 0:
        return "…"
    if isinstance(value, Mapping):
        inner = list(value.items())[: 4 * ENTRIES]
        kept = {name: abbreviated(each, levels - 1) for name, each in inner}
        return kept | ({"…": f"{len(value)} in all"} if len(value) > len(inner) else {})
    entries = [abbreviated(each, levels - 1) for each in list(value)[:ENTRIES]]
    return entries + ([f"… {len(value)} in all"] if len(value) > ENTRIES else [])


class ShortValues(logging.Filter):
    """Shortens the values of a record, once. What is cut has lost its secrets before: half of one is known by nothing
    that looks for whole ones."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secret for secret in secrets if secret)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.args and not getattr(record, "shortened", False):
            record.args = self._args(record.msg, record.args)
            record.shortened = True
        return True

    def _args(self, form: object, args: Any) -> Any:
        if isinstance(args, Mapping):  # what logging makes of one object
            named = "%(" in str(form)
            return {name: self._short(value) for name, value in args.items()} if named else (self._short(args),)
        return tuple(self._short(value) for value in args)

    def _short(self, value: Any) -> Any:
        if isinstance(value, Mapping | list | tuple | Set):
            inner = redact_values(list(value) if isinstance(value, Set) else value)
            return shortened(redact(str(abbreviated(inner)), self._secrets))
        if isinstance(value, str | BaseException) and len(text := str(value)) > LONGEST:
            return shortened(redact(text, self._secrets))
        return value
