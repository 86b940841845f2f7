"""What the checkout raised, told to the worker, which has no such classes."""

from __future__ import annotations

import traceback
from typing import Any

TRACE_CHARACTERS = 8000


class NoStart(Exception):
    """The checkout cannot be used here, and another try would end the same."""


def told(error: BaseException) -> dict[str, Any]:
    """The class with its module, the message, and the last part of where it came from."""
    kind = type(error)
    trace = "".join(traceback.format_exception(kind, error, error.__traceback__))
    return {"type": f"{kind.__module__}.{kind.__qualname__}", "text": str(error), "trace": trace[-TRACE_CHARACTERS:]}
