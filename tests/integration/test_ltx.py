"""LTX-Video: every definition on tiny weights, against diffusers' own pipelines, and what it is given to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import Run, grey_video, picture, run_engine
from PIL import Image
from safetensors.torch import save_file
from stock_runs import TinyWeights, definitions_of
from tiny_ltx import tiny_ltx, tiny_ltx_upsampler

from Wan2GP import wgp
from Wan2GP.errors import InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import probe_video, write_video

NAMES = definitions_of("ltx")
CALL = {
    "prompt": "a red circle",
    "negative_prompt": "a blue square",
    "resolution": "32x32",
    "video_length": 17,
    "num_inference_steps": 4,
    "seed": 5,
    "plugin_data": {"lossless": True},
}
#: what is published for 0.9.7
PUBLISHED = {
    "decode_timestep": 0.05,
    "decode_noise_scale": 0.025,
    "image_cond_noise_scale": 0.0,
    "guidance_rescale": 0.7,
}
DISTILLED = [1000, 993, 987, 981, 975, 909, 725, 0.03]
START, END, MIDDLE = (picture(number, 32, 32) for number in (1, 2, 3))
#: one level of 255: diffusers' pictures and ours are rounded from the same numbers
LEVEL = 1


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> TinyWeights:
    return TinyWeights({"ltxv_13B": tiny_ltx}, lambda name: tmp_path_factory.mktemp(name))


@pytest.fixture
def engine(weights, tmp_path: Path):
    rows = tmp_path / "rows"
    with weights.under(rows, *NAMES):
        yield rows


@pytest.fixture
def upsampler(engine: Path) -> Path:
    return tiny_ltx_upsampler(engine / "ltxv-spatial-upscaler-0.9.7")


def run(name: str = "ltxv_13B", **values: Any) -> Run:
    made = run_engine(model_type=name, **CALL | values)
    assert made.returned and made.data("error") == [], made.data("error")
    return made


def frames(name: str = "ltxv_13B", **values: Any) -> np.ndarray:
    return run(name, **values).frames()


@pytest.fixture(scope="module")
def diffusers_own(weights) -> Any:
    """diffusers' own pipeline, loaded by its own loader."""
    from diffusers import LTXConditionPipeline

    pipeline = LTXConditionPipeline.from_pretrained(weights.of("ltxv_13B"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(pipeline: Any, **call: Any) -> np.ndarray:
    """(F, H, W, 3) of diffusers' own pipeline."""
    return np.asarray(called(pipeline, **call)[0])


def called(pipeline: Any, seed: int = 5, **call: Any) -> Any:
    common: dict[str, Any] = {
        "prompt": CALL["prompt"],
        "negative_prompt": CALL["negative_prompt"],
        "width": 32,
        "height": 32,
        "num_frames": 17,
        "frame_rate": 30,
        "guidance_scale": 5.0,
        "output_type": "np",
    }
    if "timesteps" not in call:
        common["num_inference_steps"] = 4
    return pipeline(generator=torch.Generator().manual_seed(seed), **common | PUBLISHED | call).frames


def image(picture_: np.ndarray, index: int, strength: float = 1.0) -> Any:
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    return LTXVideoCondition(image=Image.fromarray(picture_), frame_index=index, strength=strength)


def video(pictures: list[np.ndarray], index: int) -> Any:
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    return LTXVideoCondition(video=[Image.fromarray(each) for each in pictures], frame_index=index)


def require_equal(ours: np.ndarray, other: np.ndarray) -> None:
    """The same floats, rounded."""
    assert ours.shape == other.shape and ours.std() > 10
    assert np.abs(ours.astype(int) - np.rint(other * 255)).max() <= LEVEL
    assert np.mean(ours != np.rint(other * 255)) < 1e-3


def moving(path: Path, count: int) -> list[np.ndarray]:
    """Frames of a clip, which is written losslessly."""
    pictures = [picture(100 + number // 4, 32, 32) for number in range(count)]
    write_video(path, pictures, fps=30, codec="ffv1")
    return pictures


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_makes_its_video_and_makes_it_again(engine, name: str):
    values = CALL | {"model_type": name, "image_start": START, "image_end": END, "plugin_data": None}
    first, again = run_engine(**values), run_engine(**values)
    info = probe_video(first.files[0])
    assert (info.num_frames, info.width, info.height, float(info.fps)) == (17, 32, 32, 30)
    assert first.frames().std() > 1 and np.array_equal(first.frames(), again.frames())


def test_text_to_video_equals_diffusers(engine, diffusers_own):
    ours = frames()
    require_equal(ours, theirs(diffusers_own))
    assert not np.array_equal(ours, frames(guidance_scale=2))


def test_the_distilled_model_runs_its_own_levels_without_guidance(engine, diffusers_own):
    made = run("ltxv_distilled", num_inference_steps=30)
    require_equal(made.frames(), theirs(diffusers_own, timesteps=DISTILLED, guidance_scale=1.0))
    told = [data[0] for data in made.data("progress") if data[1] == "denoising"]
    assert told[-1] == (8, 8)


def test_start_and_end_image_and_pictures_between_stand_where_they_are_asked(engine, diffusers_own):
    ours = frames(
        image_start=START,
        image_end=END,
        image_refs=[MIDDLE],
        frames_positions="6",
        video_prompt_type="F",
        input_video_strength=0.8,
    )
    conditions = [image(START, 0, 0.8), image(MIDDLE, 5, 0.8), image(END, 16, 0.8)]
    require_equal(ours, theirs(diffusers_own, conditions=conditions))
    assert not np.array_equal(ours, frames(image_start=START, image_end=END))


def test_a_video_goes_on_after_its_own_frames(engine, diffusers_own, tmp_path: Path):
    source = moving(tmp_path / "source.mkv", 12)
    ours = frames(video_source=str(tmp_path / "source.mkv"))
    assert ours.shape == (12 + 17 - 9, 32, 32, 3)
    assert np.array_equal(ours[:12], np.stack(source))
    require_equal(ours[12:], theirs(diffusers_own, conditions=[video(source[3:], 0)])[9:])


def test_an_overlap_of_any_length_is_taken_whole(engine, diffusers_own, tmp_path: Path):
    source = moving(tmp_path / "source.mkv", 12)
    ours = frames(video_source=str(tmp_path / "source.mkv"), sliding_window_overlap=11)
    rest = [image(source[10], 9), image(source[11], 10)]
    require_equal(ours[12:], theirs(diffusers_own, conditions=[video(source[1:10], 0), *rest])[11:])


def test_control_frames_stay_where_their_mask_is_black(engine, diffusers_own, tmp_path: Path):
    guide = moving(tmp_path / "guide.mkv", 25)
    black = range(7, 18)
    mask = grey_video(tmp_path / "mask.mkv", [0 if number in black else 255 for number in range(25)], 32, 32)
    media = {"video_guide": str(tmp_path / "guide.mkv"), "video_mask": str(mask), "video_prompt_type": "VA"}
    ours = frames(**media, video_length=25)
    conditions = [image(guide[7], 7), video(guide[8:17], 8), image(guide[17], 17)]
    require_equal(ours, theirs(diffusers_own, conditions=conditions, num_frames=25))
    white = [255 - level for level in (0 if number in black else 255 for number in range(25))]
    other = grey_video(tmp_path / "other.mkv", white, 32, 32)
    inverted = frames(**media | {"video_mask": str(other), "video_prompt_type": "VNA"}, video_length=25)
    assert np.array_equal(ours, inverted)


def test_listed_control_frames_are_given_without_a_mask(engine, diffusers_own, tmp_path: Path):
    guide = moving(tmp_path / "guide.mkv", 17)
    media = {"video_guide": str(tmp_path / "guide.mkv"), "video_prompt_type": "V"}
    ours = frames(**media, keep_frames_video_guide="1 13")
    require_equal(ours, theirs(diffusers_own, conditions=[image(guide[0], 0), image(guide[12], 12)]))


def test_a_control_video_is_redrawn_from_some_noise_on_it(engine, diffusers_own, tmp_path: Path):
    guide = moving(tmp_path / "guide.mkv", 17)
    media = {"video_guide": str(tmp_path / "guide.mkv"), "video_prompt_type": "VG"}
    made = run(**media, denoising_strength=0.5)
    told = [data[0] for data in made.data("progress") if data[1] == "denoising"]
    assert told == [(0, 2), (1, 2), (2, 2)]
    pipeline = diffusers_own
    pixels = pipeline.video_processor.preprocess_video([Image.fromarray(each) for each in guide], 32, 32)
    with torch.no_grad():
        latents = pipeline.vae.encode(pixels).latent_dist.mode()
    latents = pipeline._normalize_latents(latents, pipeline.vae.latents_mean, pipeline.vae.latents_std)
    require_equal(made.frames(), np.asarray(called(pipeline, latents=latents, denoise_strength=0.5)[0]))


@pytest.mark.parametrize(
    ("name", "first", "second", "adain"),
    [
        ("ltxv_13B", {}, {"num_inference_steps": 10, "denoise_strength": 0.4}, 0.0),
        (
            "ltxv_distilled",
            {"timesteps": DISTILLED, "guidance_scale": 1.0},
            {"timesteps": [1000, 909, 725, 421, 0], "denoise_strength": 0.999, "guidance_scale": 1.0},
            1.0,
        ),
    ],
)
def test_two_passes_equal_the_published_recipe(engine, diffusers_own, upsampler, name, first, second, adain):
    from diffusers import LTXLatentUpsamplePipeline
    from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

    ours = run(name, hires_scale=1.5, image_start=START, resolution="96x64")
    pipeline = diffusers_own
    enlarge = LTXLatentUpsamplePipeline(
        pipeline.vae, LTXLatentUpsamplerModel.from_pretrained(upsampler / "latent_upsampler")
    )
    enlarge.set_progress_bar_config(disable=True)
    start = np.asarray(Image.fromarray(START))
    given = [image(_stretched(start, (96, 64)), 0)]
    # 96x64 by 1.5 is 64x43, floored to blocks of 32; the upsampler makes 128x64 of it.
    small = called(pipeline, conditions=given, width=64, output_type="latent", **first)
    large = enlarge(latents=small, height=64, width=128, adain_factor=adain, output_type="latent").frames
    assert large.shape[-2:] == (2, 4)
    refined = called(pipeline, conditions=given, width=128, height=64, latents=large, **second)[0]
    wanted = np.stack([_stretched(np.rint(each * 255).astype(np.uint8), (96, 64)) for each in np.asarray(refined)])
    made = ours.frames()
    assert made.shape == (17, 64, 96, 3) and np.abs(made.astype(int) - wanted).max() <= LEVEL
    told = [data[0] for data in ours.data("progress") if data[1] == "denoising"]
    total = 12 if name == "ltxv_distilled" else 8
    assert told[-1] == (total, total) and told == sorted(told)


def _stretched(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from Wan2GP.media import resize

    return resize(frame, size)


def test_a_second_pass_without_its_network_is_refused(engine):
    made = run_engine(model_type="ltxv_13B", **CALL | {"hires_scale": 2, "resolution": "64x64"})
    (error,) = made.data("error")
    assert isinstance(error, ModelUnavailable) and "latent_upsampler" in str(error)
    assert not made.returned and made.files == []
    assert "denoising" not in {data[1] for data in made.data("progress")}, "the first pass was for nothing"


def test_a_long_video_is_made_in_windows(engine, diffusers_own):
    ours = frames(video_length=41, sliding_window_size=25, multi_prompts_gen_type="W", prompt="a red circle\na ring")
    assert ours.shape == (41, 32, 32, 3)
    first = np.rint(theirs(diffusers_own, num_frames=25) * 255).astype(np.uint8)
    require_equal(ours[:25], first / 255)
    second = theirs(diffusers_own, seed=6, prompt="a ring", num_frames=25, conditions=[video(list(ours[16:25]), 0)])
    require_equal(ours[25:], second[9:])


def test_a_schedule_that_adds_noise_at_each_step_is_repeated_too(engine, tmp_path: Path):
    plain = frames()
    folder = tiny_ltx(tmp_path / "noisy")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"stochastic_sampling": True}))
    (engine / "ltxv_13B.json").write_text(json.dumps({"model": {"source": str(folder), "devices": []}}))
    wgp.configure(definitions=[engine])
    wgp.release_model()
    noisy = frames()
    assert np.array_equal(noisy, frames()) and not np.array_equal(noisy, plain)


@pytest.mark.parametrize(("asked", "made"), [(260, 257), (250, 249), (16, 17), (24, 25)])
def test_lengths_are_one_more_than_a_multiple_of_eight(engine, asked: int, made: int):
    taken = run(video_length=asked, resolution="32x32", num_inference_steps=1)
    assert probe_video(taken.files[0]).num_frames == made
    assert any(f"to {made}" in note for note in taken.data("info"))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"video_length": 300, "sliding_window_size": 300}, "sliding_window_size"),
        ({"hires_scale": 3}, "hires_scale"),
        ({"image_refs": [MIDDLE]}, "image_refs"),
        ({"image_refs": [MIDDLE], "video_prompt_type": "F", "frames_positions": "3 5"}, "frames_positions"),
        ({"image_mode": 1}, "image_mode"),
        ({"input_video_strength": 2}, "input_video_strength"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model_is_loaded(engine, values: dict[str, Any], field: str):
    with pytest.raises(InvalidInput) as refused:
        run(**values)
    assert refused.value.field == field


def test_control_videos_that_cannot_be_taken_as_meant_are_refused(engine, tmp_path: Path):
    moving(tmp_path / "guide.mkv", 17)
    media = {"video_guide": str(tmp_path / "guide.mkv")}
    with pytest.raises(Unsupported, match="pose"):
        run(**media, video_prompt_type="PV")
    with pytest.raises(InvalidInput, match="again"):
        run(**media, video_prompt_type="V")
    with pytest.raises(InvalidInput, match="less than one"):
        run(**media, video_prompt_type="VG", denoising_strength=0.1)
    half = np.zeros((32, 32, 3), np.uint8)
    half[:16] = 255
    write_video(tmp_path / "mask.mkv", [half] * 17, fps=30, codec="ffv1")
    with pytest.raises(Unsupported, match="whole frames"):
        run(**media, video_mask=str(tmp_path / "mask.mkv"), video_prompt_type="VA")
    # Below full strength the whole video steers.
    assert len(frames(**media, video_prompt_type="V", input_video_strength=0.5)) == 17


def test_a_cancelled_run_leaves_no_file_and_harms_no_later_one(engine):
    before = frames(image_start=START)

    def stop(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "denoising" and data[0][0] == 2:
            wgp.abort_generation(state)

    cancelled = run_engine(stop, model_type="ltxv_13B", **CALL | {"image_start": START})
    assert cancelled.returned and cancelled.files == []
    assert [data[0] for data in cancelled.data("progress") if data[1] == "denoising"][-1] == (2, 4)
    assert not [data for data in cancelled.data("progress") if data[1] == "decoding"]
    assert np.array_equal(before, frames(image_start=START))


LAYER = "transformer_blocks.0.attn1.to_q"


def test_a_lora_counts_in_its_passes_and_leaves_the_weights_as_they_were(engine, upsampler):
    lora = engine / "loras" / "ltxv" / "strong.safetensors"
    lora.parent.mkdir(parents=True)
    shapes = {"lora_A": (4, 32), "lora_B": (32, 4)}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"diffusion_model.{LAYER}.{side}.weight": torch.randn(shape, generator=generator)
        for side, shape in shapes.items()
    }
    save_file(tensors, lora)
    passes = {"hires_scale": 2, "resolution": "64x64", "activated_loras": ["strong.safetensors"]}
    plain = frames(hires_scale=2, resolution="64x64")
    weights = wgp.wan_model._pipeline.transformer.get_parameter(f"{LAYER}.weight")
    untouched = weights.clone()
    both, second, none = (frames(**passes, loras_multipliers=text) for text in ("1", "0;1", "0;0"))
    assert torch.equal(weights, untouched)
    assert np.array_equal(plain, none)
    assert not np.array_equal(plain, second) and not np.array_equal(both, second)


def test_a_folder_that_lacks_weights_is_refused_by_name(engine, tmp_path: Path):
    from safetensors.torch import load_file

    folder = tiny_ltx(tmp_path / "broken")
    file = next(folder.glob("vae/*.safetensors"))
    save_file(dict(list(load_file(file).items())[1:]), file)
    (engine / "ltxv_13B.json").write_text(f'{{"model": {{"source": "{folder}", "devices": []}}}}', encoding="utf-8")
    wgp.configure(definitions=[engine])
    with pytest.raises(ModelUnavailable, match="lacks"):
        run()


@pytest.mark.slow
@pytest.mark.parametrize("given", ["video_guide", "video_source"])
def test_videos_that_were_read_before_its_turn_make_the_same_frames_without_their_files(
    engine: Path, tmp_path: Path, given: str
) -> None:
    clip = grey_video(tmp_path / "clip.mkv", [20 * number for number in range(1, 10)])
    values = CALL | {"model_type": "ltxv_13B", "num_inference_steps": 1, given: str(clip), "video_prompt_type": "V"}
    values |= {"keep_frames_video_guide": "1:9"} if given == "video_guide" else {"sliding_window_overlap": 1}
    plain = run_engine(**values).frames()
    prepared = wgp.prepare_generation(**values)
    assert prepared.ahead is not None and prepared.ahead.num_bytes > 0
    clip.unlink()
    again = run_engine(**values | {"plugin_data": {"prepared": prepared}})
    assert again.returned and np.array_equal(again.frames(), plain)
