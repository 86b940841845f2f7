"""Still images: probing, reading, writing, resizing. Arrays are RGB, (H, W, 3), uint8."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from Wan2GP.errors import InvalidInput, InvalidMedia
from Wan2GP.media.files import content_kind, publishing, require_file

#: one picture: (H, W, 3) uint8, RGB
Frame: TypeAlias = NDArray[np.uint8]

#: larger pictures are refused before they are decoded
MAX_PIXELS = 64_000_000

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_EXIF_ORIENTATION = 0x0112
_TURNED = range(2, 9)
_SIDEWAYS = range(5, 9)


@dataclass(frozen=True)
class ImageInfo:
    """What a picture is. Width and height are in pixels, after the camera's orientation mark is applied."""

    path: Path
    width: int
    height: int
    format: str


def probe_image(path: str | Path) -> ImageInfo:
    """Describe a picture from its header, without decoding it.

    Raises InvalidMedia for a file that is missing, empty, not a picture, or over 64 megapixels.
    """
    with _opened(Path(path)) as image:
        width, height = image.size
        if _orientation(image) in _SIDEWAYS:
            width, height = height, width
        return ImageInfo(Path(path), width, height, (image.format or "").lower())


def read_image(path: str | Path) -> Frame:
    """Decode a picture, upright, as RGB. Transparent parts become white, 16-bit grey becomes 8-bit.

    Raises InvalidMedia as `probe_image` does, and for damaged data.
    """
    with _opened(Path(path)) as image:
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) in _TURNED else image
        return np.array(_as_rgb(upright), dtype=np.uint8)


def read_mask(path: str | Path) -> NDArray[np.uint8]:
    """Decode a picture, upright, as one channel of brightness (H, W): 0.299 R + 0.587 G + 0.114 B. Transparent parts
    become black: nothing is drawn there.

    Raises InvalidMedia as `read_image` does.
    """
    with _opened(Path(path)) as image:
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) in _TURNED else image
        return np.array(_as_rgb(upright, "black").convert("L"), dtype=np.uint8)


def write_image(path: str | Path, frame: Frame) -> Path:
    """Write RGB `frame` as PNG or JPEG (quality 95), by the suffix of `path`; never leaves half a file."""
    path = Path(path)
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InvalidInput(f"cannot write {path}: use a name that ends in {', '.join(_SUFFIXES)}")
    with publishing(path) as partial:
        Image.fromarray(frame).save(partial, format=kind, quality=95)
    return path


def resize(frame: Frame, size: tuple[int, int]) -> Frame:
    """`frame` at `size` = (width, height) in pixels, stretched: no letterbox, no crop.

    By area averaging when it shrinks (no aliasing), by Lanczos when either side grows.
    """
    width, height = size
    if width < 1 or height < 1:
        raise InvalidInput(f"cannot resize to {width}x{height}: both sides must be at least 1 pixel")
    old_height, old_width = frame.shape[:2]
    if (old_width, old_height) == (width, height):
        return frame
    shrinks = width <= old_width and height <= old_height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(frame, (width, height), interpolation=method), dtype=np.uint8)


def snap_size(width: int, height: int, block: int = 16) -> tuple[int, int]:
    """Both sides floored to a multiple of `block` pixels: 902x508 -> 896x496.

    The one place for this rule. Raises InvalidInput when a side is smaller than one block.
    """
    if width < block or height < block:
        raise InvalidInput(
            f"{width}x{height} is too small: each side needs at least {block} pixels", field="resolution"
        )
    return width // block * block, height // block * block


def _orientation(image: Image.Image) -> object:
    """The camera's orientation mark (1 to 8); None without one that can be read."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION)
    except SyntaxError:  # Pillow's word for a damaged header; the picture is not worse for it
        return None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    require_file(path)
    with _translating(path), _open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise InvalidMedia(
                f"{path} is {image.width}x{image.height}, over the limit of {MAX_PIXELS // 1_000_000} megapixels; "
                "scale it down"
            )
        yield image


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise InvalidMedia(
            f"{path} is not an image: it holds {content_kind(path)}; give a PNG, JPEG, WebP, BMP, TIFF or GIF"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidMedia(f"{path} is too large to open safely ({error}); scale it down") from error


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    """Turn Pillow's complaints about the content of `path` into InvalidMedia; faults of the disk pass through."""
    try:
        yield
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidMedia(f"{path} is damaged and cannot be decoded ({error}); export it again") from error


def _as_rgb(image: Image.Image, ground: str = "white") -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, ground), layer).convert("RGB")
    return image.convert("RGB")
