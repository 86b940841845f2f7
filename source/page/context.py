"""What every part of the page works with, and how it answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from source.page.access import Access, Session
from source.page.wording import FILTERS
from source.settings import Settings
from source.storage import Storage
from source.store.base import TaskStore

STATIC = files("source.page") / "static"


def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("source.page"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters.update(FILTERS)
    return found


_TEMPLATES = _templates()


@dataclass(frozen=True)
class Page:
    """What the application serves from. Safe to share between threads."""

    store: TaskStore
    settings: Settings
    storage: Storage
    access: Access

    def rendered(self, request: Request, template: str, *, status_code: int = 200, **values: Any) -> HTMLResponse:
        """A template with `values`; a fragment too. Everything in it is escaped."""
        shared = {
            "request": request,
            "path": request.url.path,
            "session": session_of(request),
            "may_write": may_write(request),
            "has_token": self.access.required,
            "database": self.settings.database,
        }
        return HTMLResponse(_TEMPLATES.get_template(template).render(shared | values), status_code)


def page_of(request: Request) -> Page:
    """The page that this request is asked of."""
    found = request.app.state.page
    assert isinstance(found, Page)
    return found


def session_of(request: Request) -> Session | None:
    """Who is logged in, if anybody is."""
    return getattr(request.state, "session", None)


def may_write(request: Request) -> bool:
    """Whether this request may change anything: the page has a token, and who asks showed it."""
    return page_of(request).access.required and session_of(request) is not None


def is_fragment(request: Request) -> bool:
    """Whether htmx asks for a part of a page, to put in its place."""
    return request.headers.get("hx-request") == "true" and "hx-history-restore-request" not in request.headers


def writing(
    act: Callable[[Request, FormData], Response],
    *,
    max_files: int = 0,
    max_fields: int = 100,
    max_part_bytes: int = 1 << 20,
) -> Callable[[Request], Any]:
    """An endpoint for a POST that changes something: for who is logged in, with the session's `csrf` field (or the
    header X-CSRF-Token). `act` runs on a thread. Answers 403 otherwise."""

    @wraps(act)
    async def endpoint(request: Request) -> Response:
        session = session_of(request)
        if session is None or not may_write(request):
            raise HTTPException(403, "log in first: a page without a token only shows")
        sent = request.headers.get("x-csrf-token")
        if sent is not None and not session.vouches_for(sent):
            raise HTTPException(403, "this form is no longer valid; load the page again")
        async with request.form(max_files=max_files, max_fields=max_fields, max_part_size=max_part_bytes) as form:
            if sent is None and not session.vouches_for(str(form.get("csrf", ""))):
                raise HTTPException(403, "this form is no longer valid; load the page again")
            return await run_in_threadpool(act, request, form)

    return endpoint


def see_other(request: Request, url: str) -> Response:
    """After a change: go and look. `url` is a path of ours."""
    if is_fragment(request):
        return Response(headers={"HX-Redirect": url})
    return RedirectResponse(url, status_code=303)


def local_path(wanted: str | None, otherwise: str = "/") -> str:
    """`wanted` where it is a path of this page and leads nowhere else."""
    return wanted if wanted and re.fullmatch(r"/(?![/\\])[^\\\x00-\x1f]*", wanted) else otherwise


def chosen(request: Request, names: Mapping[str, str]) -> dict[str, str]:
    """What a query says under these names, each with its default; blanks count as nothing."""
    return {name: request.query_params.get(name, "").strip() or default for name, default in names.items()}
