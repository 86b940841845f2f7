"""What networks that see are given, held against the published processors where these are made for the CPU alone."""

from __future__ import annotations

import numpy as np
import pytest
from engine_runs import picture
from PIL import Image

from Wan2GP.engine.control import depth
from Wan2GP.engine.language.vision_pictures import LEAST_PIXELS, MOST_PIXELS, PatchRule
from Wan2GP.errors import InvalidInput

SHAPES = [(64, 48), (300, 200), (1920, 1080), (30, 500), (20, 20), (1, 150)]


@pytest.mark.parametrize("size", SHAPES)
def test_patches_are_those_of_the_published_processor(size: tuple[int, int]) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    shown = picture(1, *size)
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": LEAST_PIXELS, "longest_edge": MOST_PIXELS})
    theirs = processor(Image.fromarray(shown), return_tensors="np")
    ours, grid = PatchRule().patches(shown)
    assert grid == tuple(theirs["image_grid_thw"][0])
    assert np.array_equal(ours, theirs["pixel_values"])


def test_the_first_patch_is_the_upper_left_corner_red_first() -> None:
    shown = np.zeros((56, 84, 3), np.uint8)
    shown[:14, :14] = (255, 0, 0)
    patches, grid = PatchRule().patches(shown)
    assert (patches.shape, grid, PatchRule().tokens(grid)) == ((24, 3 * 2 * 14 * 14), (1, 4, 6), 6)
    first = patches[0].reshape(3, 2, 14, 14).mean(axis=(1, 2, 3))
    assert first[0] > 1 and first[1] < 0 and first[2] < 0
    assert patches[1:].max() < 0


def test_a_picture_far_too_long_is_refused() -> None:
    with pytest.raises(InvalidInput, match="image_refs: 201x1 is too long a picture"):
        PatchRule().size(201, 1)


@pytest.mark.parametrize("size", [(64, 48), (300, 200), (1280, 720), (416, 240), (720, 1280), (518, 518)])
def test_the_depth_network_is_given_what_the_published_processor_gives(size: tuple[int, int]) -> None:
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    shown = picture(2, *size)
    processor = DPTImageProcessorPil(
        size={"height": 518, "width": 518},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=Image.Resampling.BICUBIC,
        image_mean=depth.MEAN,
        image_std=depth.DEVIATION,
    )
    theirs = processor(Image.fromarray(shown), return_tensors="np")["pixel_values"][0]
    assert np.array_equal(depth.network_input(shown, 518, 14), theirs)


def test_near_is_bright_and_what_has_no_relief_is_grey() -> None:
    shown = depth.grey(np.asarray([[3.0, 4.0, 7.0]], np.float32))
    assert shown[0].tolist() == [[0, 0, 0], [64, 64, 64], [255, 255, 255]]
    assert depth.grey(np.full((2, 2), 5.0, np.float32)).tolist() == np.full((2, 2, 3), 128).tolist()
