"""Media that a task names become local files: a path stays where it is, a URL is downloaded. Then they are checked."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av
import requests

from source.errors import InvalidInput, InvalidMedia, Transient
from source.settings import Settings
from source.storage import LocalStorage, sanitise_filename
from Wan2GP.media import check_video, probe_image, publishing

CONNECT_TIMEOUT_S = 10.0
#: a download that is never silent for long ends here all the same
DOWNLOAD_LIMIT_S = 3600.0
MAX_REDIRECTS = 5
CHUNK_BYTES = 256 * 1024

#: real containers alone: a playlist could make the process read other files or addresses
_AUDIO_OPTIONS = {
    "format_whitelist": "mov,matroska,webm,avi,mp3,wav,flac,ogg,aac,aiff,asf,mpegts",
    "protocol_whitelist": "file",
}

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://|(data|javascript|blob):", re.IGNORECASE)
#: client errors that a later try may not meet: time-out, too early, too many requests
_PASSING = frozenset({408, 425, 429})


def _proceed() -> None:
    """Nobody wants the download stopped."""


class MediaFetcher:
    """Makes local files of the media that one task names.

    `folder` receives the downloads. `check` is called between chunks and may raise to stop a download.
    """

    def __init__(self, settings: Settings, folder: Path, check: Callable[[], None] = _proceed) -> None:
        self._settings = settings
        self._storage = LocalStorage(settings)
        self._folder = folder
        self._check = check

    def fetch(self, reference: str, *, kind: str, field: str) -> Path:
        """The local file of a path or http(s) URL, checked to be an `image`, `video` or `audio`.

        A path is absolute, relative to the working directory, or an output location (`files/…`).
        Raises InvalidMedia, its message beginning with `field`, and Transient where a later try may succeed.
        """
        with _naming(field):
            path = self.locate(reference)
            if not path.stat().st_size:
                raise InvalidMedia(f"the file {path.name} is empty (0 bytes)")
            check_media(path, kind)
        return path

    def locate(self, reference: str) -> Path:
        """The local file of a path or URL, unchecked. Raises InvalidMedia and Transient."""
        scheme = _SCHEME.match(reference)
        if scheme is None:
            return self._existing(reference)
        name = (scheme[1] or scheme[2]).lower()
        if name not in ("http", "https"):
            raise InvalidMedia(f"{name}: URLs are not read; give a file path or an http(s) URL")
        _refuse_malformed(reference)
        target = self._folder / _download_name(reference)
        if not target.exists():
            self._download(reference, target)
        return target

    def _existing(self, reference: str) -> Path:
        if not reference.strip() or "\0" in reference:
            raise InvalidMedia(f"{reference!r} is not a file path")
        try:
            path = Path(reference).expanduser()
            if path.is_file():
                return path.resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no such home
            reason = getattr(error, "strerror", None) or error
            raise InvalidMedia(f"{reference[:80]!r} is not a file path: {reason}") from None
        if path.is_dir():
            raise InvalidMedia(f"{path} is a folder; give a file")
        if path.parts[:1] == ("files",):
            return self._storage.resolve(reference)
        raise InvalidMedia(f"the file {path} does not exist (working directory: {Path.cwd()})")

    def _download(self, url: str, target: Path) -> None:
        timeouts = (CONNECT_TIMEOUT_S, self._settings.download_timeout_s)
        with publishing(target) as partial, _typed_failures(url), requests.Session() as session:
            session.max_redirects = MAX_REDIRECTS
            with session.get(url, stream=True, timeout=timeouts) as response:
                self._save(response, partial, url)

    def _save(self, response: requests.Response, partial: Path, url: str) -> None:
        _refuse_status(response.status_code, url)
        announced = response.headers.get("Content-Length", "")
        self._refuse_size(int(announced) if announced.isdigit() else 0, url)
        deadline = time.monotonic() + DOWNLOAD_LIMIT_S
        received = 0
        with partial.open("wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                self._check()
                received += len(chunk)
                self._refuse_size(received, url)
                if time.monotonic() > deadline:
                    raise InvalidMedia(f"downloading {shown(url)} takes more than {DOWNLOAD_LIMIT_S:g} s; given up")
                file.write(chunk)

    def _refuse_size(self, size_bytes: int, url: str) -> None:
        limit = self._settings.max_download_mb
        if size_bytes > limit * 1024 * 1024:
            raise InvalidMedia(f"{shown(url)} is larger than {limit} MB (setting max_download_mb)")


def check_media(path: Path, kind: str) -> None:
    """Raises InvalidMedia when the file is not an intact `image`, `video` or `audio`."""
    if kind == "image":
        probe_image(path)
    elif kind == "video":
        check_video(path)
    else:
        check_audio(path)


def check_audio(path: Path) -> None:
    """Raises InvalidMedia unless the file has a sound track whose beginning can be decoded."""
    try:
        with av.open(str(path), options=_AUDIO_OPTIONS, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise InvalidMedia(f"{path} has no sound track")
            next(container.decode(audio=0))
    except (av.error.InvalidDataError, av.error.ArgumentError, StopIteration):
        raise InvalidMedia(f"{path} is not a sound file, or is damaged; export it again") from None


def shown(url: str) -> str:
    """A URL as it may stand in messages: without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _refuse_malformed(url: str) -> None:
    """Raises InvalidMedia without the URL, whose secrets cannot be found when its parts cannot."""
    try:
        urlsplit(url)
    except ValueError as error:
        raise InvalidMedia(f"the URL is malformed: {error}") from None


def _download_name(url: str) -> str:
    """A safe name, different for different URLs."""
    name = sanitise_filename(Path(unquote(urlsplit(url).path)).name)[-80:]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}_{name}"


def _refuse_status(status: int, url: str) -> None:
    if status >= 500 or status in _PASSING:
        raise Transient(f"the server answered {status} for {shown(url)}; it may work later")
    if status != 200:
        raise InvalidMedia(f"the server answered {status} for {shown(url)}; check the URL")


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


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """Put the field's name before the message of a failure."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidMedia(str(error), field=field) from error
    except Transient as error:
        raise Transient(f"{field}: {error}") from error
