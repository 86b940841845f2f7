"""Numbers and texts as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def printable(text: str) -> str:
    """A text that came from anywhere, without what steers a terminal or cannot be written to it. Lines stay."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(printable(text).split())


def duration(seconds: float | None) -> str:
    """0.42 s, 12.3 s, 3:05 min, 1:02:03 h or 3 d 4 h; "-" for what is not known."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def clock(at: str | None) -> str:
    """The day and time of a moment of the database, without year and zone: 01-31 23:59:59."""
    return at[5:19].replace("T", " ") if at else ""


def gigabytes(size: float) -> str:
    """Bytes: 0.5 GB, 12 GB."""
    number = size / 2**30
    return f"{number:.1f} GB" if number < 10 else f"{number:.0f} GB"


def percent(share: float | None) -> str:
    """0 to 1 as 42 %; "" for what is not known."""
    return "" if share is None else f"{100 * share:.0f} %"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """1 task, 2 tasks."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(numbers: Mapping[str, Any]) -> str:
    """{"Queued": 3, "Failed": 1} as "3 Queued, 1 Failed"."""
    return ", ".join(f"{number} {name}" for name, number in numbers.items() if number)
