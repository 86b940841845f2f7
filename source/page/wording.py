"""How values read on the page: times, durations, sizes. The filters of its templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup, escape

from source.store.types import Status

#: a mark beside each status, so that colour alone never says it
MARKS = {
    Status.QUEUED: "○",
    Status.IN_PROGRESS: "◐",
    Status.COMPLETE: "●",
    Status.FAILED: "✕",
    Status.CANCELLED: "–",
}
#: classes of the style sheet
KINDS = {
    Status.QUEUED: "queued",
    Status.IN_PROGRESS: "running",
    Status.COMPLETE: "complete",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
}

#: letters of JSON that stand on one line
LONGEST_LINE = 100


def mark(status: str) -> str:
    return MARKS[Status(status)]


def kind(status: str) -> str:
    return KINDS[Status(status)]


def short(text: str | None, length: int = 8) -> str:
    """The beginning of an id, which tells those of a list apart."""
    text = text or ""
    return text if len(text) <= length + 2 else f"{text[:length]}…"


def clock(at: str | None) -> str:
    """A time of the database without year and milliseconds: `11-26 18:40:12`."""
    return f"{at[5:10]} {at[11:19]}" if at else ""


def moment(at: str | None) -> str:
    """A time of the database without milliseconds: `2026-11-26 18:40:12`; all times are UTC."""
    return f"{at[:10]} {at[11:19]}" if at else ""


def duration(seconds: float | None) -> str:
    """`4.2 s`, `3 m 05 s`, `2 h 07 m`, `3 d 4 h`."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(size_bytes: float | None) -> str:
    """Bytes in decimal units."""
    if size_bytes is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 100 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.0f} %"


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def said(value: Any) -> str:
    """A value that stands beside its name: texts as they are, JSON on one line where it is short."""
    if isinstance(value, str):
        return value
    line = json.dumps(value, ensure_ascii=False, default=str)
    return line if len(line) <= LONGEST_LINE else pretty(value)


def task_url(task_id: str, part: str = "", **query: Any) -> str:
    """The address of a task's page, or of a part of it. (An id may hold slashes, so it stands in the query.)"""
    return f"/task{part}?{urlencode({'id': task_id, **query})}"


def with_query(query: Mapping[str, Any], **changes: Any) -> str:
    """A query string: `query` with `changes`; what is blank is left out, a list is repeated."""
    return urlencode([(name, value) for name, value in (dict(query) | changes).items() if value], doseq=True)


def sentence(text: str) -> Markup:
    """Words in which `what is to be typed` stands in backticks."""
    parts = re.split(r"`([^`\n]+)`", text)
    return Markup().join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


FILTERS: Mapping[str, Callable[..., str]] = {
    "mark": mark, "kind": kind, "short": short, "clock": clock, "moment": moment, "duration": duration, "size": size,
    "percent": percent, "pretty": pretty, "said": said, "task_url": task_url,
    "with_query": with_query, "sentence": sentence,
}  # fmt: skip
