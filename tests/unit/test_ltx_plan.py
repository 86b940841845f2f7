"""How LTX-Video's lengths, noise levels and given pictures are planned: arithmetic alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from hypothesis import given
from hypothesis import strategies as st

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.request import GenerationRequest, parse_request
from Wan2GP.engine.stock.ltx import LTX
from Wan2GP.engine.stock.ltx_levels import first_size, linear_quadratic, refining_levels
from Wan2GP.engine.stock.ltx_pictures import _grouped


def request(name: str = "ltxv_13B", **values: object) -> GenerationRequest:
    return parse_request({"prompt": "x", **values}, load_definitions()[name], LTX.reads, Path("loras"))


@pytest.mark.parametrize("asked", [*range(1, 34), 81, *range(248, 262)])
def test_a_length_is_the_one_more_than_a_multiple_of_eight_that_stands_for_it(asked: int):
    assert request(video_length=asked).num_frames == max(asked // 8 * 8 + 1, 17)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 10, 30, 31, 50])
def test_noise_levels_are_those_of_diffusers(count: int):
    assert linear_quadratic(count) == pytest.approx(linear_quadratic_schedule(count).tolist(), abs=1e-6)


@pytest.mark.parametrize(("steps", "share"), [(4, 0.4), (3, 0.3), (6, 0.5), (7, 0.33), (5, 1.0), (1, 0.05)])
def test_a_second_pass_has_exactly_the_steps_asked_for(steps: int, share: float):
    levels = refining_levels(request(hires_scale=1.5, hires_steps=steps, hires_denoise=share))
    assert len(levels) == steps and list(levels) == sorted(levels, reverse=True)
    assert (levels[0] == 1) == (share == 1)


def test_the_distilled_model_has_levels_of_its_own_and_one_pass_is_the_rule():
    assert refining_levels(request("ltxv_distilled", hires_scale=2)) == (0.909, 0.725, 0.421, 0)
    assert refining_levels(request()) == refining_levels(request("ltxv_distilled")) == ()
    assert request("ltxv_distilled", num_inference_steps=30).sampling.num_inference_steps == 8


def test_the_first_pass_is_smaller_by_the_scale_in_whole_blocks():
    assert first_size(request(resolution="1152x768", hires_scale=1.5)) == (768, 512)
    assert first_size(request(resolution="832x480", hires_scale=2)) == (416, 224)


@given(places=st.sets(st.integers(0, 60), max_size=40))
def test_every_picture_is_given_once_at_its_frame_in_lengths_that_the_pipeline_takes(places: set[int]):
    pictures = {place: np.full((1, 1, 3), place, np.uint8) for place in places}
    found = list(_grouped(pictures))
    shown = {each.index + number: int(frame[0, 0, 0]) for each in found for number, frame in enumerate(each.frames)}
    assert shown == {place: place for place in places}
    assert sum(len(each.frames) for each in found) == len(places)
    for each in found:
        assert len(each.frames) % 8 == 1
        assert len(each.frames) == 1 or each.index % 8 == 0
