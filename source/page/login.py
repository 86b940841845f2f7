"""Logging in with the page's token, and out."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from source.page.access import COOKIE, TooManyTries
from source.page.context import local_path, page_of, session_of, writing


def form(request: Request) -> Response:
    """The form to paste the token into."""
    page = page_of(request)
    if not page.access.required or session_of(request) is not None:
        return RedirectResponse("/", 303)
    return page.rendered(request, "login.html", next=local_path(request.query_params.get("next")), wrong="")


async def log_in(request: Request) -> Response:
    """A session for who pastes the token; its cookie is for this site alone and no script reads it."""
    page = page_of(request)
    async with request.form(max_files=0, max_fields=10) as sent:
        wanted, token = local_path(str(sent.get("next", ""))), str(sent.get("token", "")).strip()
    try:
        session = page.access.log_in(token) if page.access.required else None
        wrong, code = "That is not the token of this page.", 403
    except TooManyTries as error:
        session, wrong, code = None, f"{error}.", 429
    if session is None:
        return await run_in_threadpool(page.rendered, request, "login.html", status_code=code, next=wanted, wrong=wrong)
    response = RedirectResponse(wanted, 303)
    response.set_cookie(COOKIE, session.id, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return response


def log_out(request: Request, _: FormData) -> Response:
    """The session ends."""
    if (session := session_of(request)) is not None:
        page_of(request).access.log_out(session)
    response = RedirectResponse("/", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


routes = [
    Route("/login", form),
    Route("/login", log_in, methods=["POST"]),
    Route("/logout", writing(log_out), methods=["POST"]),
]
