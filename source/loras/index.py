"""What a LoRA folder remembers of its downloads: `.downloads/index.json`, replaced whole at each change."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from source.loras.locks import exclusive
from source.media.download import proceed
from Wan2GP.media.files import publishing

log = logging.getLogger(__name__)

#: beside the files of each LoRA folder
BOOKKEEPING = ".downloads"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of a LoRA folder and the URL that stands for it."""

    #: `RemoteLoRA.identity`
    url: str
    size_bytes: int
    #: of what was downloaded, hexadecimal; "" for a file of the user's
    sha256: str = ""
    #: ISO 8601, UTC
    last_used_at: str = ""
    #: the user put it there (or replaced the download): it is used for the URL and never removed
    own: bool = False


class Book:
    """The entries while nobody else may change them. Every change is on disk at once."""

    def __init__(self, path: Path, entries: Mapping[str, Entry]) -> None:
        self._path = path
        self.entries = dict(entries)

    def put(self, name: str, entry: Entry) -> None:
        self.entries[name] = replace(entry, last_used_at=now())
        self._write()

    def remove(self, name: str) -> None:
        self.entries.pop(name, None)
        self._write()

    def _write(self) -> None:
        document = {"files": {name: asdict(entry) for name, entry in sorted(self.entries.items())}}
        with publishing(self._path) as partial:
            partial.write_text(json.dumps(document, indent=1), encoding="utf-8")


class DownloadIndex:
    """The downloads of one LoRA folder, by file name."""

    def __init__(self, folder: Path) -> None:
        self.bookkeeping = folder / BOOKKEEPING
        self._path = self.bookkeeping / "index.json"

    def entries(self) -> dict[str, Entry]:
        """As they are now. A damaged index counts as empty: then every file counts as the user's."""
        try:
            files = json.loads(self._path.read_text(encoding="utf-8"))["files"]
            return {name: Entry(**fields) for name, fields in files.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is damaged (%s); the files beside it count as yours now", self._path, error)
            return {}

    def find(self, url: str) -> tuple[str, Entry] | None:
        """(file name, entry) of a URL's identity."""
        return next(((name, entry) for name, entry in self.entries().items() if entry.url == url), None)

    @contextmanager
    def locked(self, check: Callable[[], None] = proceed) -> Iterator[Book]:
        """Raises OSError where the folder cannot be written."""
        with exclusive(self.bookkeeping / "index.lock", check):
            yield Book(self._path, self.entries())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
