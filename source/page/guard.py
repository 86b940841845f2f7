"""What stands before every request: whose it is, which host it names, and what a browser may do with the answer."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from urllib.parse import quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from source.page.access import COOKIE, Access, Session, TooManyTries
from source.page.context import is_fragment, page_of

#: to be had without the token
OPEN_PATHS = re.compile(r"/(login|healthz|static/.*)")
MOST_OPEN_BYTES = 16_384
SAFE_METHODS = frozenset({"GET", "HEAD"})

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def content_policy(media: Collection[str] = ()) -> str:
    """The Content-Security-Policy of a page; `media`: origins that its pictures and videos come from beside ours."""
    sources = " ".join(["'self'", *sorted(media)])
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; "
        f"img-src {sources}; media-src {sources}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def origin_of(url: str) -> str:
    """The origin of an http(s) URL, as a policy names it; "" for anything else."""
    parts = urlsplit(url)
    plain = parts.scheme in ("http", "https") and re.fullmatch(r"[\w.:\[\]-]+", parts.netloc)
    return f"{parts.scheme}://{parts.netloc}" if plain else ""


class Guard:
    """Refuses foreign hosts and origins and who did not show the token; gives every answer its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = _refusal(Request(scope))
        answer = self._app if refusal is None else refusal
        await answer(scope, receive, _with_headers(send, scope["path"]))


def _with_headers(send: Send, path: str) -> Send:
    usual = {**_HEADERS, "Content-Security-Policy": content_policy()}
    usual["Cache-Control"] = "no-cache" if path.startswith("/static/") else "no-store"

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in usual.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _refusal(request: Request) -> Response | None:
    page = page_of(request)
    if not is_our_host(request.headers.get("host", ""), page.settings.page_hosts):
        return PlainTextResponse("this page does not go by that name; PAGE_HOSTS can add one\n", 421)
    if request.method not in SAFE_METHODS and not _from_here(request):
        return PlainTextResponse("a page of another site sent this\n", 403)
    if request.method not in SAFE_METHODS and OPEN_PATHS.fullmatch(request.url.path) and not _is_small(request):
        return PlainTextResponse("a token is shorter than that\n", 413)
    try:
        request.state.session = _session(request, page.access)
    except TooManyTries as error:
        return PlainTextResponse(f"{error}\n", 429, headers={"Retry-After": f"{error.wait_s:.0f}"})
    if not page.access.required or request.state.session or OPEN_PATHS.fullmatch(request.url.path):
        return None
    return _log_in_first(request)


def _session(request: Request, access: Access) -> Session | None:
    found = access.session(request.cookies.get(COOKIE))
    if found is None and access.required and "authorization" in request.headers:
        return access.program(request.headers["authorization"])
    return found


def is_our_host(header: str, named: Collection[str]) -> bool:
    """Whether a Host header is an address, this machine's name, or one of `named`. A page of others that has its own
    name lead here (DNS rebinding) sends that name, and is refused."""
    host = (urlsplit(f"//{header}").hostname or "") if re.fullmatch(r"[\w.:\[\]-]+", header) else ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        own = {"localhost", socket.gethostname().lower(), *(name.lower() for name in named)}
        return host in own or host.endswith(".localhost")
    return True


def _is_small(request: Request) -> bool:
    """Of what anybody may send: it is read as a whole."""
    length = request.headers.get("content-length", "")
    return length.isdecimal() and int(length) <= MOST_OPEN_BYTES


def _from_here(request: Request) -> bool:
    """Browsers say where a form comes from; programs do not."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return False
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


def _log_in_first(request: Request) -> Response:
    if is_fragment(request):  # a page that is open; htmx asks for any type
        return Response(status_code=401, headers={"HX-Redirect": _log_in(request.headers.get("hx-current-url", "/"))})
    if request.method not in SAFE_METHODS or "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse("log in, or send the page's token: Authorization: Bearer TOKEN\n", 401)
    return RedirectResponse(_log_in(str(request.url)), 303)


def _log_in(url: str) -> str:
    """The address of the log-in that leads back to `url`."""
    parts = urlsplit(url)
    return f"/login?next={quote(f'{parts.path}?{parts.query}'.rstrip('?'), safe='/')}"
