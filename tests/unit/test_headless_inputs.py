"""What a model takes against what a task gives: every refusal names the option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headless.generation import GenerationTask, ModelInfo
from headless.inputs import FEEDS, check_inputs, generation_size
from headless.options import GenerationOptions
from headless.testing import ALL_INPUTS, FAKE_MODELS
from Wan2GP.errors import InvalidInput, InvalidMedia, Unsupported
from Wan2GP.media import write_image, write_video

MODELS = {model.name: model for model in FAKE_MODELS}

Check = Callable[..., None]


@pytest.fixture
def media(tmp_path: Path) -> dict[str, str]:
    """Good and bad files by kind."""
    grey = np.full((32, 32, 3), 128, np.uint8)
    write_image(tmp_path / "image.png", grey)
    write_video(tmp_path / "video.mp4", [grey] * 5, fps=16)
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "empty.png").touch()
    whole = (tmp_path / "video.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "sound.wav").write_bytes(b"RIFF")
    return {file.stem: str(file) for file in tmp_path.iterdir()} | {"missing": str(tmp_path / "missing.png")}


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(model: str | ModelInfo, **knobs: object) -> None:
        info = MODELS[model] if isinstance(model, str) else model
        options = GenerationOptions.parse({"prompt": "a kite"} | knobs)
        check_inputs(GenerationTask(id="a", model=info.name, options=options, output_dir=tmp_path), info)

    return run


def test_good_input_passes(check: Check, media: dict[str, str]) -> None:
    check("fake_t2v")
    check("fake_i2v", image_start=media["image"], image_end=media["image"])
    check("fake_vace", video_guide=media["video"], video_mask=media["video"], image_refs=[media["image"]])
    check("fake_vace", video_guide=media["video"], audio_guide=media["sound"])


@pytest.mark.parametrize(
    ("model", "field"), [("fake_t2v", "prompt"), ("fake_i2v", "image_start"), ("fake_vace", "video_guide")]
)
def test_a_missing_input_is_named(check: Check, model: str, field: str) -> None:
    blank = {"prompt": ""} if field == "prompt" else {}
    with pytest.raises(InvalidInput, match=f"^{field}: the model {model} cannot work without it") as caught:
        check(model, **blank)
    assert caught.value.field == field


def test_one_space_is_a_deliberate_empty_prompt(check: Check) -> None:
    check("fake_t2v", prompt=" ")


def test_a_continued_video_needs_no_start_image(check: Check, media: dict[str, str]) -> None:
    check("fake_i2v", video_source=media["video"])


def test_a_mask_without_a_control_video_is_refused(check: Check, media: dict[str, str]) -> None:
    model = ModelInfo(name="m", architecture="a", inputs=ALL_INPUTS, fps=16)
    with pytest.raises(InvalidInput, match=r"^video_mask: .*video_guide"):
        check(model, video_mask=media["video"])


@pytest.mark.parametrize(
    "field", ["image_start", "image_end", "video_source", "video_guide", "video_mask", "image_refs", "audio_guide"]
)
def test_content_that_the_model_does_not_take_is_refused(check: Check, media: dict[str, str], field: str) -> None:
    kind = "sound" if field == "audio_guide" else field.split("_")[0]
    with pytest.raises(Unsupported, match=f"^{field}: the model fake_t2v does not take it") as caught:
        check("fake_t2v", **{field: media[kind]})
    assert caught.value.field == field


def test_a_model_without_text_ignores_the_prompt(check: Check, media: dict[str, str]) -> None:
    model = ModelInfo(name="m", architecture="a", inputs=frozenset({"image_start"}), fps=16)
    check(model, image_start=media["image"])


def test_loras_on_a_model_without_them_are_refused(check: Check, media: dict[str, str]) -> None:
    model = ModelInfo(name="m", architecture="a", inputs=frozenset({"image_start"}), fps=16)
    with pytest.raises(Unsupported, match=r"^activated_loras:"):
        check(model, image_start=media["image"], activated_loras=["style.safetensors"])


@pytest.mark.parametrize("bad", ["missing", "empty", "text"])
def test_a_bad_image_is_named_with_its_option_and_file(check: Check, media: dict[str, str], bad: str) -> None:
    with pytest.raises(InvalidMedia, match=f"^image_start: .*{bad}.png"):
        check("fake_i2v", image_start=media[bad])


@pytest.mark.parametrize("bad", ["cut", "image", "text"])
def test_a_bad_video_is_named_with_its_option_and_file(check: Check, media: dict[str, str], bad: str) -> None:
    with pytest.raises(InvalidMedia, match=f"^video_guide: .*{bad}"):
        check("fake_vace", video_guide=media[bad])


def test_every_reference_is_looked_at(check: Check, media: dict[str, str]) -> None:
    with pytest.raises(InvalidMedia, match=r"^image_refs: .*missing\.png"):
        check("fake_vace", video_guide=media["video"], image_refs=[media["image"], media["missing"]])


def test_sizes_are_floored_to_the_models_block() -> None:
    options = GenerationOptions(resolution="902x508")
    assert generation_size(options, MODELS["fake_t2v"]) == (896, 496)
    assert generation_size(GenerationOptions(), MODELS["fake_t2v"]) is None


def test_a_size_below_one_block_is_refused(check: Check) -> None:
    model = ModelInfo(name="m", architecture="a", inputs=frozenset({"text"}), fps=16, pixel_block=64)
    with pytest.raises(InvalidInput, match=r"^resolution: .*at least 64 pixels"):
        check(model, resolution="48x64")


def test_every_option_that_feeds_a_model_exists() -> None:
    assert set(FEEDS) <= set(GenerationOptions.model_fields)
    assert set(FEEDS.values()) == ALL_INPUTS


def test_an_anchor_is_taken_where_a_video_goes_on_by_svi(check: Check, media: dict[str, str]) -> None:
    model = ModelInfo(name="m", architecture="a", inputs=frozenset({"text", "video_source"}), fps=16, svi=True)
    given = {"video_source": media["video"], "image_refs": [media["image"]]}
    check(model, svi2pro=1, **given)
    with pytest.raises(Unsupported, match=r"^image_refs: the model m does not take it"):
        check(model, **given)


@pytest.mark.parametrize("model", ["fake_vace", "fake_t2v", "fake_i2v"])
def test_svi_on_a_model_that_cannot_do_it_is_refused(check: Check, model: str) -> None:
    with pytest.raises(Unsupported, match=f"^svi2pro: the model {model} cannot"):
        check(model, svi2pro=True)
    check("fake_t2v", svi2pro=False)
