"""One LoRA on its way: continued where it was cut off, checked against what the server announced."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from email.message import Message
from pathlib import Path, PurePosixPath

import requests
from requests.auth import AuthBase
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from source.errors import DiskFull, InvalidMedia, Transient
from source.loras.inspection import GB, PREFIX_BYTES, check_lora, refuse_foreign
from source.loras.references import HUGGING_FACE, RemoteLoRA, same_origin
from source.media.download import DownloadRules, opened, received, refuse_status, shown
from source.media.places import Reach
from source.settings import Settings

ATTEMPTS = 4
MAX_RETRY_WAIT_S = 20.0
#: even a LoRA of 50 GB on a slow line
LIMIT_S = 6 * 3600.0
#: left free on the disk, for the results of tasks
RESERVE_BYTES = 256 * 1024**2
_READ_BYTES = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

#: told of the bytes that are there and the bytes there will be (0: not known)
OnBytes = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What the server says of a file."""

    #: 0: it does not say
    size_bytes: int = 0
    #: "" where it does not say
    sha256: str = ""
    #: a strong ETag or a date, for If-Range; "": a download cannot be continued
    validator: str = ""
    #: the name it gives the file
    name: str = ""

    @classmethod
    def of(cls, response: requests.Response) -> Promise:
        """From the answer, and from the redirects before it: hubs announce the file there (X-Linked-…)."""
        linked: dict[str, str] = {}
        for answer in (*response.history, response):
            linked |= {
                name: answer.headers[name] for name in ("X-Linked-Size", "X-Linked-ETag") if name in answer.headers
            }
        digest = linked.get("X-Linked-ETag", "").removeprefix("W/").strip('"')
        size = linked.get("X-Linked-Size", "")
        return cls(
            size_bytes=int(size) if size.isdigit() else _announced(response),
            sha256=digest if _SHA256.fullmatch(digest) else "",
            validator=_validator(response),
            name=_offered_name(response),
        )


class Bearer(AuthBase):
    """A token in the Authorization header. The HTTP library drops it where a redirect leads to another host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True)
class Source:
    """Where and how one file is asked for."""

    url: str
    auth: AuthBase | None
    hints: dict[int, str]

    @classmethod
    def of(cls, remote: RemoteLoRA, settings: Settings) -> Source:
        """The hub's files come from `hf_endpoint`, which alone is told `hf_token`."""
        url, endpoint = remote.url, settings.hf_endpoint.rstrip("/")
        if url.startswith(f"{HUGGING_FACE}/"):
            url = endpoint + url.removeprefix(HUGGING_FACE)
        if not same_origin(url, endpoint):
            login = "the file needs a login; give a URL that needs none, or put the file into the LoRA folder yourself"
            return cls(url, None, {401: login, 403: login})
        if settings.hf_token:
            refused = "HF_TOKEN was sent: does it have access to the repository, and does the repository exist?"
            return cls(url, Bearer(settings.hf_token.get_secret_value()), {401: refused, 403: refused})
        missing = "the repository is private, gated or does not exist; set HF_TOKEN to a token that may read it"
        return cls(url, None, {401: missing, 403: missing})


class LoRADownload:
    """Brings one file into `folder` as `<key>.part`; the caller gives it its name.

    Nobody else may work on the same key. `make_room` is told the bytes to come before they come.
    """

    def __init__(
        self, remote: RemoteLoRA, folder: Path, settings: Settings, check: Callable[[], None], *,
        make_room: Callable[[int], None], on_bytes: OnBytes, retry_wait_s: float,
    ) -> None:  # fmt: skip
        self.part = folder / f"{remote.key}.part"
        self._promise_file = folder / f"{remote.key}.json"
        self._source = Source.of(remote, settings)
        self._max_gb = settings.max_lora_gb
        self._rules = DownloadRules(
            timeout_s=settings.download_timeout_s,
            max_bytes=int(settings.max_lora_gb * GB),
            max_text=f"{settings.max_lora_gb:g} GB (setting max_lora_gb)",
            check=check,
            limit_s=LIMIT_S,
            reach=Reach.of(settings),
        )
        self._make_room = make_room
        self._on_bytes = on_bytes
        self._retry_wait_s = retry_wait_s

    def complete(self) -> Promise:
        """The whole file is in `part`, checked; what is returned has its true size and checksum.

        Raises InvalidMedia for what no later try can mend, and Transient otherwise: what came is kept for that try.
        """
        self.part.parent.mkdir(parents=True, exist_ok=True)
        attempts = Retrying(
            retry=retry_if_exception_type(Transient),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(
                multiplier=self._retry_wait_s, max=MAX_RETRY_WAIT_S, jitter=self._retry_wait_s / 4
            ),
            sleep=self._pause,
            reraise=True,
        )
        return attempts(self._attempt)

    def forget(self) -> None:
        """Drop what came."""
        self.part.unlink(missing_ok=True)
        self._promise_file.unlink(missing_ok=True)

    def _attempt(self) -> Promise:
        earlier, there = self._earlier()
        if earlier.size_bytes and there == earlier.size_bytes:
            return self._checked(earlier, continued=True)
        with opened(self._source.url, self._rules, _headers(earlier, there), self._source.auth) as response:
            usable = (200, 206, 416) if there else (200, 206)
            refuse_status(response.status_code, self._source.url, accepted=usable, hints=self._source.hints)
            if there and not self._continues(response, earlier, there):
                self.forget()
                if response.status_code != 200:
                    raise Transient(f"{self._shown} changed on the server; it is downloaded anew")
                there = 0
            promise = earlier if there else Promise.of(response)
            self._receive(response, promise, there)
        return self._checked(promise, continued=there > 0)

    @property
    def _shown(self) -> str:
        return shown(self._source.url)

    def _earlier(self) -> tuple[Promise, int]:
        """What was promised to an earlier attempt, and how many bytes of it are there. Useless remains are dropped."""
        try:
            promise = Promise(**json.loads(self._promise_file.read_text(encoding="utf-8")))
            there = self.part.stat().st_size
        except (OSError, ValueError, TypeError):
            promise, there = Promise(), 0
        if there and promise.validator and (not promise.size_bytes or there <= promise.size_bytes):
            return promise, there
        self.forget()
        return Promise(), 0

    @staticmethod
    def _continues(response: requests.Response, earlier: Promise, there: int) -> bool:
        """Whether the answer begins where the part ends, and is of the same file."""
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code != 206 or span is None or int(span[1]) != there:
            return False
        if earlier.size_bytes not in (0, int(span[2])):
            return False
        promise = Promise.of(response)
        return promise.validator == earlier.validator and promise.sha256 in ("", earlier.sha256)

    def _receive(self, response: requests.Response, promise: Promise, there: int) -> None:
        try:
            self._save(response, promise, there)
        except InvalidMedia:
            self.forget()
            raise

    def _save(self, response: requests.Response, promise: Promise, there: int) -> None:
        to_come = promise.size_bytes - there
        if promise.size_bytes <= self._rules.max_bytes:  # a larger one is refused below
            self._make_room(to_come)
            self._refuse_full_disk(to_come)
        if not there:
            self.forget()
            self._promise_file.write_text(json.dumps(asdict(promise)), encoding="utf-8")
        looked = there > 0
        with self.part.open("ab") as file:
            for chunk in received(response, self._source.url, self._rules, already=there):
                file.write(chunk)
                there += len(chunk)
                if not looked and there > PREFIX_BYTES:
                    file.flush()
                    self._refuse_foreign()
                    looked = True
                self._on_bytes(there, promise.size_bytes)
            file.flush()
            os.fsync(file.fileno())

    def _refuse_foreign(self) -> None:
        try:
            refuse_foreign(self.part)
        except InvalidMedia as error:
            raise InvalidMedia(f"{self._shown} gave something else: {error}") from None

    def _refuse_full_disk(self, to_come: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if to_come + RESERVE_BYTES > free:
            raise DiskFull(
                f"{self._shown} needs {to_come / GB:.1f} GB and the disk of {self.part.parent.parent} has "
                f"{free / GB:.1f} GB free; make room there, or let LORA_CACHE_GB limit what is kept"
            )

    def _checked(self, promise: Promise, *, continued: bool) -> Promise:
        """Damage in a continued download may come from its parts, so it is begun anew; in a fresh one it is final."""
        size = self.part.stat().st_size
        if promise.size_bytes and size < promise.size_bytes:
            raise Transient(f"{self._shown} ended after {size:,} of {promise.size_bytes:,} bytes")
        digest = self._digest()
        try:
            if promise.size_bytes not in (0, size):
                raise InvalidMedia(f"it has {size:,} bytes and {promise.size_bytes:,} were announced")
            if promise.sha256 not in ("", digest):
                raise InvalidMedia("its checksum is not the one that the server announced")
            check_lora(self.part, self._max_gb)
        except InvalidMedia as error:
            self.forget()
            if continued:
                raise Transient(f"{self._shown} was continued and is damaged: {error}") from None
            raise InvalidMedia(f"{self._shown} cannot be used: {error}") from None
        return replace(promise, size_bytes=size, sha256=digest)

    def _digest(self) -> str:
        digest = hashlib.sha256()
        with self.part.open("rb") as file:
            while block := file.read(_READ_BYTES):
                self._rules.check()
                digest.update(block)
        return digest.hexdigest()

    def _pause(self, seconds: float) -> None:
        """Wait for the next attempt, and hear of a cancel meanwhile."""
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0:
            self._rules.check()
            threading.Event().wait(min(left, 0.2))
        self._rules.check()


def _headers(earlier: Promise, there: int) -> dict[str, str]:
    """The bytes as they are, from where the part ends, if the file is still the same (RFC 9110, 13.1.5 and 14.2)."""
    headers = {"Accept-Encoding": "identity"}
    return headers | ({"Range": f"bytes={there}-", "If-Range": earlier.validator} if there else {})


def _announced(response: requests.Response) -> int:
    if span := _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "")):
        return int(span[2])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and not _encoded(response) else 0


def _validator(response: requests.Response) -> str:
    if _encoded(response):
        return ""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "") if not etag else ""


def _encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity") != "identity"


def _offered_name(response: requests.Response) -> str:
    message = Message()
    message["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    return PurePosixPath((message.get_filename() or "").replace("\\", "/")).name
