"""The application of the page."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from source.errors import InvalidInput, InvalidMedia, StoreError, TaskNotFound, WanError
from source.metrics.database import CONTENT_TYPE, database_metrics
from source.page import actions, charts, lines, login, media, new, task, tasks, uploads, workers
from source.page.access import Access
from source.page.context import STATIC, Page, is_fragment, page_of
from source.page.guard import Guard
from source.settings import Settings
from source.store.base import TaskStore
from source.supabase_storage import storage_for
from source.task_registry import registry

PARTS = (login, tasks, task, media, actions, lines, workers, charts, new, uploads)


def page(store: TaskStore, settings: Settings, access: Access | None = None) -> Starlette:
    """The page over a database, which the caller opens and closes. Without `access` it only shows."""
    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/metrics", metrics),
            Mount("/static", StaticFiles(directory=Path(str(STATIC)))),
            *(route for part in PARTS for route in part.routes),
        ],
        middleware=[Middleware(Guard)],
        exception_handlers={WanError: _refused, HTTPException: _http_error},
    )
    app.state.page = Page(store, settings, storage_for(settings, store), access or Access())
    return app


def healthz(request: Request) -> Response:
    """200 where the database answers, 503 where it does not."""
    try:
        page_of(request).store.now()
    except StoreError:
        return PlainTextResponse("the database does not answer\n", 503)
    return PlainTextResponse("ok\n")


def metrics(request: Request) -> Response:
    """What Prometheus reads (docs/monitoring.md); it sends the page's token as a bearer token, where there is one."""
    found = database_metrics(page_of(request).store, [kind.name for kind in registry()])
    return Response(found, headers={"Content-Type": CONTENT_TYPE})


def _refused(request: Request, error: Exception) -> Response:
    found = isinstance(error, InvalidInput | InvalidMedia)
    code = 404 if isinstance(error, TaskNotFound) else 400 if found else 503
    return _error(request, code, str(error))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(request, error.status_code, "there is no such page" if error.detail == "Not Found" else error.detail)


def _error(request: Request, code: int, message: str) -> Response:
    template = "error_part.html" if is_fragment(request) else "error.html"
    return page_of(request).rendered(request, template, status_code=code, code=code, message=message)
