"""Phantom on tiny random weights: references as clean latent frames after the video, and guidance in three passes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from engine_runs import picture, run_engine
from tiny_models import write_definition
from wan_passes import conditions_of, passes, predicted
from wan_runs import Tiny

from Wan2GP import wgp
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import probe_video

ONE, TWO = picture(1, 64, 64), picture(2, 96, 48)
BOTH = {"image_refs": [ONE, TWO], "video_prompt_type": "I", "guidance_scale": 7.5, "alt_guidance_scale": 5.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("phantom"), "phantom_1.3B")


def test_references_are_clean_latent_frames_after_the_video(tiny):
    conditions = conditions_of(tiny, **BOTH)
    with passes(tiny.parts.transformer) as seen:
        predicted(conditions)
    wide = np.full((64, 64, 3), 255, np.uint8)
    wide[16:48] = cv2.resize(TWO, (64, 32), interpolation=cv2.INTER_AREA)
    given = torch.cat([conditions.encoded(ONE[None]), conditions.encoded(wide[None])], dim=2)
    assert conditions.latent_shape == (1, 16, 5, 8, 8)
    with_references, also, without = (one.hidden[:, :, 5:] for one in seen)
    assert torch.equal(with_references, given)
    assert torch.equal(also, given)
    assert torch.equal(without, torch.zeros_like(given))


def test_guidance_combines_three_passes(tiny):
    conditions = conditions_of(tiny, **BOTH)
    with passes(tiny.parts.transformer) as seen:
        velocity = predicted(conditions)
    both, references, nothing = (one.found[:, :, :5] for one in seen)
    prompts = conditions.prompts
    told = [prompts.positive, prompts.negative, prompts.negative]
    assert all(torch.equal(one.prompt, prompt) for one, prompt in zip(seen, told, strict=True))
    by_hand = nothing + 5.0 * (references - nothing) + 7.5 * (both - references)
    assert torch.allclose(velocity, by_hand, atol=1e-5)
    assert (references - nothing).abs().max() > 1e-3
    assert (both - references).abs().max() > 1e-3


@pytest.mark.parametrize(("text", "image", "made"), [(1.0, 1.0, 1), (1.0, 5.0, 1), (7.5, 1.0, 2), (7.5, 5.0, 3)])
def test_passes_that_change_nothing_are_left_out(tiny, text, image, made):
    conditions = conditions_of(tiny, **BOTH | {"guidance_scale": text, "alt_guidance_scale": image})
    with passes(tiny.parts.transformer) as seen:
        velocity = predicted(conditions)
    assert len(seen) == made
    if made == 1:
        assert torch.equal(velocity, seen[0].found[:, :, :5])


def test_each_input_changes_the_video_and_the_same_inputs_repeat_it(tiny):
    base = tiny.latents(**BOTH)
    assert base.shape == (1, 16, 5, 8, 8)
    assert torch.equal(base, tiny.latents(**BOTH))
    others = [
        {"image_refs": [ONE]},
        {"image_refs": [TWO, ONE]},
        {"alt_guidance_scale": 2.0},
        {"guidance_scale": 3.0},
        {"prompt": "a blue square"},
        {"seed": 6},
    ]
    for other in others:
        assert (tiny.latents(**BOTH | other) - base).abs().max() > 1e-3, other
    assert torch.equal(base, tiny.latents(**BOTH, image_refs_relative_size=30))


@pytest.mark.parametrize("extra", [{"cfg_star_switch": 1, "cfg_zero_step": 0}, {"apg_switch": 1}, {"slg_switch": 1}])
def test_other_kinds_of_guidance_go_with_it(tiny, extra):
    latents = tiny.latents(**BOTH, **extra, slg_layers=[1])
    assert torch.isfinite(latents).all()
    assert not torch.equal(latents, tiny.latents(**BOTH))


def test_nothing_is_predicted_while_cfg_zero_waits(tiny):
    velocity = predicted(conditions_of(tiny, **BOTH, cfg_star_switch=1, cfg_zero_step=0))
    assert not velocity.any()


def test_a_file_has_exactly_the_frames(tiny, tmp_path: Path):
    folder = write_definition(tmp_path / "rows", "seen", "phantom_14B", tiny.weights, num_inference_steps=2)
    wgp.configure(checkpoints=tmp_path, definitions=[folder], save_path=tmp_path / "out", device="cpu")
    try:
        run = run_engine(model_type="seen", prompt="a red circle", resolution="64x64", video_length=17, seed=5, **BOTH)
    finally:
        wgp.release_model()
        wgp.configure(definitions=[])
    assert run.data("error") == []
    info = probe_video(run.files[-1])
    assert (info.num_frames, info.width, info.height, info.fps) == (17, 64, 64, 16)
    assert run.frames().std() > 5


@pytest.mark.parametrize(
    ("values", "error", "field"),
    [
        ({"image_refs": None}, InvalidInput, "image_refs"),
        ({"image_refs": [ONE] * 5}, InvalidInput, "image_refs"),
        ({"video_prompt_type": "KI"}, Unsupported, "video_prompt_type"),
        ({"video_prompt_type": "FI", "frames_positions": "1"}, Unsupported, "video_prompt_type"),
    ],
)
def test_what_it_cannot_show_is_refused(tiny, values, error, field):
    with pytest.raises(error) as raised:
        tiny.request(**BOTH | values)
    assert raised.value.field == field
