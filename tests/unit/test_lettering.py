"""Text of any kind becomes lines that fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image, ImageDraw

from source.media.lettering import MAX_CHARACTERS, font_for, plain, shortened, wrapped


def test_words_are_wrapped_and_none_is_lost() -> None:
    text = "a cat turns into a cup of coffee while the rain falls on the roof"
    lines = wrapped(text, 13, 120, 20)
    assert len(lines) > 2
    assert " ".join(lines) == text


def test_what_does_not_fit_ends_in_dots() -> None:
    lines = wrapped("one two three four five six seven eight nine ten", 13, 90, 2)
    assert len(lines) == 2
    assert lines[-1].endswith("…")
    assert shortened("a very long caption of a small panel", 13, 60).endswith("…")


@pytest.mark.parametrize(("width", "max_lines"), [(0, 3), (-5, 3), (5, 3), (100, 0)])
def test_without_room_there_is_no_text(width: int, max_lines: int) -> None:
    assert wrapped("words", 13, width, max_lines) == []


def test_control_characters_and_endless_texts_become_one_short_line() -> None:
    assert plain("one\n\ttwo\x00\u202e three") == "one two three"
    assert len(plain("x" * 1_000_000)) == MAX_CHARACTERS


@pytest.mark.parametrize(
    "text", ["猫がコーヒーになる" * 9, "кот становится чашкой", "قطة تصبح فنجان", "🐈 🦄", "\ud800"]
)
def test_every_script_can_be_drawn(text: str) -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (200, 100)))
    for number, line in enumerate(wrapped(text, 13, 180, 5)):
        draw.text((0, 17 * number), line, "white", font_for(line, 13))


@given(some.text(max_size=80), some.integers(20, 300), some.integers(1, 6))
def test_no_line_is_wider_than_its_place(text: str, width: int, max_lines: int) -> None:
    lines = wrapped(text, 13, width, max_lines)
    assert len(lines) <= max_lines
    for line in lines:
        assert font_for(plain(text), 13).getlength(line) <= width or len(line) <= 2
