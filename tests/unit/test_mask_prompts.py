"""Clicks and boxes as people write them, and the edges of masks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headless.options import GenerationOptions
from Wan2GP.engine.masks.edges import drawn
from Wan2GP.errors import InvalidInput
from Wan2GP.mask_prompts import MOST_PROMPTS, MaskPrompt, parse_mask_prompts, placed

CLICK = {"frame": 2, "object": 1, "points": [[10, 20], [30, 40]], "labels": [1, 0]}


def test_a_list_and_its_json_text_are_the_same_and_short_forms_are_filled_in() -> None:
    assert parse_mask_prompts([CLICK]) == parse_mask_prompts(json.dumps([CLICK]))
    (short,) = parse_mask_prompts([{"points": [[1, 2.5]]}])
    assert short == MaskPrompt(frame=0, object=1, points=((1.0, 2.5),), labels=(True,))
    (boxed,) = parse_mask_prompts([{"frame": -1, "box": [0, 0, 5, 6]}])
    assert boxed.box == (0, 0, 5, 6) and boxed.points == ()


def test_the_knob_holds_what_was_written_and_survives_a_second_reading() -> None:
    options = GenerationOptions.parse({"mask_prompts": json.dumps([CLICK, {"box": [1, 2, 3, 4]}])})
    assert options.mask_prompts == [CLICK, {"frame": 0, "object": 1, "box": [1, 2, 3, 4]}]
    assert options.replace(seed=1).mask_prompts == options.mask_prompts
    assert parse_mask_prompts(options.to_engine()["mask_prompts"])[0].labels == (True, False)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{", "is no JSON"),
        ({"points": []}, "must be a list of objects"),
        ([3], "entry 0 must be an object"),
        ([CLICK, {"point": [[1, 2]]}], "entry 1 has 'point'.*'points'"),
        ([{"points": [[1, 2, 3]]}], "entry 0: a point must be 2 numbers"),
        ([{"points": [["1", 2]]}], "entry 0: a point must be 2 numbers"),
        ([{"points": 5}], "points must be a list"),
        ([CLICK | {"labels": [1]}], "2 points and 1 labels"),
        ([CLICK | {"labels": [1, 2]}], "a label is 1"),
        ([CLICK | {"labels": [0, 0]}], "selects nothing"),
        ([{}], "selects nothing"),
        ([{"box": [5, 0, 5, 9]}], "has no inside"),
        ([{"box": [0, 1, 2]}], "box must be 4 numbers"),
        ([CLICK | {"frame": 1.5}], "frame must be a whole number"),
        ([CLICK | {"object": True}], "object must be a whole number"),
        ('[{"frame": NaN, "points": [[1, 2]]}]', "frame must be a whole number"),
        ('[{"frame": -Infinity, "points": [[1, 2]]}]', "frame must be a whole number"),
        (f'[{{"points": [[1, {"9" * 400}]]}}]', "a point must be 2 numbers"),
        ('[{"box": [0, 0, NaN, 5]}]', "box must be 4 numbers"),
        ("[" * 100_000, "nested too deeply"),
        ([CLICK] * (MOST_PROMPTS + 1), f"give {MOST_PROMPTS} at most"),
    ],
)
def test_what_cannot_be_meant_is_named(value, reason) -> None:
    with pytest.raises(InvalidInput, match=reason):
        parse_mask_prompts(value)
    with pytest.raises(InvalidInput, match=f"mask_prompts: .*{reason}"):
        GenerationOptions.parse({"mask_prompts": value})


def test_prompts_are_ordered_counted_from_the_first_frame_and_joined() -> None:
    entries = [
        {"frame": -1, "object": 2, "box": [0, 0, 4, 4]},
        {"frame": 9, "object": 2, "points": [[1, 1]]},
        {"frame": 0, "object": 2, "points": [[2, 2]]},
        CLICK,
    ]
    found = placed(parse_mask_prompts(entries), 10, 64, 48)
    assert [(each.object, each.frame) for each in found] == [(1, 2), (2, 0), (2, 9)]
    assert found[2].box == (0, 0, 4, 4) and found[2].points == ((1, 1),)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (CLICK | {"frame": 10}, "no frame 10; there are 10"),
        (CLICK | {"frame": -11}, "no frame -11"),
        ({"points": [[65, 3]]}, r"\(65, 3\) lies outside the picture of 64x48"),
        ({"box": [0, 0, 64, 49]}, r"\(64, 49\) lies outside"),
    ],
)
def test_what_lies_outside_is_named(entry, reason) -> None:
    with pytest.raises(InvalidInput, match=f"mask_prompts: entry 0.*{reason}"):
        placed(parse_mask_prompts([entry]), 10, 64, 48)


def test_an_edge_is_hard_by_default_and_fades_evenly_within_the_feather() -> None:
    selected = np.zeros((9, 40), np.bool_)
    selected[:, 20:] = True
    hard = drawn(selected)
    assert hard.shape == (9, 40, 3) and hard.dtype == np.uint8
    assert np.array_equal(hard[..., 0] == 255, selected) and set(np.unique(hard)) == {0, 255}
    row = drawn(selected, 4)[4, :, 0].astype(int)
    assert (row[:16] == 0).all() and (row[24:] == 255).all(), "farther than 4 pixels nothing changes"
    assert (np.diff(row[15:25]) > 0).all() and row[19] + row[20] == 255


@pytest.mark.parametrize("everything", [True, False])
def test_a_mask_without_an_edge_has_nothing_to_fade(everything: bool) -> None:
    assert np.array_equal(drawn(np.full((7, 5), everything), 6), np.full((7, 5, 3), 255 * everything, np.uint8))
