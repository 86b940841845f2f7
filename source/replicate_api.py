"""The door to Replicate: predictions of hosted models, by Replicate's own client.

What passes (429, 5xx, a broken connection) is asked again here, with growing waits or as long as Retry-After says; the
client's own retries cannot be cancelled, so it never sees such an answer. The token comes from the settings and stands
in one header; no message repeats a request.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import requests.auth
from replicate.client import Client
from replicate.exceptions import ReplicateError
from requests.utils import get_environ_proxies, select_proxy
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.wait import wait_exponential_jitter

from source.errors import EngineError, InvalidInput, ProgramUnavailable, Transient
from source.loras.references import same_origin
from source.media.download import DownloadRules, opened, received, refuse_malformed, refuse_status, url_scheme
from source.retry_after import retry_after_s
from source.settings import Settings
from Wan2GP.media import publishing

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Wait = Callable[[float], None]

CONNECT_S, SILENCE_S = 10.0, 60.0
ATTEMPTS = 4
FIRST_WAIT_S = 0.5
#: a longer Retry-After is for the worker's retry, which holds no thread
LONGEST_WAIT_S = 60.0
#: tries of a cancellation: its task must end soon
CANCEL_ATTEMPTS = 2
#: Replicate takes no shorter one
LEAST_DEADLINE_S = 5
UNFINISHED = frozenset({"starting", "processing"})


@dataclass(frozen=True)
class Prediction:
    """One run of a hosted model."""

    id: str
    status: str
    output: Any = None
    error: str | None = None
    #: steps done and steps in all, as far as its log says
    step: int = 0
    total: int = 0

    @property
    def unfinished(self) -> bool:
        return self.status in UNFINISHED


class _TryLater(Exception):
    """An answer that may be another one later."""

    def __init__(self, status: int, after_s: float) -> None:
        super().__init__(str(status))
        self.status = status
        self.after_s = after_s


class _Transport(httpx.HTTPTransport):
    """Raises for answers that pass, and lets no request wait without end."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        limits = dict.fromkeys(("read", "write", "pool"), SILENCE_S) | {"connect": CONNECT_S}
        request.extensions = {**request.extensions, "timeout": limits}
        response = super().handle_request(request)
        if response.status_code == 429 or response.status_code >= 500:
            response.close()
            raise _TryLater(response.status_code, retry_after_s(response.headers))
        return response


def is_public(reference: str) -> bool:
    """Whether this is an http(s) URL whose host is not, by its name, one of this machine or of a private network.

    What cannot be read as a URL is none: whoever fetches it refuses it, and says which field it is.
    """
    if url_scheme(reference) not in ("http", "https"):
        return False
    try:
        refuse_malformed(reference)
    except InvalidInput:
        return False
    host = (urlsplit(reference).hostname or "").rstrip(".")
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal"))


class Replicate:
    """Replicate for one task: use it as a context manager, on one thread.

    `wait` waits so many seconds and may raise to stop that. Raises ProgramUnavailable when no token is set.
    Every method raises Transient, EngineError, ProgramUnavailable (the token, the account) and InvalidInput.
    """

    def __init__(self, settings: Settings, wait: Wait) -> None:
        if settings.replicate_api_token is None or not settings.replicate_api_token.get_secret_value():
            raise ProgramUnavailable("magic_edit needs a token of Replicate; set REPLICATE_API_TOKEN for the worker")
        self._token = settings.replicate_api_token.get_secret_value()
        self._base_url = settings.replicate_base_url.rstrip("/")
        self._wait = wait
        self._transport = _Transport(proxy=_proxy_for(self._base_url))
        self._client = Client(
            api_token=self._token,
            base_url=self._base_url,
            transport=self._transport,
            # Replicate ends by itself what nobody asks for any more
            headers={"Cancel-After": f"{max(math.ceil(settings.replicate_timeout_s), LEAST_DEADLINE_S)}s"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._transport.close()

    def upload(self, path: Path) -> str:
        """Hand a file over. Returns the address by which a model finds it."""
        stored = self._ask(lambda: self._client.files.create(path))
        address = stored.urls.get("get")
        if not address:
            raise EngineError("Replicate took the file without saying where it is")
        return address

    def start(self, model: str, given: Mapping[str, Any]) -> Prediction:
        """Begin a prediction of `owner/name`."""
        return self._seen(lambda: self._client.models.predictions.create(model=model, input=dict(given), wait=False))

    def look(self, prediction_id: str) -> Prediction:
        """How a prediction is doing."""
        return self._seen(lambda: self._client.predictions.get(prediction_id))

    def cancel(self, prediction_id: str) -> None:
        """Stop a prediction. What does not succeed at once is left to its deadline."""
        pause = threading.Event()
        try:
            self._ask(lambda: self._client.predictions.cancel(prediction_id), CANCEL_ATTEMPTS, pause.wait)
        except (Transient, EngineError, InvalidInput, ProgramUnavailable) as error:
            log.warning("prediction %s was not cancelled; Replicate ends it at its deadline: %s", prediction_id, error)

    def save(self, output: Any, target: Path, rules: DownloadRules) -> Path:
        """A prediction's output as a file: an address, an object with one (`url`), something to read, or a list."""
        if isinstance(output, list | tuple) and output:
            output = output[0]
        address = output if isinstance(output, str) else getattr(output, "url", None)
        with publishing(target) as partial, partial.open("wb") as file:
            if isinstance(address, str):
                self._fetch(address, file.write, rules)
            elif callable(read := getattr(output, "read", None)):
                file.write(_bounded(read(), rules))
            else:
                raise EngineError(f"Replicate's output is of no known form ({type(output).__name__})")
        return target

    # ---- asking

    def _fetch(self, address: str, write: Callable[[bytes], Any], rules: DownloadRules) -> None:
        scheme = url_scheme(address)
        if scheme == "data":
            write(_bounded(_decoded(address), rules))
            return
        if scheme not in ("http", "https"):
            raise EngineError("Replicate's output is no address")
        own = _Bearer(self._token) if same_origin(address, self._base_url) else None
        with opened(address, rules, auth=own) as response:
            refuse_status(response.status_code, address)
            for chunk in received(response, address, rules):
                write(chunk)

    def _seen(self, ask: Callable[[], Any]) -> Prediction:
        found = self._ask(ask)
        progress = found.progress
        step, total = (progress.current, progress.total) if progress else (0, 0)
        return Prediction(found.id, found.status, found.output, found.error, step, total)

    def _ask(
        self, ask: Callable[[], Answer], attempts: int = ATTEMPTS, wait: Callable[[float], Any] | None = None
    ) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception_type((_TryLater, httpx.TransportError)),
            stop=lambda state: state.attempt_number >= attempts or _asked_for_s(state) > LONGEST_WAIT_S,
            wait=_pause_s,
            sleep=wait or self._wait,
            reraise=True,
        )
        try:
            return retrying(ask)
        except _TryLater as error:
            raise Transient(f"Replicate answered {error.status} again and again; it may work later") from None
        except httpx.HTTPError as error:
            raise Transient(f"Replicate could not be reached ({type(error).__name__})") from None
        except ReplicateError as error:
            raise _typed(error) from None
        except ValueError as error:
            raise EngineError(f"Replicate's answer was not understood ({type(error).__name__})") from None


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL, as requests finds it."""
    proxy = select_proxy(url, get_environ_proxies(url))
    return proxy if proxy and url_scheme(proxy) in ("http", "https") else None


class _Bearer(requests.auth.AuthBase):
    """The token, for files that Replicate's own server keeps."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


_growing = wait_exponential_jitter(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S, jitter=0.1)


def _asked_for_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return error.after_s if isinstance(error, _TryLater) else 0.0


def _pause_s(state: RetryCallState) -> float:
    return max(_growing(state), _asked_for_s(state))


def _typed(error: ReplicateError) -> Exception:
    """A refusal for people; what it says of the input is Replicate's own text."""
    said = error.detail or error.title or "no reason was given"
    match error.status:
        case 401 | 403:
            return ProgramUnavailable(f"Replicate refuses the token ({error.status}); check REPLICATE_API_TOKEN")
        case 402:
            return ProgramUnavailable(f"Replicate asks for payment (402): {said}")
        case 404:
            return EngineError(f"Replicate does not know it (404): {said}")
        case _:
            return InvalidInput(f"Replicate refuses the request ({error.status}): {said}")


def _decoded(address: str) -> bytes:
    """The bytes of a data: URI."""
    head, comma, content = address.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise binascii.Error
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        raise EngineError("Replicate's output is a damaged data: address") from None


def _bounded(content: bytes, rules: DownloadRules) -> bytes:
    if len(content) > rules.max_bytes:
        raise EngineError(f"Replicate's output is larger than {rules.max_text}")
    return content
