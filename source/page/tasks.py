"""The queue and its history."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from source.page.context import is_fragment, page_of
from source.store.types import Status

LISTED = 50


def queue(request: Request) -> Response:
    """The newest tasks, as the query chooses them."""
    page = page_of(request)
    listed = page.store.tasks(limit=LISTED)
    template = "queue_part.html" if is_fragment(request) else "queue.html"
    return page.rendered(request, template, tasks=listed, counts=page.store.counts(), statuses=list(Status))


routes = [Route("/", queue)]
