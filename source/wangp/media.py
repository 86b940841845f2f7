"""The media of saved settings, where rows may name them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from source.errors import InvalidInput, InvalidMedia
from source.media.fetch import check_media
from source.media.places import Folders
from source.settings import Settings
from source.uploads import LocalUploads, receiving

#: what rows of a project may name
_ELSEWHERE = (
    "rows of a Supabase project name files by http(s) URL, or in a folder of MEDIA_DIRS that its workers share: put "
    "the files there and name them with --media, or give URLs"
)


class MediaOfRows:
    """Files that settings name. `dry_run` looks at them, and copies none."""

    def __init__(self, settings: Settings, *, dry_run: bool = False) -> None:
        self._settings = settings
        self._dry_run = dry_run
        self._folders = Folders.of(settings)

    def on_disk(self, path: Path, kind: str) -> str:
        """The path as a row may say it. Raises InvalidMedia."""
        check_media(path, kind)
        if not self._folders.allow(path):
            raise InvalidMedia(f"{path} cannot be named: {_ELSEWHERE}")
        return str(path.resolve())

    def unpacked(self, name: str, blocks: Iterator[bytes], kind: str) -> str:
        """A member of an archive, kept beside the database. Raises InvalidInput, InvalidMedia, DiskFull, OSError."""
        if self._settings.db_type == "supabase":
            raise InvalidInput(f"{name} lies in the zip file: {_ELSEWHERE}")
        if self._dry_run:
            for _ in blocks:
                pass
            return name
        uploads = LocalUploads(self._settings)
        with receiving(self._settings, uploads.folder) as reception:
            for block in blocks:
                reception.write(block)
            return reception.kept(name, kind, uploads).reference
