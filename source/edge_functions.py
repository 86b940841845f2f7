"""The door to a project's Edge Functions: one POST a question, JSON in and out.

What passes (time-outs, broken connections, 429, 502, 503, 504) is asked again with growing waits, or as long as
Retry-After says, within a bounded time; a claim never is, for its answer may have been lost on the way. Redirects are
refused and no `.netrc` is read, so the token reaches the configured address only. No message holds it.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from socket import gaierror
from typing import Any

import requests
from requests.auth import AuthBase
from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event
from tenacity.stop import stop_before_delay, stop_when_event_set

from source.addresses import is_loopback
from source.errors import (
    ConfigurationError,
    DamagedUpload,
    InvalidInput,
    RefusedWrite,
    StaleClaim,
    StoreError,
    TaskNotFound,
)
from source.logs import redact
from source.retry_after import retry_after_s
from source.settings import Settings

log = logging.getLogger(__name__)

CONNECT_S = 5.0
#: what the last try gets, however late it is
LEAST_S = 0.5
#: what is not asked again is given up no later than this: somebody waits who has other things to do
ONCE_S = 10.0
#: a kept connection that rested longer may be dead without anybody having been told
IDLE_S = 30.0
LONGEST_WAIT_S = 8.0
#: longest piece of an answer that stands in a message
SHOWN = 300
#: a 403 with this code is about the token, not about what was asked
UNKNOWN_TOKEN = "unknown_token"
#: the function did nothing, and may do it later
REFUSING = frozenset({429, 503})
#: something between us and the function gave up on it (52x: Cloudflare's, before hosted projects; 546: the platform's)
LOSING = frozenset({502, 504, 520, 521, 522, 523, 524, 530, 546})


@dataclass(frozen=True)
class Patience:
    """How long one function may be silent, and for how long in all it is asked again. Seconds."""

    answer_s: float
    #: 0: it is asked once
    in_all_s: float
    first_wait_s: float = 0.5


#: what the worker asks again by itself (heartbeats) is given up early
PATIENCE: Mapping[str, Patience] = {
    "claim-next-task": Patience(15, 0),
    "heartbeat": Patience(10, 0),
    "create-task": Patience(45, 60),
    "complete-task": Patience(60, 120),
    "generate-upload-url": Patience(30, 60),
}
USUAL = Patience(20, 30)
WATCHED_S = 4.0


def usual_patience(function: str) -> Patience:
    """What suits a function over the internet."""
    return PATIENCE.get(function, USUAL)


def watched_patience(function: str) -> Patience:
    """The same where somebody waits before a screen, and can ask again."""
    usual = usual_patience(function)
    return replace(usual, in_all_s=min(usual.in_all_s, WATCHED_S))


class TokenRefused(StoreError):
    """The project does not know the token, or it has expired."""


class FunctionFailed(StoreError):
    """The function is at fault, or what it stands on; its log says why."""


class NoAnswer(StoreError):
    """Nothing came back: whether the function did what was asked is not known."""


class Token:
    """The bearer token: a value, or `@FILE`, which is read again when the server refuses what it held."""

    def __init__(self, text: str) -> None:
        self._file = Path(text[1:]).expanduser() if text.startswith("@") else None
        self._lock = threading.Lock()
        self.value = self._checked(text) if self._file is None else self._read()

    def renewed(self, refused: str) -> bool:
        """Whether there is another value than the refused one by now. A file that cannot be read holds none."""
        if self._file is not None:
            with self._lock, suppress(ConfigurationError):
                self.value = self._read()
        return self.value != refused

    def _read(self) -> str:
        assert self._file is not None
        try:
            return self._checked(self._file.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the token's file {self._file} cannot be read: {error}") from error

    def _checked(self, text: str) -> str:
        value = text.strip()
        if not value or not all("!" <= character <= "~" for character in value):
            where = f"the file {self._file}" if self._file else "SUPABASE_ACCESS_TOKEN"
            raise ConfigurationError(f"{where} must hold a token and nothing else")
        return value


class _Bearer(AuthBase):
    """Given explicitly, so that `requests` does not look for a login in .netrc; None goes without a token."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Passing(Exception):
    """May be another answer next time."""

    def __init__(self, failure: StoreError, after_s: float = 0.0) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after_s = after_s


class EdgeFunctions:
    """The functions of one project. Safe to share between threads; close it.

    urls: functions that have an address of their own.
    """

    def __init__(
        self, url: str, token: Token, *, urls: Mapping[str, str] | None = None, anon_key: str | None = None,
        patience: Callable[[str], Patience] = usual_patience,
    ) -> None:  # fmt: skip
        self.url = url.rstrip("/")
        self._token = token
        self._urls = dict(urls or {})
        self._patience = patience
        self._headers = {"Content-Type": "application/json", "User-Agent": "headless-wan2gp"}
        if anon_key:
            self._headers["apikey"] = anon_key
        self._closed = threading.Event()
        self._lock = threading.Lock()
        #: sessions at rest, with the time since when, the latest last
        self._resting: list[tuple[requests.Session, float]] = []

    @classmethod
    def of(cls, settings: Settings, patience: Callable[[str], Patience] = usual_patience) -> EdgeFunctions:
        """Those that the settings name. Raises ConfigurationError when they name none."""
        if settings.supabase_url is None or settings.supabase_access_token is None:
            raise ConfigurationError("set SUPABASE_URL and SUPABASE_ACCESS_TOKEN")
        key = settings.supabase_anon_key.get_secret_value() if settings.supabase_anon_key else None
        return cls(
            settings.supabase_url, Token(settings.supabase_access_token.get_secret_value()),
            urls=settings.edge_function_urls, anon_key=key, patience=patience,
        )  # fmt: skip

    def call(self, function: str, body: Mapping[str, Any], *, repeat: bool = True) -> Any:
        """The JSON that a function answers; None for an empty answer. `repeat`: whether it may be asked again.

        Raises InvalidInput (400), RefusedWrite (403, 422), TaskNotFound (404), StaleClaim (409), DamagedUpload (424),
        TokenRefused (401, and 403 for a token that nobody has), NoAnswer, and StoreError for everything else.
        """
        patience = self._patience(function)
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        deadline = time.monotonic() + max(patience.in_all_s, patience.answer_s)

        def ask() -> Any:
            left_s = deadline - time.monotonic()
            return self._asked_as_somebody(function, content, max(min(patience.answer_s, left_s), LEAST_S))

        try:
            if not repeat or not patience.in_all_s:
                answer_s = patience.answer_s if repeat else min(patience.answer_s, ONCE_S)
                return self._asked_as_somebody(function, content, answer_s)
            return Retrying(
                retry=retry_if_exception_type(_Passing),
                wait=partial(_wait_s, patience.first_wait_s),
                stop=stop_before_delay(patience.in_all_s) | stop_when_event_set(self._closed),
                sleep=sleep_using_event(self._closed),
                before_sleep=_say_so,
                reraise=True,
            )(ask)
        except _Passing as passing:
            raise passing.failure from passing.__cause__

    def status(self, function: str, body: Mapping[str, Any], token: str | None) -> int:
        """The HTTP status that whoever has `token` (None: nobody) is answered with. Asked once. Raises StoreError."""
        try:
            return self._posted(function, json.dumps(body).encode(), token, USUAL.answer_s).status_code
        except _Passing as passing:
            raise passing.failure from passing.__cause__

    def close(self) -> None:
        """Close what rests. A question that waits for its next try is given up."""
        self._closed.set()
        with self._lock:
            resting, self._resting = self._resting, []
        for session, _ in resting:
            session.close()

    # ---- one question

    def _asked_as_somebody(self, function: str, content: bytes, answer_s: float) -> Any:
        """Asked once, or twice when the token was refused and its file holds another one by now."""
        token = self._token.value
        try:
            return self._ask(function, content, token, answer_s)
        except TokenRefused:
            if not self._token.renewed(token):
                raise
            log.info("the token was refused; its file holds another one, which is used from now on")
            return self._ask(function, content, self._token.value, answer_s)

    def _ask(self, function: str, content: bytes, token: str, answer_s: float) -> Any:
        return self._answer(function, self._posted(function, content, token, answer_s), token)

    def _posted(self, function: str, content: bytes, token: str | None, answer_s: float) -> requests.Response:
        session = self._session()
        try:
            response = session.post(
                self._address(function), data=content, headers=self._headers, auth=_Bearer(token),
                timeout=(CONNECT_S, answer_s), allow_redirects=False,
            )  # fmt: skip
        except (requests.RequestException, OSError) as error:
            session.close()
            raise _Passing(self._unanswered(function, error, token, answer_s)) from error
        self._rest(session)
        return response

    def _unanswered(self, function: str, error: Exception, token: str | None, answer_s: float) -> StoreError:
        """NoAnswer, unless it is certain that nothing was asked."""
        if isinstance(error, requests.ReadTimeout):
            return NoAnswer(f"{function}: no answer within {answer_s:.3g} s")
        inner = _innermost(error)
        unasked = isinstance(error, requests.ConnectTimeout) or isinstance(inner, ConnectionRefusedError | gaierror)
        said = f"{self._address(function)} cannot be reached: {getattr(inner, 'strerror', None) or inner}"
        return (StoreError if unasked else NoAnswer)(f"{function}: {self._clean(said, token)}")

    def _answer(self, function: str, response: requests.Response, token: str) -> Any:
        value, done = _json(response), 200 <= response.status_code < 300
        if done and (value is not None or not response.content):
            return value
        said = self._clean(_said(value, response), token)
        if response.status_code in REFUSING | LOSING:
            kind = NoAnswer if response.status_code in LOSING else StoreError
            failure = kind(f"{function}: {said} (HTTP {response.status_code})")
            raise _Passing(failure, retry_after_s(response.headers))
        raise _refusal(function, response, value, said)

    def _address(self, function: str) -> str:
        return self._urls.get(function) or f"{self.url}/functions/v1/{function}"

    def _clean(self, text: str, token: str | None) -> str:
        return redact(text, (token,) if token else ())[:SHOWN]

    # ---- sessions: one for each question that is being asked, kept for the next one

    def _session(self) -> requests.Session:
        with self._lock:
            now = time.monotonic()
            stale = [session for session, since in self._resting if now - since > IDLE_S]
            self._resting = [each for each in self._resting if now - each[1] <= IDLE_S]
            resting = self._resting.pop()[0] if self._resting else None
        for session in stale:
            session.close()
        if resting is None:
            resting = requests.Session()
            # a proxy that the environment names is for other machines
            resting.trust_env = not is_loopback(self.url)
        return resting

    def _rest(self, session: requests.Session) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._resting.append((session, time.monotonic()))
                return
        session.close()


# ---- answers


def _innermost(error: BaseException) -> BaseException:
    """What the operating system said; the libraries above it repeat each other."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _json(response: requests.Response) -> Any:
    """None when it is none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _said(value: Any, response: requests.Response) -> str:
    """The message of an answer: ours, or a gateway's of one of several kinds."""
    fields = value if isinstance(value, dict) else {}
    named = next((str(fields[name]) for name in ("error", "message", "msg") if fields.get(name)), "")
    said = named or " ".join(response.text.split()) or response.reason or "no reason given"
    return str(said)


def _refusal(function: str, response: requests.Response, value: Any, said: str) -> Exception:
    """What an answer that stays the same means. A proxy or firewall refuses too: that says nothing about the task."""
    fields = value if isinstance(value, dict) else {}
    ours = fields.get("success") is False
    match response.status_code:
        case 400 if ours:
            field = fields.get("field")
            return InvalidInput(f"{said.removeprefix(f'{field}: ')} ({function})", field=field)
        case status if status == 401 or (status == 403 and fields.get("code") == UNKNOWN_TOKEN):
            return TokenRefused(
                f"{function}: the token was refused: {said}; give a valid one by SUPABASE_ACCESS_TOKEN, or renew it in "
                "its @FILE"
            )
        case 403 | 422 if ours:
            return RefusedWrite(f"{said} ({function})")
        case 500:
            return FunctionFailed(f"{function}: {said} (HTTP 500)")
        case 404 if fields.get("code") == "PT404":
            return TaskNotFound(f"{said} ({function})")
        case 404:
            told = f"{function}: there is no such function: {said}"
            return StoreError(f"{told}; deploy supabase/functions, or mend SUPABASE_URL")
        case 424 if ours:
            return DamagedUpload(f"{function}: {said}")
        case 409 if ours:
            return StaleClaim(f"{said} ({function})")
        case status if 300 <= status < 400:
            where = redact(response.headers.get("Location", "another address"))
            return StoreError(f"{function}: the address leads to {where}; set SUPABASE_URL to where it ends")
    hint = "" if ours else "; that is none of our functions: does SUPABASE_URL name the project?"
    return StoreError(f"{function}: {said} (HTTP {response.status_code}){hint}")


# ---- waits


def _wait_s(first_s: float, state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    growing: float = min(first_s * 2 ** (state.attempt_number - 1), LONGEST_WAIT_S) * random.uniform(0.75, 1.25)
    return max(growing, error.after_s if isinstance(error, _Passing) else 0.0)


def _say_so(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.debug("%s; asked again in %.1f s", error, state.upcoming_sleep)
