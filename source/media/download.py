"""Downloads over HTTP: redirects, limits, cancelling, and failures as our errors. Media and LoRAs share it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from source.errors import DiskFull, InvalidInput, InvalidMedia, Transient
from source.media.guarded import GuardedAdapter
from source.media.places import Reach

CONNECT_TIMEOUT_S = 10.0
DOWNLOAD_LIMIT_S = 3600.0
MAX_REDIRECTS = 5
#: at most so much of what came is lost when a connection breaks
CHUNK_BYTES = 32 * 1024

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://|(data|javascript|blob):", re.IGNORECASE)
#: client errors that a later try may not meet: time-out, too early, too many requests
_PASSING = frozenset({408, 425, 429})


def proceed() -> None:
    """Nobody wants the download stopped."""


@dataclass(frozen=True, kw_only=True)
class DownloadRules:
    """What one download may take."""

    #: longest silence, seconds
    timeout_s: float
    max_bytes: int
    #: `max_bytes` for people, with the setting that raises it
    max_text: str
    #: called between chunks; may raise to stop the download
    check: Callable[[], None] = proceed
    #: seconds after which a download that is never silent for long is given up
    limit_s: float = DOWNLOAD_LIMIT_S
    #: which machines may be asked, also by redirects; None: all
    reach: Reach | None = None


def url_scheme(reference: str) -> str | None:
    """The scheme of a URL in lower case; None for anything that is a path."""
    scheme = _SCHEME.match(reference)
    return (scheme[1] or scheme[2]).lower() if scheme else None


def shown(url: str) -> str:
    """A URL as it may stand in messages: without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def refuse_malformed(url: str) -> None:
    """Raises InvalidMedia without the URL, whose secrets cannot be found when its parts cannot."""
    try:
        urlsplit(url)
    except ValueError as error:
        raise InvalidMedia(f"the URL is malformed: {error}") from None


def refuse_status(
    status: int, url: str, *, accepted: Iterable[int] = (200,), hints: Mapping[int, str] | None = None
) -> None:
    """Raises Transient for a fault of the server, InvalidMedia for any other answer that is not accepted.

    `hints` says what to do about a status; without one the message asks to check the URL.
    """
    if status >= 500 or status in _PASSING:
        raise Transient(f"the server answered {status} for {shown(url)}; it may work later")
    if status not in accepted:
        hint = (hints or {}).get(status, "check the URL")
        raise InvalidMedia(f"the server answered {status} for {shown(url)}; {hint}")


@contextmanager
def opened(
    url: str, rules: DownloadRules, headers: Mapping[str, str] | None = None, auth: AuthBase | None = None
) -> Iterator[requests.Response]:
    """The answer to a GET, its body unread. `auth` is not repeated to another host that the URL redirects to.

    Raises Transient and InvalidMedia.
    """
    timeouts = (CONNECT_TIMEOUT_S, rules.timeout_s)
    with requests.Session() as session:
        session.max_redirects = MAX_REDIRECTS
        if rules.reach is not None:
            session.trust_env = False  # neither a proxy, which would look the name up itself, nor a login of ~/.netrc
            for scheme in ("http://", "https://"):
                session.mount(scheme, GuardedAdapter(rules.reach))
        with _typed_failures(url):
            response = session.get(url, stream=True, timeout=timeouts, headers=headers, auth=auth)
        with response:
            yield response


def received(response: requests.Response, url: str, rules: DownloadRules, *, already: int = 0) -> Iterator[bytes]:
    """The body in chunks. `already` bytes of the file came with an earlier answer; they count for the limit.

    Raises Transient when the body ends early or falls silent, InvalidMedia when it is too large or takes too long.
    """
    announced = response.headers.get("Content-Length", "")
    _refuse_size(already + (int(announced) if announced.isdigit() else 0), url, rules)
    deadline = time.monotonic() + rules.limit_s
    total = already
    with _typed_failures(url):
        for chunk in response.iter_content(CHUNK_BYTES):
            rules.check()
            total += len(chunk)
            _refuse_size(total, url, rules)
            if time.monotonic() > deadline:
                raise InvalidMedia(f"downloading {shown(url)} takes more than {rules.limit_s:g} s; given up")
            yield chunk


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Put the field's name before the message of a failure."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidMedia(str(error), field=field) from error
    except Transient as error:
        kind = DiskFull if isinstance(error, DiskFull) else Transient
        raise kind(f"{field}: {error}") from error


def _refuse_size(size_bytes: int, url: str, rules: DownloadRules) -> None:
    if size_bytes > rules.max_bytes:
        raise InvalidMedia(f"{shown(url)} is larger than {rules.max_text}")


@contextmanager
def _typed_failures(url: str) -> Iterator[None]:
    """Failures of the HTTP library as our errors. The original text may hold the whole URL, so it stays out."""
    try:
        yield
    except requests.TooManyRedirects:
        raise InvalidMedia(f"{shown(url)} redirects more than {MAX_REDIRECTS} times") from None
    except ValueError:  # InvalidSchema, InvalidURL and MissingSchema are; a redirect may lead to a malformed URL
        raise InvalidMedia(f"{shown(url)} is not, or does not lead to, an http(s) URL") from None
    except requests.Timeout:
        raise Transient(f"{shown(url)} did not answer in time") from None
    except requests.RequestException as error:
        raise Transient(f"{shown(url)} could not be downloaded ({type(error).__name__})") from None
