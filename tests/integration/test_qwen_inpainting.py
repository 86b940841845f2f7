"""Masks on Qwen-Image: what is drawn, and what is kept bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_runs import picture
from qwen_runs import Tiny, tiny_models

from Wan2GP.errors import InvalidInput

MODELS = ["qwen_image_20B", "qwen_image_edit_20B", "qwen_image_edit_plus_20B"]
GUIDE = picture(2, 64, 64)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_models(tmp_path_factory)


def box(top: int, bottom: int, left: int, right: int, size: int = 64) -> np.ndarray:
    """White inside of a box."""
    mask = np.zeros((size, size, 3), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def inside(mask: np.ndarray) -> np.ndarray:
    return mask[..., 0] > 0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mask", [box(16, 48, 16, 48), box(13, 50, 7, 30)], ids=["whole cells", "odd edges"])
def test_black_is_kept_bit_for_bit_and_white_is_drawn(tiny, name, mask):
    still = tiny(name).frames(image_guide=GUIDE, image_mask=mask, image_mode=2)[0]
    assert np.array_equal(still[~inside(mask)], GUIDE[~inside(mask)])
    assert np.abs(still[inside(mask)].astype(int) - GUIDE[inside(mask)]).mean() > 5


def test_an_inverted_mask_keeps_its_white(tiny):
    mask = box(16, 48, 16, 48)
    values = {"image_guide": GUIDE, "image_mask": mask, "video_prompt_type": "VAN"}
    still = tiny("qwen_image_20B").frames(**values)[0]
    assert np.array_equal(still[inside(mask)], GUIDE[inside(mask)])
    assert not np.array_equal(still[~inside(mask)], GUIDE[~inside(mask)])


def test_a_mask_without_white_keeps_everything_and_one_of_white_alone_nothing(tiny):
    model: Tiny = tiny("qwen_image_20B")
    assert np.array_equal(model.frames(image_guide=GUIDE, image_mask=box(0, 0, 0, 0))[0], GUIDE)
    free = model.frames(image_guide=GUIDE, image_mask=box(0, 64, 0, 64))[0]
    assert np.array_equal(free, model.frames()[0])


def test_a_grown_mask_draws_more(tiny):
    model, mask = tiny("qwen_image_20B"), box(24, 40, 24, 40)
    kept = [
        (model.frames(image_guide=GUIDE, image_mask=mask, mask_expand=pixels)[0] == GUIDE).all(axis=2).mean()
        for pixels in (0, 8)
    ]
    assert kept[0] == pytest.approx(1 - 16 * 16 / 64 / 64, abs=0.02) and kept[1] < kept[0] - 0.1


def test_a_weak_redrawing_stays_nearer_to_the_image_and_runs_fewer_steps(tiny):
    model, mask = tiny("qwen_image_20B"), box(0, 64, 0, 64)
    from Wan2GP.engine.qwen.latents import encode

    own = encode(model.pipeline, GUIDE)
    distance, passes = [], []
    for strength in (1.0, 0.5, 0.25):
        with model.watched() as calls:
            values = {"image_guide": GUIDE, "image_mask": mask, "denoising_strength": strength, "guidance_scale": 1.0}
            distance.append(float((model.latents(**values) - own).abs().mean()))
        passes.append(len(calls))
    assert passes == [4, 2, 1]
    assert distance[0] > distance[1] > distance[2]


def test_an_image_of_another_size_is_kept_as_resized_and_that_is_said(tiny):
    from Wan2GP.media import resize

    model, wide, mask = tiny("qwen_image_20B"), picture(2, 100, 80), box(16, 48, 16, 48)
    still = model.frames(image_guide=wide, image_mask=mask)[0]
    assert np.array_equal(still[~inside(mask)], resize(wide, (64, 64))[~inside(mask)])
    assert [note for note in model.model.remarks if "100x80" in note and "64x64" in note]


def test_a_mask_acts_in_either_image_mode(tiny):
    model, values = tiny("qwen_image_20B"), {"image_guide": GUIDE, "image_mask": box(16, 48, 16, 48)}
    assert torch.equal(model.latents(**values, image_mode=1), model.latents(**values, image_mode=2))


def test_a_strength_that_leaves_no_step_is_refused(tiny):
    with pytest.raises(InvalidInput, match="denoising_strength"):
        tiny("qwen_image_20B").request(image_guide=GUIDE, image_mask=box(0, 9, 0, 9), denoising_strength=0.1)


def test_a_strength_without_a_mask_is_remarked_on(tiny):
    model = tiny("qwen_image_20B")
    model.frames(denoising_strength=0.5)
    assert [note for note in model.model.remarks if "denoising_strength" in note]
