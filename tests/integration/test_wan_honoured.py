"""What a request asks for either acts or is refused or noted, whatever it is combined with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_runs import picture
from wan_runs import Tiny, tiny_models

from Wan2GP.engine.wan.media import spans_of, window_of
from Wan2GP.engine.wan.vace import control_media
from Wan2GP.errors import InvalidInput, Unsupported, WanError
from Wan2GP.media import write_video

SIZE = {"width": 64, "height": 64}
START = picture(1, **SIZE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_models(tmp_path_factory)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """A lossless video of 17 frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write_video(path, [picture(number // 4, **SIZE) for number in range(17)], fps=16, codec="ffv1")
    return str(path)


@pytest.fixture(scope="module")
def mask(tmp_path_factory) -> str:
    """Its left half black: kept."""
    path = tmp_path_factory.mktemp("mask") / "mask.mkv"
    frame = np.full((64, 64, 3), 255, np.uint8)
    frame[:, :32] = 0
    write_video(path, [frame] * 17, fps=16, codec="ffv1")
    return str(path)


def refused(model: Tiny, **values: Any) -> WanError:
    with pytest.raises((InvalidInput, Unsupported)) as caught:
        model.request(**values)
    return caught.value


# ---- refused rather than passed over


@pytest.mark.parametrize("architecture", ["t2v", "i2v_2_2"])
def test_a_control_video_that_nothing_asks_to_redraw_is_refused(tiny, clip, architecture):
    given = {"image_start": START} if architecture == "i2v_2_2" else {}
    assert refused(tiny(architecture), video_guide=clip, video_prompt_type="UV", **given).field == "video_prompt_type"


def test_the_frame_of_a_source_video_is_no_still(tiny, clip):
    assert refused(tiny("t2v"), image_mode=1, video_source=clip).field == "video_source"


def test_a_model_that_makes_no_stills_says_so(tiny):
    assert refused(tiny("i2v"), image_mode=1, image_start=START).field == "image_mode"


def test_a_video_goes_on_from_a_source_or_from_an_image(tiny, clip):
    assert refused(tiny("i2v"), video_source=clip, image_start=START).field == "image_start"


def test_the_last_video_of_an_earlier_call_is_not_guessed(tiny, clip):
    assert refused(tiny("t2v"), image_prompt_type="L").field == "image_prompt_type"
    assert tiny("t2v").request(image_prompt_type="VL", video_source=clip).kept_source_frames == 17


# ---- noted rather than passed over


@pytest.mark.parametrize(
    ("architecture", "values", "name"),
    [
        ("t2v", {"alt_guidance_scale": 3.0}, "alt_guidance_scale"),
        ("t2v", {"audio_guidance_scale": 3.0}, "audio_guidance_scale"),
        ("t2v", {"audio_scale": 2.0}, "audio_scale"),
        ("t2v", {"control_net_weight": 0.5}, "control_net_weight"),
        ("t2v", {"image_refs_relative_size": 70}, "image_refs_relative_size"),
        ("t2v", {"model_mode": 3}, "model_mode"),
        ("i2v", {"image_start": START, "mask_expand": 4}, "mask_expand"),
        ("vace_1.3B", {"motion_amplitude": 1.2}, "motion_amplitude"),
        ("vace_1.3B", {"control_net_weight2": 0.5}, "control_net_weight2"),
        ("vace_1.3B", {"alt_guidance_scale": 3.0}, "alt_guidance_scale"),
        ("t2v", {"RIFLEx_setting": 1}, "RIFLEx_setting"),
        ("t2v", {"self_refiner_setting": 1}, "self_refiner_setting"),
        ("t2v", {"input_video_strength": 0.5}, "input_video_strength"),
        ("phantom_1.3B", {"image_refs": [START], "sliding_window_overlap": 9}, "sliding_window_overlap"),
    ],
)
def test_a_setting_that_does_nothing_for_the_model_is_noted(tiny, architecture, values, name):
    assert f"ignored by tiny: {name}" in tiny(architecture).request(**values).notes


@pytest.mark.parametrize(
    ("architecture", "values"),
    [
        ("phantom_1.3B", {"image_refs": [START], "alt_guidance_scale": 3.0}),
        ("vace_1.3B", {"control_net_weight": 0.5, "image_refs_relative_size": 70, "mask_expand": 2}),
        ("sky_df_1.3B", {"model_mode": 5, "sliding_window_overlap": 9}),
    ],
)
def test_a_setting_that_acts_is_not_noted(tiny, architecture, values):
    assert not any("ignored" in note for note in tiny(architecture).request(**values).notes)


def test_negative_attention_beside_guidance_is_noted(tiny):
    notes = tiny("t2v").request(NAG_scale=5.0, guidance_scale=4.0).notes
    assert any("NAG_scale" in note for note in notes)
    assert not tiny("t2v").request(NAG_scale=5.0, guidance_scale=1.0).notes


def test_references_that_keep_their_background_are_named(tiny):
    given = {"image_refs": [START], "video_prompt_type": "I"}
    assert any("background" in note for note in tiny("vace_14B").request(**given).notes)
    assert not tiny("vace_14B").request(**given, remove_background_images_ref=0).notes


def test_a_mask_whose_strength_is_zero_is_noted(tiny, clip, mask):
    values = {"vid2vid_init_video": clip, "video_mask": mask}
    assert any("latent_noise_mask_strength" in note for note in tiny("t2v").request(**values).notes)
    assert not tiny("t2v").request(**values, latent_noise_mask_strength=1.0).notes


# ---- windows


@pytest.mark.parametrize("architecture", ["vace_1.3B", "sky_df_1.3B"])
def test_no_window_is_shorter_than_the_model_can_do(tiny, architecture):
    model = tiny(architecture)
    values = {"video_length": 29, "sliding_window_size": 25, "sliding_window_overlap": 5, "num_inference_steps": 1}
    least = model.definition.architecture.min_frames
    assert [span.frames for span in spans_of(model.request(**values))] == [25, least]
    assert model.frames(**values).shape[0] == 29


def test_a_window_size_below_what_the_model_can_do_is_raised(tiny):
    request = tiny("vace_1.3B").request(video_length=29, sliding_window_size=9, sliding_window_overlap=5)
    assert all(span.frames >= 17 for span in spans_of(request))


@pytest.mark.parametrize(("letters", "place"), [("FI", 28), ("FIT", 28)])
def test_an_image_at_the_last_frame_stands_there_when_a_video_goes_on(tiny, clip, letters, place):
    request = tiny("vace_1.3B").request(
        video_source=clip, video_prompt_type=letters, image_refs=[START], frames_positions="L", sliding_window_overlap=5
    )
    (span,) = spans_of(request)
    window = window_of(request, 0, span, 1, np.zeros((span.overlap, 64, 64, 3), np.uint8))
    assert request.total_frames == place + 1
    assert (window.mask[-1] == 0).all() and (window.mask[:-1] == 1).all()


def test_a_masked_redraw_by_vace_shows_what_is_kept(tiny, clip, mask):
    request = tiny("vace_1.3B").request(video_guide=clip, video_mask=mask, video_prompt_type="GVA")
    (span,) = spans_of(request)
    video, drawn = control_media(window_of(request, 0, span, 1, np.zeros((0, 64, 64, 3), np.uint8)))
    assert not drawn[..., :32].any() and drawn[..., 32:].all()
    assert video[..., :32].abs().mean() > 0.05
    assert video[..., 32:].abs().max() < 0.01  # grey


# ---- the cost of a step


def test_nothing_is_computed_while_cfg_zero_waits(tiny):
    with tiny("t2v").watched() as calls:
        tiny("t2v").latents(cfg_star_switch=1, cfg_zero_step=1)
    assert len(calls) == 4  # two of four steps, two passes each
