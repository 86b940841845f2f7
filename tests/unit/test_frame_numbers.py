"""Strings that choose frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from Wan2GP.errors import InvalidInput
from Wan2GP.frame_numbers import keep_from_source, listed_frames, positions


@pytest.mark.parametrize(
    ("text", "kept"), [("", 20), ("  ", 20), ("12", 12), ("20", 20), ("99", 20), ("-3", 17), ("-19", 1), ("1", 1)]
)
def test_how_many_frames_of_a_source_are_kept(text, kept):
    assert keep_from_source(text, 20) == kept


@pytest.mark.parametrize("text", ["0", "-20", "-21", "a", "1 2", "1.5"])
def test_a_source_of_which_nothing_is_left_is_refused(text):
    with pytest.raises(InvalidInput, match="keep_frames_video_source"):
        keep_from_source(text, 20)


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("1", {0}),
        ("1 3", {0, 2}),
        ("1,3", {0, 2}),
        ("2:4", {1, 2, 3}),
        ("1 5:7 -1", {0, 4, 5, 6, 9}),
        ("-3:-1", {7, 8, 9}),
        ("9:20", {8, 9}),
        ("12", set()),
        ("1:-1", set(range(10))),
        ("3:3", {2}),
    ],
)
def test_which_control_frames_are_used(text, frames):
    assert listed_frames(text, 10) == frames


def test_an_empty_list_means_all_control_frames():
    assert listed_frames("", 10) is None


@pytest.mark.parametrize("text", ["5:3", "a", "1:", ":", "1:2:3", "1-3"])
def test_lists_that_cannot_be_read_are_refused(text):
    with pytest.raises(InvalidInput, match="keep_frames_video_guide"):
        listed_frames(text, 10)


@given(st.text(alphabet="0123456789-: ,LlxX", max_size=20), st.integers(1, 50))
def test_any_text_is_frames_of_the_video_or_an_error_that_names_the_field(text, num_frames):
    for read in (listed_frames, positions, keep_from_source):
        try:
            found = read(text, num_frames)
        except InvalidInput as error:
            assert error.field
            continue
        numbers = (found,) if isinstance(found, int) else tuple(found or ())
        assert all(0 <= number <= num_frames for number in numbers)


@pytest.mark.parametrize(
    ("text", "places"), [("", ()), ("1", (1,)), ("1 9 L", (1, 9, 17)), ("1,l", (1, 17)), ("17", (17,))]
)
def test_where_images_stand(text, places):
    assert positions(text, 17) == places


@pytest.mark.parametrize("text", ["0", "18", "-1", "first", "1;2"])
def test_places_outside_the_video_are_refused(text):
    with pytest.raises(InvalidInput, match="frames_positions"):
        positions(text, 17)
