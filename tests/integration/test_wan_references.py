"""VACE: images beside the video (I) and at frames of it (F), together with a control video and its mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import grey_video, picture
from wan_passes import conditions_of
from wan_runs import Tiny, tiny_models

from Wan2GP.engine.wan.latents import encode, to_tensor
from Wan2GP.engine.wan.media import spans_of, window_of
from Wan2GP.engine.wan.vace import control_media
from Wan2GP.errors import InvalidInput
from Wan2GP.media import write_video

SIZE = {"width": 64, "height": 64}
FIRST, SECOND = picture(1, **SIZE), picture(2, **SIZE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    return tiny_models(tmp_path_factory)


@pytest.fixture
def control(tmp_path: Path) -> dict[str, Any]:
    """A control video of 17 frames; its first and its last four are kept."""
    guide = tmp_path / "guide.mkv"
    write_video(guide, [picture(30 + number, **SIZE) for number in range(17)], fps=16, codec="ffv1")
    mask = grey_video(tmp_path / "mask.mkv", [0] * 4 + [255] * 9 + [0] * 4, **SIZE)
    return {"video_guide": str(guide), "video_mask": str(mask)}


@pytest.mark.parametrize("architecture", ["vace_1.3B", "vace_14B_2_2"])
@pytest.mark.parametrize(
    ("letters", "more"),
    [("VMI", {}), ("VMFI", {"frames_positions": "9"}), ("VMF", {"frames_positions": "9 13"})],
)
def test_references_beside_or_in_the_video_act_beside_a_guide_and_a_mask(tiny, control, architecture, letters, more):
    """In the latents: a random decoder shows too little of them."""
    model = tiny(architecture)
    values = control | more | {"video_prompt_type": letters, "num_inference_steps": 2}
    latents = model.latents(**values, image_refs=[FIRST, SECOND])
    assert torch.equal(latents, model.latents(**values, image_refs=[FIRST, SECOND]))
    others = [model.latents(**values, image_refs=images) for images in ([SECOND, FIRST], [picture(3, **SIZE), SECOND])]
    for other in (*others, model.latents(**control, video_prompt_type="VM", num_inference_steps=2)):
        assert other.shape == latents.shape == (1, 16, 5, 8, 8)
        assert not torch.equal(other, latents)


def test_exactly_the_frames_asked_for_come_out(tiny, control):
    values = control | {"video_prompt_type": "VMFI", "frames_positions": "9", "image_refs": [FIRST, SECOND]}
    assert tiny("vace_1.3B").frames(**values, num_inference_steps=1).shape == (17, 64, 64, 3)


def test_an_image_with_a_position_is_kept_there_and_the_next_stands_beside(tiny, control):
    model = tiny("vace_1.3B")
    values = control | {"video_prompt_type": "VMFI", "frames_positions": "9", "image_refs_relative_size": 100}
    values |= {"image_refs": [FIRST, SECOND]}
    request = model.request(**values)
    (span,) = spans_of(request)
    window = window_of(request, 0, span, 1, np.zeros((0, 64, 64, 3), np.uint8))
    video, drawn = control_media(window)
    assert drawn[0, 0].amax(dim=(1, 2)).tolist() == [0] * 4 + [1] * 4 + [0] + [1] * 4 + [0] * 4
    assert torch.allclose(video[:, :, 8:9], to_tensor(FIRST[None]))
    assert torch.allclose(video[:, :, :4], to_tensor(np.stack([picture(30 + number, **SIZE) for number in range(4)])))
    control_latents = conditions_of(model, **values)._control
    assert control_latents.shape[2] == 1 + 5
    assert torch.allclose(control_latents[:, :16, :1], encode(model.parts, to_tensor(SECOND[None])), atol=1e-5)
    assert not control_latents[:, 32:, 0].any()


def test_a_position_without_an_image_is_refused(tiny, control):
    with pytest.raises(InvalidInput, match="names 2 frames, image_refs holds 1"):
        tiny("vace_1.3B").request(**control, video_prompt_type="VMFI", frames_positions="9 13", image_refs=[FIRST])
