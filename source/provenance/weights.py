"""SHA-256 of the files of weights that tasks used: worked out beside the GPU, each file once.

What is known is kept in `.sha256.json` in the folder of checkpoints: path -> bytes, time of change, digest.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from Wan2GP.media import publishing
from Wan2GP.media.digest import FileDigests, state_of

log = logging.getLogger(__name__)

BOOK = ".sha256.json"

#: file -> its digest; a file that cannot be read is left out
Digests = dict[Path, str]
#: names the files; may raise OSError
Files = Callable[[], Sequence[Path]]


class WeightDigests:
    """Reads weights on a thread of its own, while there are any to read. Any thread may ask."""

    def __init__(self, checkpoints: Path) -> None:
        self._book = checkpoints / BOOK
        self._digests = FileDigests()
        self._asked: deque[tuple[Files, Future[Digests]]] = deque()
        self._lock = threading.Lock()
        self._at_work = False

    def begin(self, files: Files) -> Future[Digests]:
        """Have these files read; the answer comes when it is their turn. They are named on that thread too."""
        answer: Future[Digests] = Future()
        with self._lock:
            self._asked.append((files, answer))
            if not self._at_work:
                self._at_work = True
                threading.Thread(target=self._work, name="weight-digests", daemon=True).start()
        return answer

    def _work(self) -> None:
        self._recall()
        while (asked := self._next()) is not None:
            files, answer = asked
            before = len(self._digests.known())
            try:
                found = self._read(files)
            except Exception:
                log.exception("the digests of some weights are not known")
                found = {}  # a task waits for an answer
            if len(self._digests.known()) > before:
                self._keep()
            answer.set_result(found)

    def _next(self) -> tuple[Files, Future[Digests]] | None:
        with self._lock:
            self._at_work = bool(self._asked)
            return self._asked.popleft() if self._asked else None

    def _read(self, files: Files) -> Digests:
        found: Digests = {}
        for file in _named(files):
            try:
                found[file] = self._digests.of(file)
            except OSError as error:
                log.warning("the digest of %s is not known: %s", file, error)
        return found

    def _recall(self) -> None:
        for state, digest in _entries(self._book).items():
            self._digests.remember(state, digest)

    def _keep(self) -> None:
        """Write down what is known, that of other workers too. A folder that cannot be written is no reason to fail."""
        if not self._book.parent.is_dir():
            return
        known = _entries(self._book) | self._digests.known()
        latest = {path: [size, changed, digest] for (path, size, changed), digest in known.items() if _same(path, size)}
        try:
            with publishing(self._book) as partial:
                partial.write_text(json.dumps(latest, indent=1, sort_keys=True), encoding="utf-8")
        except OSError as error:
            log.debug("the digests were not written down: %s", error)


def known_digest(checkpoints: Path, path: Path) -> str | None:
    """What is written down of a file that has not changed since; None when nothing is. The file is not read."""
    try:
        return _entries(checkpoints / BOOK).get(state_of(path))
    except (OSError, ValueError):  # the name may come from anywhere
        return None


def _named(files: Files) -> Sequence[Path]:
    try:
        return files()
    except OSError as error:
        log.warning("which files the weights lie in is not known: %s", error)
        return ()


def _same(path: str, size: int) -> bool:
    """Whether a file is there, and of this size: entries of others are dropped."""
    try:
        return Path(path).stat().st_size == size
    except (OSError, ValueError):
        return False


def _entries(book: Path) -> dict[tuple[str, int, int], str]:
    """What is written down; nothing when that is missing or damaged."""
    try:
        written = json.loads(book.read_text(encoding="utf-8"))
        return {(path, size, changed): str(digest) for path, (size, changed, digest) in written.items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}
