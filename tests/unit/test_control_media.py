"""Control videos, masks and references as a window is given them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import grey_video, picture

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.control.media import (
    GREY,
    check_control,
    drawn_mask,
    guide_frames,
    initial_frames,
    positioned,
    references,
)
from Wan2GP.engine.request import GenerationRequest, parse_request
from Wan2GP.engine.wan.media import spans_of, window_of
from Wan2GP.engine.wan.model import Wan
from Wan2GP.errors import InvalidInput
from Wan2GP.media import write_video

LEVELS = [10 * number for number in range(1, 13)]
VALUES = {"resolution": "64x48", "video_length": 17, "prompt": "a kite"}


def vace(**values: Any) -> GenerationRequest:
    return parse_request(VALUES | values, load_definitions()["vace_1.3B"], Wan.reads, Path("loras"))


@pytest.fixture
def guide(tmp_path: Path) -> str:
    return str(grey_video(tmp_path / "guide.mkv", LEVELS))


def mask_of(tmp_path: Path, levels: list[int]) -> str:
    return str(grey_video(tmp_path / "mask.mkv", levels))


def levels(frames: np.ndarray) -> list[int]:
    return frames.mean(axis=(1, 2, 3)).round().astype(int).tolist()


def means(mask: np.ndarray) -> list[float]:
    return mask.mean(axis=(1, 2)).tolist()


def test_a_guide_is_grey_after_its_end_and_before_its_beginning(guide):
    request = vace(video_guide=guide, video_prompt_type="V")
    assert levels(guide_frames(request, 0, 13)) == [*LEVELS, GREY]
    assert levels(guide_frames(request, 9, 5)) == [100, 110, 120, GREY, GREY]
    assert levels(guide_frames(request, -2, 4)) == [GREY, GREY, 10, 20]
    assert levels(guide_frames(request, 30, 2)) == [GREY, GREY]


def test_a_guide_has_the_size_of_the_video(guide):
    assert guide_frames(vace(video_guide=guide, resolution="96x80"), 0, 2).shape == (2, 80, 96, 3)


def test_frames_that_are_not_listed_are_grey_and_drawn(guide, tmp_path):
    values = {"video_guide": guide, "video_mask": mask_of(tmp_path, [0] * 12), "keep_frames_video_guide": "1 3:4 -1"}
    request = vace(**values, video_prompt_type="VA")
    assert levels(guide_frames(request, 0, 12)) == [
        10, GREY, 30, 40, GREY, GREY, GREY, GREY, GREY, GREY, GREY, 120,
    ]  # fmt: skip
    assert means(drawn_mask(request, 0, 12)) == [0, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert means(drawn_mask(request, 2, 3)) == [0, 0, 1]


def test_without_a_mask_everything_is_drawn(guide):
    assert drawn_mask(vace(video_guide=guide), 0, 5).min() == 1


def test_white_is_drawn_black_is_kept_and_n_turns_them_round(guide, tmp_path):
    values = {"video_guide": guide, "video_mask": mask_of(tmp_path, [0, 255] * 6)}
    assert means(drawn_mask(vace(**values, video_prompt_type="VA"), 0, 4)) == [0, 1, 0, 1]
    assert means(drawn_mask(vace(**values, video_prompt_type="VNA"), 0, 4)) == [1, 0, 1, 0]


def test_frames_past_the_end_of_the_guide_are_drawn_whatever_the_mask_says(guide, tmp_path):
    values = {"video_guide": guide, "video_mask": mask_of(tmp_path, [0] * 20), "video_prompt_type": "VA"}
    assert means(drawn_mask(vace(**values), 0, 17)) == [0] * 12 + [1] * 5
    assert means(drawn_mask(vace(**values), -3, 5)) == [1, 1, 1, 0, 0]
    assert means(drawn_mask(vace(**values), 10, 4)) == [0, 0, 1, 1]


@pytest.mark.parametrize(("expand", "wider"), [(4, 8), (-4, -8), (0, 0)])
def test_a_mask_grows_and_shrinks_by_pixels(guide, tmp_path, expand, wider):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[16:32, 20:44] = 255
    write_video(tmp_path / "mask.mkv", [frame] * 12, fps=16, codec="ffv1")
    values = {"video_guide": guide, "video_mask": str(tmp_path / "mask.mkv"), "mask_expand": expand}
    mask = drawn_mask(vace(**values), 0, 1)[0]
    assert mask[24].sum() == 24 + wider and mask[:, 32].sum() == 16 + wider


def test_a_video_to_begin_from_is_held_at_both_ends(guide):
    request = vace()
    assert levels(initial_frames(Path(guide), request, -2, 4)) == [10, 10, 10, 20]
    assert levels(initial_frames(Path(guide), request, 10, 4)) == [110, 120, 120, 120]
    assert levels(initial_frames(Path(guide), request, 40, 2)) == [120, 120]


def test_references_stand_whole_on_white():
    red = np.zeros((20, 40, 3), np.uint8)
    red[..., 0] = 200
    (half,) = references(vace(image_refs=[red], video_prompt_type="I"))
    (whole,) = references(vace(image_refs=[red], video_prompt_type="I", image_refs_relative_size=100))
    for shown, sides in ((half, (16, 32)), (whole, (32, 64))):
        is_red = (shown == [200, 0, 0]).all(axis=2)
        assert shown.shape == (48, 64, 3)
        assert (is_red.any(axis=1).sum(), is_red.any(axis=0).sum()) == sides
        assert (shown[~is_red] == 255).all()


def test_the_first_reference_fills_the_picture_with_k():
    images = [picture(1), picture(2)]
    first, second = references(vace(image_refs=images, video_prompt_type="KI"))
    assert np.array_equal(first, images[0])
    assert (second[0] == 255).all()


def test_positioned_images_come_first_and_stand_in_the_video(guide):
    images = [picture(number) for number in range(3)]
    request = vace(image_refs=images, video_prompt_type="VFI", frames_positions="1 L", video_guide=guide)
    assert sorted(positioned(request)) == [0, 16]
    assert len(references(request)) == 1
    window = window_of(request, 0, spans_of(request)[0], 1, np.zeros((0, 48, 64, 3), np.uint8))
    assert np.array_equal(window.guide[0], images[0]) and np.array_equal(window.guide[16], images[1])
    assert means(window.mask) == [0] + [1] * 15 + [0]
    assert levels(window.guide)[1:12] == LEVELS[1:]


def test_more_places_than_images_are_refused():
    request = vace(image_refs=[picture(1)], video_prompt_type="F", frames_positions="1 5")
    with pytest.raises(InvalidInput, match="frames_positions"):
        positioned(request)


def test_control_counts_from_the_first_frame_of_the_result_or_with_t_from_the_first_new_one(guide, tmp_path):
    source = str(grey_video(tmp_path / "source.mkv", [200] * 9))
    values = {"video_guide": guide, "video_source": source, "sliding_window_overlap": 5}
    prefix = np.full((5, 48, 64, 3), 200, np.uint8)

    def shown(letters: str) -> list[int]:
        request = vace(**values, video_prompt_type=letters)
        return levels(window_of(request, 0, spans_of(request)[0], 1, prefix).guide)

    assert shown("V")[:5] == LEVELS[4:9]
    assert shown("VT")[5:8] == LEVELS[:3]


def test_a_mask_needs_its_video_and_must_cover_it(guide, tmp_path):
    mask = mask_of(tmp_path, [255] * 8)
    with pytest.raises(InvalidInput, match=r"video_mask.*video_guide"):
        check_control(vace(video_mask=mask))
    with pytest.raises(InvalidInput, match=r"video_mask.*has 8 frames.*12"):
        check_control(vace(video_mask=mask, video_guide=guide))
    check_control(vace(video_mask=mask_of(tmp_path, [255] * 12), video_guide=guide))
    longer = str(grey_video(tmp_path / "longer.mkv", [9] * 40))
    check_control(vace(video_mask=mask_of(tmp_path, [255] * 17), video_guide=longer))
