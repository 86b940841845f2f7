"""The generation call's parameters, and what a request makes of them."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from engine_runs import grey_video, picture

from headless.options import GenerationOptions
from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.engine.request import parse_request
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.parameters import PARAMETERS, asked

READS = frozenset({"image_start", "prompt", "seed"})
LORAS = Path("loras")


def parsed(**values):
    return parse_request(values, load_definitions()["draft"], READS, LORAS)


@pytest.mark.parametrize("call", [wgp.generate_video, wgp.generate_media])
def test_every_parameter_is_a_keyword_with_a_default(call):
    signature = inspect.signature(call)
    assert list(signature.parameters) == list(PARAMETERS)
    assert all(p.default is not inspect.Parameter.empty for p in signature.parameters.values())
    assert list(signature.parameters)[:2] == ["task", "send_cmd"]


def test_every_generation_option_is_a_parameter_of_the_engine():
    assert set(GenerationOptions.model_fields) <= set(inspect.signature(wgp.generate_video).parameters)


def test_an_unknown_keyword_is_a_type_error_that_names_the_nearest():
    with pytest.raises(TypeError, match=r"generate_video\(\).*'guidance_scal'.*'guidance_scale'"):
        wgp.generate_video(guidance_scal=3)


def test_importing_the_facade_imports_no_torch():
    program = "import sys, Wan2GP.wgp; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_equals_the_default_or_is_none_was_not_asked_for():
    values = {"seed": -1, "image_refs": None, "activated_loras": [], "slg_layers": [9], "custom_settings": {}}
    assert asked(values) == frozenset()
    assert asked({"seed": 0, "slg_layers": [4]}) == {"seed", "slg_layers"}


@pytest.mark.parametrize(("given", "made"), [(5, 5), (8, 9), (9, 9), (20, 21), (48, 49), (49, 49), (82, 81), (84, 85)])
def test_lengths_become_four_k_plus_one_as_in_a_travel(given, made):
    request = parsed(video_length=given)
    assert request.num_frames == made
    assert bool(request.notes) == (given != made)


def test_a_length_below_the_least_is_raised_with_a_note():
    request = parsed(video_length=2)
    assert request.num_frames == 5
    assert "video_length raised from 2 to 5" in request.notes[0]


def test_sizes_are_floored_to_the_pixel_block():
    assert parsed(resolution="902x508").size == (896, 496)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resolution", "wide"),
        ("resolution", "8x8"),
        ("video_length", -3),
        ("video_length", 9.5),
        ("seed", "lucky"),
        ("guidance_scale", float("nan")),
        ("force_fps", "0"),
        ("num_inference_steps", 0),
    ],
)
def test_values_that_cannot_be_used_are_refused(field, value):
    with pytest.raises(InvalidInput):
        parsed(**{field: value})


def test_content_that_the_model_cannot_honour_is_refused_by_name():
    for field, value in {
        "activated_loras": ["a.safetensors"],
        "image_refs": [picture(1)],
        "audio_guide": "a.wav",
    }.items():
        with pytest.raises(Unsupported, match=field) as caught:
            parsed(**{field: value})
        assert caught.value.field == field


def test_settings_that_the_model_ignores_become_one_note():
    request = parsed(seed=3, guidance_scale=7.0, NAG_scale=2.0, num_inference_steps=30)
    assert request.notes == ("ignored by draft: NAG_scale, guidance_scale",)


def test_a_random_seed_is_drawn_when_none_is_given():
    assert parsed().seed != parsed().seed
    assert parsed(seed=7).seed == 7


def test_fps_follows_the_control_video_when_asked(tmp_path: Path):
    guide = grey_video(tmp_path / "guide.mkv", [0] * 5)
    values = {"video_guide": str(guide)}
    definition = load_definitions()["draft"]
    reads = frozenset({"video_guide"})
    assert parse_request(values | {"force_fps": "control"}, definition, reads, LORAS).fps == 16
    assert parse_request(values | {"force_fps": "24"}, definition, reads, LORAS).fps == 24
    assert parse_request({"force_fps": "auto"}, definition, reads, LORAS).fps == definition.architecture.fps


def test_a_batch_of_videos_is_noted_as_ignored():
    reads = READS | {"batch_size"}
    definition = load_definitions()["draft"]
    assert parse_request({"batch_size": 3}, definition, reads, LORAS).notes == ("ignored by draft: batch_size",)
    assert parse_request({"batch_size": 3, "image_mode": 1}, definition, reads, LORAS).notes == ()


def test_inpainting_is_refused_rather_than_done_without_a_mask():
    with pytest.raises(Unsupported, match="image_mode: 2, image inpainting"):
        parsed(image_mode=2)


def test_what_a_row_asks_for_is_ignored_or_refused_as_openly_as_what_the_caller_does(tmp_path: Path):
    row = {"model": {"name": "Mine", "architecture": "draft"}, "NAG_scale": 4}
    (tmp_path / "mine.json").write_text(json.dumps(row))
    assert parse_request({}, load_definitions([tmp_path])["mine"], READS, LORAS).notes == (
        "ignored by mine: NAG_scale",
    )
    (tmp_path / "mine.json").write_text(json.dumps(row | {"activated_loras": ["style.safetensors"]}))
    with pytest.raises(Unsupported, match="activated_loras"):
        parse_request({}, load_definitions([tmp_path])["mine"], READS, LORAS)
