"""Long values, shortened: in log lines, for a picture inside the params must not fill the disk; and for people."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set
from typing import Any

from source.redaction import redact, redact_values

#: letters of a text in a log line, and of one value in all; levels of nesting
LOGGED, LONGEST, LOGGED_LEVELS = 500, 1000, 3
#: letters of a text, entries of a list and levels of nesting where parameters are shown
LETTERS, ENTRIES, LEVELS = 200, 5, 4


def shortened(text: str, letters: int = LONGEST) -> str:
    """`text` where it is short, else its begin and how long it is."""
    return text if len(text) <= letters else f"{text[:letters]}… ({len(text)} characters)"


def abbreviated(value: Any, levels: int = LEVELS, *, letters: int = LETTERS) -> Any:
    """JSON values with long texts, long lists and deep levels cut short; what is left out is counted."""
    if isinstance(value, str):
        return shortened(value, letters)
    if isinstance(value, Mapping):
        if not levels:
            return f"… {len(value)} more"
        return {name: abbreviated(inner, levels - 1, letters=letters) for name, inner in value.items()}
    if isinstance(value, list | tuple | Set):
        if not levels:
            return f"… {len(value)} more"
        shown = [abbreviated(each, levels - 1, letters=letters) for each in list(value)[:ENTRIES]]
        return shown + ([f"… {len(value) - ENTRIES} more"] if len(value) > ENTRIES else [])
    return value


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
            return shortened(redact(str(abbreviated(inner, LOGGED_LEVELS, letters=LOGGED)), self._secrets))
        if isinstance(value, str | BaseException) and len(text := str(value)) > LONGEST:
            return shortened(redact(text, self._secrets))
        return value
