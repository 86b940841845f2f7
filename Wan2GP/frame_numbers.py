"""Strings that choose frames, as front ends write them. No torch here."""

from __future__ import annotations

from Wan2GP.errors import InvalidInput


def keep_from_source(text: str, num_frames: int) -> int:
    """How many frames of a source video are kept: "" all, "12" the first twelve, "-3" all but the last three.

    Raises InvalidInput when nothing would be left.
    """
    field = "keep_frames_video_source"
    wanted = _whole(text, field) if text.strip() else num_frames
    kept = num_frames + wanted if wanted < 0 else min(wanted, num_frames)
    if kept < 1:
        raise InvalidInput(f"{text!r} leaves none of the {num_frames} frames of video_source", field=field)
    return kept


def listed_frames(text: str, num_frames: int) -> frozenset[int] | None:
    """Which frames of a control video are used, 0-based: "1 5:9 -1" are 1-based numbers and inclusive ranges, negative
    ones counted from the end. None: all. Frames past the end are left out."""
    field = "keep_frames_video_guide"
    if not text.strip():
        return None
    chosen: set[int] = set()
    for token in text.replace(",", " ").split():
        first, colon, last = token.partition(":")
        ends = (first, last if colon else first)
        low, high = (_from_the_start(_whole(end, field), num_frames) for end in ends)
        if high < low:
            raise InvalidInput(f"the range {token!r} runs backwards", field=field)
        chosen.update(range(max(low, 1), min(high, num_frames) + 1))
    return frozenset(number - 1 for number in chosen)


def positions(text: str, num_frames: int) -> tuple[int, ...]:
    """1-based places of images in a video, separated by spaces or commas; "L" is the last frame."""
    field = "frames_positions"
    places = []
    for token in str(text).replace(",", " ").split():
        place = num_frames if token.upper() == "L" else _whole(token, field)
        if not 1 <= place <= num_frames:
            raise InvalidInput(f"{token!r} is not from 1 to {num_frames}", field=field)
        places.append(place)
    return tuple(places)


def _from_the_start(number: int, num_frames: int) -> int:
    return num_frames + 1 + number if number < 0 else number


def _whole(text: str, field: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"{text!r} is not a whole number", field=field) from None
