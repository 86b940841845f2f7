"""The comment that other programs leave in a picture or video: a tag of the container, a text chunk, or EXIF."""

from __future__ import annotations

from pathlib import Path

import av
from PIL import Image, UnidentifiedImageError

from Wan2GP.errors import InvalidMedia
from Wan2GP.media.files import require_file

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
VIDEOS = frozenset({".mp4", ".mov", ".mkv"})
#: EXIF 2.32: the tag of the EXIF part, UserComment in it, and what its first 8 bytes say of its letters
_EXIF, _USER_COMMENT, _MARK_BYTES = 0x8769, 0x9286, 8
_LETTERS = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16le"}
_COMMENT = "comment"


def comment_of(path: str | Path) -> str | None:
    """The comment; None when there is none. Raises InvalidMedia for a file that is no picture or video."""
    path = Path(path)
    require_file(path)
    try:
        return _of_picture(path) if path.suffix.lower() in PICTURES else _of_video(path)
    except (av.error.FFmpegError, UnidentifiedImageError, SyntaxError, OSError) as error:
        raise InvalidMedia(f"{path.name} cannot be read: {error}") from None


def _of_video(path: Path) -> str | None:
    with av.open(str(path), metadata_errors="ignore") as container:
        tags = {name.lower(): text for name, text in container.metadata.items()}
    return tags.get(_COMMENT)


def _of_picture(path: Path) -> str | None:
    with Image.open(path) as picture:
        texts = {str(name).lower(): text for name, text in getattr(picture, "text", {}).items()}
        bare = picture.getexif().get_ifd(_EXIF).get(_USER_COMMENT) if picture.format != "PNG" else None
    if texts.get(_COMMENT):
        return str(texts[_COMMENT])
    if isinstance(bare, str):
        return bare
    return None if bare is None else _decoded(bytes(bare))


def _decoded(bare: bytes) -> str:
    letters = _LETTERS.get(bare[:_MARK_BYTES])
    return bare.decode("utf-8", "replace") if letters is None else bare[_MARK_BYTES:].decode(letters, "replace")
