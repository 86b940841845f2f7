"""The media of saved settings, where rows may name them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from source.media.fetch import check_media
from source.media.places import Folders
from source.settings import Settings
from source.uploads import Uploads, receiving

_BLOCK_BYTES = 1 << 20


class MediaOfRows:
    """Files that settings name. Without `uploads` they are looked at, and none is copied."""

    def __init__(self, settings: Settings, uploads: Uploads | None = None) -> None:
        self._settings = settings
        self._uploads = uploads
        self._folders = Folders.of(settings)

    def on_disk(self, path: Path, kind: str) -> str:
        """What a row may say of a file: its path, or where it was uploaded, if workers of others are to read it.

        Raises InvalidMedia, DiskFull, StoreError, OSError.
        """
        check_media(path, kind)
        if self._uploads is None or self._folders.allow(path):
            return str(path.resolve())
        return self._kept(path.name, _blocks(path), kind, self._uploads)

    def unpacked(self, name: str, blocks: Iterator[bytes], kind: str) -> str:
        """What a row may say of a member of an archive, which is kept beside the database or in the project.

        Raises InvalidInput, InvalidMedia, DiskFull, StoreError, OSError.
        """
        if self._uploads is not None:
            return self._kept(name, blocks, kind, self._uploads)
        for _ in blocks:  # whether it can be read
            pass
        return name

    def _kept(self, name: str, blocks: Iterator[bytes], kind: str, uploads: Uploads) -> str:
        with receiving(self._settings, uploads.folder) as reception:
            for block in blocks:
                reception.write(block)
            return reception.kept(name, kind, uploads).reference


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
