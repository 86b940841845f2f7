"""Text in pictures: a font that is always there, lines that fit, and any characters at all."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: fonts of many systems with more characters than the one that comes with Pillow
_WIDER = ("NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")
_LAST_LATIN = "\u024f"
_PUNCTUATION = frozenset("–—‘’“”…·×")
#: of a longer text no more would ever be shown
MAX_CHARACTERS = 600


@lru_cache(maxsize=32)
def font(size: int, *, wide: bool = False) -> Font:
    """Pillow's own font; with `wide` one of the system that has other scripts too, where there is one."""
    for name in _WIDER if wide else ():
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def font_for(text: str, size: int) -> Font:
    """The font for a text. Characters that no font here has show as boxes."""
    return font(size, wide=any(letter > _LAST_LATIN and letter not in _PUNCTUATION for letter in text))


def plain(text: str) -> str:
    """One line of characters that can be drawn: white space becomes single spaces, control characters go."""
    line = " ".join(text[: 2 * MAX_CHARACTERS].split())[:MAX_CHARACTERS]
    return "".join(letter for letter in line if not unicodedata.category(letter).startswith("C"))


def wrapped(text: str, size: int, width: int, max_lines: int) -> list[str]:
    """A text in lines of at most `width` pixels; what does not fit into `max_lines` ends in "…"."""
    if max_lines < 1 or width < size:
        return []
    line = plain(text)
    kind = font_for(line, size)
    lines: list[str] = []
    for word in _pieces(line, kind, width):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and kind.getlength(joined) <= width:
            lines[-1] = joined
        elif len(lines) == max_lines:
            return [*lines[:-1], _ended(lines[-1], kind, width)]
        else:
            lines.append(word)
    return lines


def shortened(text: str, size: int, width: int) -> str:
    """One line of at most `width` pixels."""
    return next(iter(wrapped(text, size, width, 1)), "")


def _pieces(line: str, kind: Font, width: int) -> Iterator[str]:
    """The words; one that is wider than a line, as in scripts without spaces, in parts."""
    for word in line.split():
        rest = word
        while kind.getlength(rest) > width and len(rest) > 1:
            fitting = next((n for n in range(len(rest) - 1, 1, -1) if kind.getlength(rest[:n]) <= width), 1)
            yield rest[:fitting]
            rest = rest[fitting:]
        yield rest


def _ended(line: str, kind: Font, width: int) -> str:
    while line and kind.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip()}…"
