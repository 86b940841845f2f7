"""Media that a task names become local files: a path stays where it is, a URL is downloaded. Then they are checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av

from source.errors import InvalidMedia
from source.media.download import (
    DownloadRules,
    naming,
    opened,
    proceed,
    received,
    refuse_malformed,
    refuse_status,
    url_scheme,
)
from source.media.places import Folders, Reach
from source.settings import Settings
from source.storage import FILES, UPLOADS, LocalStorage, Storage, sanitise_filename
from Wan2GP.media import check_video, probe_image, publishing

#: real containers alone: a playlist could make the process read other files or addresses
_AUDIO_OPTIONS = {
    "format_whitelist": "mov,matroska,webm,avi,mp3,wav,flac,ogg,aac,aiff,asf,mpegts",
    "protocol_whitelist": "file",
}


class MediaFetcher:
    """Makes local files of the media that one task names.

    `folder` receives the downloads. `check` is called between chunks and may raise to stop a download. `storage` knows
    the files and addresses of outputs. `own` are further folders of the task: those of MEDIA_DIRS and these alone are
    read where rows come from others. `reader` is the task, whose owner's rights count for outputs.
    """

    def __init__(
        self, settings: Settings, folder: Path, check: Callable[[], None] = proceed, *,
        storage: Storage | None = None, own: Sequence[Path] = (), reader: str | None = None,
    ) -> None:  # fmt: skip
        self._storage = storage or LocalStorage(settings)
        self._reader = reader
        self.folder = folder
        self.folders = Folders.of(settings, folder, *own)
        self._rules = DownloadRules(
            timeout_s=settings.download_timeout_s,
            max_bytes=settings.max_download_mb * 1024 * 1024,
            max_text=f"{settings.max_download_mb} MB (setting max_download_mb)",
            check=check,
            reach=Reach.of(settings),
        )

    def fetch(self, reference: str, *, kind: str, field: str) -> Path:
        """The local file of a path or http(s) URL, checked to be an `image`, `video` or `audio`.

        A path is absolute, relative to the working directory, an output location (`files/…`), or an upload
        (`uploads/…`).
        Raises InvalidMedia, its message beginning with `field`, and Transient where a later try may succeed.
        """
        with naming(field):
            path = self.locate(reference)
            if not path.stat().st_size:
                raise InvalidMedia(f"the file {path.name} is empty (0 bytes)")
            check_media(path, kind)
        return path

    def locate(self, reference: str) -> Path:
        """The local file of a path or URL, unchecked. Raises InvalidMedia and Transient."""
        scheme = url_scheme(reference)
        if scheme is None:
            return self._existing(reference)
        if scheme not in ("http", "https"):
            raise InvalidMedia(f"{scheme}: URLs are not read; give a file path or an http(s) URL")
        refuse_malformed(reference)
        target = self.folder / _download_name(reference)
        if target.exists():
            return target
        address, rules = self._storage.address(reference, self._reader), self._rules
        if address and (kept := self._storage.kept(reference, self.folder)):
            return kept
        if address and address != reference and rules.reach is not None:
            rules = replace(rules, reach=rules.reach.beside(address))
        self._download(address or reference, target, rules)
        return target

    def _existing(self, reference: str) -> Path:
        if not reference.strip() or "\0" in reference:
            raise InvalidMedia(f"{reference!r} is not a file path")
        try:
            path = self.folders.check(Path(reference).expanduser())
            if path.is_file():
                return path.resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no such home
            reason = getattr(error, "strerror", None) or error
            raise InvalidMedia(f"{reference[:80]!r} is not a file path: {reason}") from None
        if path.is_dir():
            raise InvalidMedia(f"{path} is a folder; give a file")
        if path.parts[:1] in ((FILES,), (UPLOADS,)):
            return self._storage.resolve(reference)
        raise InvalidMedia(f"the file {path} does not exist (working directory: {Path.cwd()})")

    @staticmethod
    def _download(url: str, target: Path, rules: DownloadRules) -> None:
        with publishing(target) as partial, opened(url, rules) as response:
            refuse_status(response.status_code, url)
            with partial.open("wb") as file:
                for chunk in received(response, url, rules):
                    file.write(chunk)


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


def _download_name(url: str) -> str:
    """A safe name, different for different URLs."""
    name = sanitise_filename(Path(unquote(urlsplit(url).path)).name)[-80:]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}_{name}"
