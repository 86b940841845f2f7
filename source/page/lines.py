"""Log lines: those of all workers, chosen and followed."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from source.diagnostics.views import View, picked
from source.page.context import chosen, is_fragment, page_of
from source.page.tasks import refresh_s
from source.store.types import LEVELS, LogFilter, LogLine

LISTED = 500
#: of the times that a query may ask for, in seconds
SPANS = {"": "any time", "600": "10 minutes", "3600": "an hour", "86400": "a day"}
_KEYS = ("at", "level", "message", "worker_id", "task_id")
_FIELDS = {"task": "", "worker": "", "level": "", "text": "", "since": "", "follow": ""}


def shown_lines(lines: Sequence[LogLine]) -> list[View]:
    """Lines without secrets, whoever logged them."""
    return [picked(line, _KEYS) for line in lines]


def logs(request: Request) -> Response:
    """The newest lines that the query means, oldest first. Raises InvalidInput for an unknown level."""
    page, query = page_of(request), chosen(request, _FIELDS)
    wanted = LogFilter(
        task_id=query["task"] or None,
        worker_id=query["worker"] or None,
        level=query["level"] or None,
        since_s=float(query["since"]) if query["since"] in SPANS and query["since"] else None,
        text=query["text"] or None,
    )
    lines = shown_lines(page.store.logs(wanted, limit=LISTED))
    template = "lines_part.html" if is_fragment(request) else "logs.html"
    return page.rendered(
        request, template, lines=lines, query=query, levels=LEVELS, spans=SPANS, every_s=refresh_s(page), most=LISTED
    )


routes = [Route("/logs", logs)]
