"""The workers: which are alive, what they hold, how busy their GPUs are."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from source.diagnostics.workers import workers_view
from source.page.context import is_fragment, page_of
from source.page.tasks import refresh_s


def workers(request: Request) -> Response:
    """A table of them."""
    page = page_of(request)
    views = workers_view(page.store.workers(), page.store.now())
    template = "workers_part.html" if is_fragment(request) else "workers.html"
    return page.rendered(request, template, workers=views, every_s=refresh_s(page))


routes = [Route("/workers", workers)]
