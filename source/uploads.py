"""Files that a person gives for tasks to use: received, looked at, and kept where rows may name them.

On SQLite they lie in `public/uploads/` beside the database, and rows say `uploads/<digest>_<name>`: the same file twice
is one. `debug.py disk --clean` removes those that no unfinished task names, some time after they were last uploaded.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from source.disk import GB, free_bytes
from source.errors import DiskFull, InvalidMedia
from source.media.fetch import check_media
from source.settings import Settings
from source.storage import UPLOADS, sanitise_filename, sync

KINDS = ("image", "video", "audio")


class TooLarge(InvalidMedia):
    """The file is larger than what may be uploaded."""


@dataclass(frozen=True)
class Upload:
    """A file that rows may name."""

    #: what a parameter says
    reference: str
    name: str
    #: image, video or audio
    kind: str
    size_bytes: int


class Uploads(Protocol):
    """Where uploaded files are kept."""

    #: where a file is received on its way
    folder: Path

    def keep(self, path: Path, name: str) -> str:
        """Take a checked file, which may be gone then, and return what rows may call it. Raises OSError, StoreError."""


class LocalUploads:
    """A folder beside the database."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.public_dir.resolve() / UPLOADS

    def keep(self, path: Path, name: str) -> str:
        """Under a name of its content, in one rename."""
        target = self.folder / f"{_digest(path)[:12]}_{name}"
        sync(path)
        os.replace(path, target)
        sync(self.folder)
        return f"{UPLOADS}/{target.name}"

    def find(self, name: str) -> Path | None:
        """The file of that name."""
        path = self.folder / name
        return path if path.parent == self.folder and not name.startswith(".") and path.is_file() else None


class Reception:
    """One file on its way in, written block by block."""

    def __init__(self, file: BinaryIO, settings: Settings) -> None:
        self._file = file
        self._limit = settings.max_upload_mb * 1024 * 1024
        self._limit_text = f"{settings.max_upload_mb} MB (setting MAX_UPLOAD_MB)"
        self.size_bytes = 0

    def expect(self, size_bytes: int) -> None:
        """Raises TooLarge before the first byte came."""
        if size_bytes > self._limit:
            raise TooLarge(f"the file has {size_bytes / 1e6:.0f} MB; at most {self._limit_text} are taken")

    def write(self, block: bytes) -> None:
        """Raises TooLarge, OSError."""
        self.size_bytes += len(block)
        self.expect(self.size_bytes)
        self._file.write(block)

    def kept(self, filename: str, kind: str, uploads: Uploads) -> Upload:
        """Look at the whole file and keep it. Raises InvalidMedia for what is not an intact image, video or audio."""
        self._file.flush()
        path, name = Path(self._file.name), media_name(filename, kind)
        if not self.size_bytes:
            raise InvalidMedia(f"{name} is empty")
        try:
            check_media(path, kind)
        except InvalidMedia as error:
            raise InvalidMedia(str(error).replace(str(path), name).replace(path.name, name)) from None
        return Upload(uploads.keep(path, name), name, kind, self.size_bytes)


@contextmanager
def receiving(settings: Settings, folder: Path) -> Iterator[Reception]:
    """A place for a file, in a folder that is made. What was not kept is gone afterwards. Raises DiskFull, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if free_bytes(folder) < settings.min_free_gb * GB:
        raise DiskFull(f"less than {settings.min_free_gb:g} GB are free in {folder} (setting MIN_FREE_GB)")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".receiving-", delete=False) as file:
        path = Path(file.name)
        try:
            yield Reception(file, settings)  # type: ignore[arg-type]
        finally:
            path.unlink(missing_ok=True)


def media_name(filename: str, kind: str) -> str:
    """A safe name for a file of a kind. Raises InvalidMedia for one that says that it is something else."""
    name = sanitise_filename(Path(filename.replace("\\", "/")).name)
    guessed = mimetypes.guess_type(name)[0] or ""
    if not guessed.startswith(f"{kind}/") or guessed == "image/svg+xml":
        raise InvalidMedia(f"{name[:80]} has not the name of {'an' if kind[0] in 'ai' else 'a'} {kind}: it ends with "
                           f"{Path(name).suffix[:16] or 'nothing'}")  # fmt: skip
    return name


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
