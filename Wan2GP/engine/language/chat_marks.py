"""The marks that give a chat its structure, and the places that pictures have in it. No torch here."""

from __future__ import annotations

import re

from Wan2GP.errors import EngineError

#: where a picture stands in a chat of the Qwen2-VL line
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"

_MARK = re.compile(r"<\|[^|<>]*\|>")


def without_marks(text: str) -> str:
    """The text without the marks of a chat, those too that come about when one inside them is left out."""
    while (left := _MARK.sub("", text)) != text:
        text = left
    return text.strip()


def with_places(ids: list[int], mark: int, counts: list[int], model: str) -> list[int]:
    """Token ids with each mark of a picture repeated: once for each token of that picture.

    Raises EngineError, naming the model, where there are not as many marks as pictures.
    """
    if ids.count(mark) != len(counts):
        raise EngineError(f"{model}: its chat template has {ids.count(mark)} places for {len(counts)} pictures")
    left = iter(counts)
    return [each for token in ids for each in ([token] * next(left) if token == mark else [token])]
