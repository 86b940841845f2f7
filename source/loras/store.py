"""`LoRAStore`: LoRAs of all tasks. `TaskLoRAs`: what one task asks it for, kept on disk while the task runs."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from source.errors import InvalidMedia
from source.loras.downloading import LoRADownload, Promise
from source.loras.folders import LoRAFolders
from source.loras.housekeeping import drop_forgotten_parts, make_room, set_ambiguous_aside
from source.loras.index import Book, DownloadIndex, Entry
from source.loras.inspection import check_lora
from source.loras.locks import Pin, exclusive
from source.loras.references import RemoteLoRA
from source.media.download import naming, proceed, shown, url_scheme
from source.settings import Settings

log = logging.getLogger(__name__)

FIELD = "activated_loras"
FIRST_RETRY_S = 1.0

#: told of a download: the file's name, the bytes that came, the bytes in all (0: not known)
OnDownload = Callable[[str, int, int], None]


def _nobody(name: str, received: int, total: int) -> None:
    """Nobody watches."""


class LoRAStore:
    """Shared by the tasks of a worker. Any thread may use it, and any number of workers may share the folders."""

    def __init__(self, settings: Settings, *, first_retry_s: float = FIRST_RETRY_S) -> None:
        self.settings = settings
        self.folders = LoRAFolders(settings)
        self.first_retry_s = first_retry_s

    def prepare(self) -> None:
        """Tidy up at the start of a worker. What cannot be tidied is logged: no reason not to work."""
        for tidy in (set_ambiguous_aside, drop_forgotten_parts):
            try:
                tidy(self.folders.root)
            except OSError as error:
                log.warning("the LoRA folder was not tidied: %s", error)
        with contextlib.suppress(OSError):
            self.make_room(0)

    def make_room(self, to_come: int) -> None:
        """Keep the downloads within LORA_CACHE_GB, `to_come` bytes more included."""
        make_room(self.folders.root, self.settings.lora_cache_gb, to_come)

    def for_task(self, check: Callable[[], None] = proceed, on_download: OnDownload = _nobody) -> TaskLoRAs:
        """`check` is called often while something is waited for and may raise to stop it."""
        return TaskLoRAs(self, check, on_download)


class TaskLoRAs:
    """The LoRAs of one task. What it was given stays on disk until `release`."""

    def __init__(self, store: LoRAStore, check: Callable[[], None], on_download: OnDownload) -> None:
        self._store = store
        self._check = check
        self._on_download = on_download
        self._pins: list[Pin] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """The task is over: its LoRAs may make room for others."""
        while self._pins:
            self._pins.pop().release()

    def resolve(self, reference: str, family: str) -> Path:
        """The absolute path of a LoRA, checked to be whole.

        `reference` is an http(s) URL, a file name in the folder of the model's `family` (`ModelInfo.lora_folder`), or
        an absolute path inside an allowed folder. A URL is downloaded once: a file that it was saved as, or that the
        user put under its name, is taken as it is.

        Raises InvalidInput, its message beginning with `activated_loras`, and Transient where a later try may succeed.
        """
        with naming(FIELD):
            self._check()
            reference = reference.strip()
            if url_scheme(reference) in ("http", "https"):
                return self._downloaded(RemoteLoRA.parse(reference), self._store.folders.of(family))
            return self._local(reference, family)

    # ---- files that are here

    def _local(self, reference: str, family: str) -> Path:
        path = self._store.folders.find(reference, family)
        ours = path.is_relative_to(self._store.folders.root)
        entry = DownloadIndex(path.parent).entries().get(path.name) if ours else None
        if entry is None or entry.own:
            self._check_own(path)
            return path
        return self._downloaded(RemoteLoRA(entry.url, entry.url), path.parent)

    def _check_own(self, path: Path) -> None:
        """A damaged file that the user put there is named, and left alone."""
        try:
            check_lora(self._store.folders.allowed(path), self._store.settings.max_lora_gb)
        except InvalidMedia as error:
            raise InvalidMedia(f"the LoRA {path} cannot be used: {error}. Replace or delete the file") from None

    # ---- files of URLs

    def _downloaded(self, remote: RemoteLoRA, folder: Path) -> Path:
        index = DownloadIndex(folder)
        if found := self._present(remote, folder, index):
            return found
        with exclusive(index.bookkeeping / f"{remote.key}.lock", self._check):
            return self._present(remote, folder, index) or self._download(remote, folder, index)

    def _present(self, remote: RemoteLoRA, folder: Path, index: DownloadIndex) -> Path | None:
        """The file of a URL when it is here and whole."""
        found = index.find(remote.identity)
        if found is None:
            return self._adopted(remote, folder, index)
        name, entry = found
        path = folder / name
        pin = Pin.place(path)
        if pin is None:
            return None
        self._pins.append(pin)
        if entry.own:
            self._check_own(path)
        elif not self._whole(path):
            self._pins.remove(pin)
            pin.release()
            return None
        self._note_use(name, path, index)
        return path

    def _whole(self, path: Path) -> bool:
        try:
            check_lora(path, self._store.settings.max_lora_gb)
        except InvalidMedia as error:
            log.warning("the downloaded LoRA %s is damaged and downloaded anew: %s", path, error)
            return False
        return True

    def _note_use(self, name: str, path: Path, index: DownloadIndex) -> None:
        """An intact file of another size is not the download any more: the user replaced it, so it is theirs."""
        with contextlib.suppress(OSError), index.locked(self._check) as book:
            if entry := book.entries.get(name):
                size = path.stat().st_size
                book.put(name, replace(entry, own=entry.own or size != entry.size_bytes, size_bytes=size))

    def _adopted(self, remote: RemoteLoRA, folder: Path, index: DownloadIndex) -> Path | None:
        """A file that the user put under the URL's name is taken for the URL's, as older versions did."""
        path = folder / remote.file_name()
        if not path.is_file():
            return None
        try:
            with index.locked(self._check) as book:
                if path.name in book.entries:  # it is another URL's
                    return None
                self._check_own(path)
                book.put(path.name, Entry(url=remote.identity, size_bytes=path.stat().st_size, own=True))
        except OSError:  # a folder that is only read; nothing is downloaded into it either
            self._check_own(path)
        log.info("using %s, which was there, for %s", path, shown(remote.url))
        return path

    def _download(self, remote: RemoteLoRA, folder: Path, index: DownloadIndex) -> Path:
        name = remote.file_name()
        log.info("downloading the LoRA %s from %s", name, shown(remote.url))
        download = LoRADownload(
            remote, index.bookkeeping, self._store.settings, self._check,
            make_room=self._store.make_room,
            on_bytes=lambda received, total: self._on_download(name, received, total),
            retry_wait_s=self._store.first_retry_s,
        )  # fmt: skip
        arrived = download.complete()
        return self._publish(remote, folder, index, download.part, arrived)

    def _publish(self, remote: RemoteLoRA, folder: Path, index: DownloadIndex, part: Path, arrived: Promise) -> Path:
        """Give the file its name. The index knows of it first: a file without an entry counts as the user's."""
        with index.locked(self._check) as book:
            path = folder / _free_name(remote, arrived.name, folder, book)
            book.put(path.name, Entry(url=remote.identity, size_bytes=arrived.size_bytes, sha256=arrived.sha256))
            os.replace(part, path)
            part.with_suffix(".json").unlink(missing_ok=True)
            if pin := Pin.place(path):
                self._pins.append(pin)
        return path


def _free_name(remote: RemoteLoRA, offered: str, folder: Path, book: Book) -> str:
    """The name the URL had, or its plain name, or that with a hash when another file has it."""
    for name, entry in book.entries.items():
        if entry.url == remote.identity:
            return name
    taken = {*book.entries, *(path.name for path in folder.iterdir())}
    plain = remote.file_name(offered)
    names = itertools.chain([plain], (remote.distinct_name(plain, number) for number in itertools.count(1)))
    return next(name for name in names if name not in taken)
