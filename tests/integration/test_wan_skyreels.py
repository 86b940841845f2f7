"""SkyReels V2 diffusion forcing on tiny random weights: against diffusers' own pipelines, and through the real call."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    SkyReelsV2DiffusionForcingImageToVideoPipeline,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
)
from engine_runs import picture, run_engine
from PIL import Image
from tiny_models import tiny_t5_tokenizer, write_definition
from transformers import UMT5Config, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from Wan2GP import wgp
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.lora.merging import LoraSet
from Wan2GP.engine.request import parse_request
from Wan2GP.engine.wan.conditions import Prompts
from Wan2GP.engine.wan.forcing import Stagger, rounds_of
from Wan2GP.engine.wan.loop import denoise
from Wan2GP.engine.wan.media import spans_of, window_of
from Wan2GP.engine.wan.model import Wan
from Wan2GP.engine.wan.skyreels import DiffusionForcing
from Wan2GP.engine.wan.solvers import noise_like
from Wan2GP.engine.wan.steps import plan_steps
from Wan2GP.engine.wan.text import encode_prompts
from Wan2GP.errors import GenerationCancelled, InvalidInput, Unsupported
from Wan2GP.media import probe_video, read_frames, write_video

STEPS = 4
CLIP = {
    "model_type": "sky",
    "prompt": "a red circle moving right",
    "negative_prompt": "a blue square",
    "resolution": "64x64",
    "video_length": 17,
    "seed": 5,
}


class Unaliased(UniPCMultistepScheduler):
    """The pipelines hand a view of the latents to the scheduler, which keeps it, and then overwrite it, so that their
    second step corrects from the wrong place. With a copy it is the sampler as published, and as ours is."""

    def step(self, model_output, timestep, sample, return_dict=True):
        return super().step(model_output, timestep, sample.clone(), return_dict=return_dict)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny_sky")
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    tokenizer = tiny_t5_tokenizer()
    text = UMT5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    vae = {"base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    transformer = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16}
    sizes = {"text_dim": 32, "freq_dim": 256, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32}
    SkyReelsV2DiffusionForcingPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text).eval(),
        vae=AutoencoderKLWan(**vae, temperal_downsample=[False, True, True]),
        transformer=SkyReelsV2Transformer3DModel(**transformer, **sizes, inject_sample_info=True),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def engine(weights: Path, tmp_path: Path):
    settings = {"num_inference_steps": STEPS, "guidance_scale": 3, "flow_shift": 8, "sliding_window_overlap": 17}
    folder = write_definition(tmp_path / "models", "sky", "sky_df_1.3B", weights, **settings)
    wgp.configure(checkpoints=tmp_path / "ckpts", definitions=[folder], save_path=tmp_path / "out", device="cpu")
    yield
    wgp.configure(definitions=[])


@pytest.fixture(scope="module", autouse=True)
def released():
    yield
    wgp.release_model()


def request_of(**values):
    if wgp.transformer_type != "sky":
        wgp.load_models("sky")
    request = parse_request(CLIP | values, wgp.definitions()["sky"], Wan.reads, Path())
    Wan.check(request)
    return request


def frames_of(**values) -> np.ndarray:
    """The frames as the model hands them over, before they are encoded."""
    request = request_of(**values)
    return np.stack(list(wgp.wan_model.generate(request, lambda *_: None, Cancel(lambda: False))))


def conditions_of(**values) -> DiffusionForcing:
    """The conditions of a video's first window."""
    request = request_of(**values)
    prefix = np.zeros((0, 64, 64, 3), np.uint8)
    window = window_of(request, 0, spans_of(request)[0], 1, prefix)
    prompts = Prompts(*encode_prompts(wgp.wan_model._parts, [request.prompt, request.negative_prompt]))
    return DiffusionForcing(wgp.wan_model._parts, request, window, prompts)


def latents_of(conditions: DiffusionForcing, memory=None, passes: list[int] | None = None, cancel=None) -> torch.Tensor:
    """What the loop makes of them; the numbers of its passes are added to `passes`."""
    request, experts = conditions.request, conditions.parts.experts
    steps, levels = plan_steps(request.sampling, tuple(experts))
    seen = [] if passes is None else passes
    cancel = cancel or Cancel(lambda: False)
    report = lambda _, number, __: seen.append(number)  # noqa: E731
    return denoise(conditions, steps, levels, request.seed, LoraSet(experts, [], []), memory or Kept(), report, cancel)


def diffusers_latents(conditions: DiffusionForcing, num_frames: int, image=None, **options) -> torch.Tensor:
    parts, request = conditions.parts, conditions.request
    scheduler = Unaliased(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    kind = SkyReelsV2DiffusionForcingPipeline if image is None else SkyReelsV2DiffusionForcingImageToVideoPipeline
    pipeline = kind(parts.tokenizer, parts.text_encoder, parts.transformer, parts.vae, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    try:
        return pipeline(
            **({} if image is None else {"image": Image.fromarray(image)}),
            prompt=None,
            prompt_embeds=conditions.prompts.positive,
            negative_prompt_embeds=conditions.prompts.negative,
            height=64,
            width=64,
            num_frames=num_frames,
            num_inference_steps=request.sampling.num_inference_steps,
            guidance_scale=request.sampling.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            fps=int(request.fps),
            output_type="latent",
            **options,
        ).frames
    finally:
        parts.transformer.register_to_config(num_frame_per_block=1)


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    assert first.shape == second.shape
    assert first.std() > 0.1
    return float((first - second).abs().max())


@pytest.mark.parametrize("fps", ["", "24"])
@pytest.mark.parametrize("video_length", [17, 33])
def test_frames_denoised_together_equal_diffusers(video_length, fps):
    conditions = conditions_of(video_length=video_length, force_fps=fps)
    theirs = diffusers_latents(conditions, video_length)
    assert largest_difference(latents_of(conditions), theirs) < 1e-4


@pytest.mark.parametrize(("steps", "passes"), [(STEPS, 2 * STEPS), (7, 12)])
def test_blocks_one_after_the_other_equal_diffusers(steps, passes):
    conditions = conditions_of(video_length=37, model_mode=5, num_inference_steps=steps)
    reported: list[int] = []
    ours = latents_of(conditions, passes=reported)
    assert reported == list(range(passes + 1))
    assert largest_difference(ours, diffusers_latents(conditions, 37, ar_step=5, causal_block_size=5)) < 1e-4
    assert largest_difference(ours, diffusers_latents(conditions, 37)) > 1e-2


def test_a_length_that_is_no_whole_number_of_blocks_is_cut_from_one_that_is():
    longer = latents_of(conditions_of(video_length=37, model_mode=5))
    cut = latents_of(conditions_of(video_length=33, model_mode=5))
    assert torch.equal(cut, longer[:, :, :9])


def test_a_start_image_equals_diffusers_and_stays():
    image = picture(1, 64, 64)
    conditions = conditions_of(video_length=33, image_start=image, force_fps="24")
    ours = latents_of(conditions)
    assert largest_difference(ours, diffusers_latents(conditions, 33, image)) < 1e-4
    assert torch.equal(ours[:, :, :1], conditions.encoded(image[None]))


def test_a_start_image_counts_in_blocks_too():
    image = picture(1, 64, 64)
    conditions = conditions_of(video_length=37, image_start=image, model_mode=5)
    ours = latents_of(conditions)
    assert torch.equal(ours[:, :, :1], conditions.encoded(image[None]))
    assert largest_difference(ours[:, :, 1:], latents_of(conditions_of(video_length=37, model_mode=5))[:, :, 1:]) > 1e-2


def test_rounds_are_those_of_diffusers():
    theirs = SkyReelsV2DiffusionForcingPipeline.generate_timestep_matrix
    steps, _ = plan_steps(request_of(num_inference_steps=7).sampling, ("transformer",))
    timesteps = torch.tensor([999, 979, 952, 914, 857, 762, 573])
    for frames, block, lag, known in [
        (5, 5, 0, 0),
        (9, 9, 0, 2),
        (10, 5, 5, 0),
        (20, 5, 3, 5),
        (6, 2, 9, 2),
        (4, 1, 1, 1),
    ]:
        # Without a lag diffusers wants blocks of one frame, which all move together.
        matrix, _, updated, _ = theirs(None, frames, timesteps, frames, lag, known, block if lag else 1)
        stagger = Stagger(frames, known, block, lag, len(steps))
        rounds = rounds_of(stagger, steps, given=0)
        assert [list(one.moments) for one in rounds] == matrix.tolist()
        for number, moved in enumerate(updated.tolist()):
            drawn = {frame for at, _ in stagger.at_work(number) for frame in range(frames)[stagger.blocks[at]]}
            assert drawn - set(range(known)) == {frame for frame, moves in enumerate(moved) if moves}
        assert [one.index for one in rounds] == sorted(one.index for one in rounds)
        assert {one.index for one in rounds} == set(range(len(steps)))


@pytest.mark.parametrize("mode", [0, 5])
def test_noise_on_given_frames_comes_from_the_seed_and_the_model_is_told(mode):
    image = picture(1, 64, 64)
    values = {"image_start": image, "model_mode": mode, "video_length": 37}
    seen: list[dict] = []
    conditions = conditions_of(**values, sliding_window_overlap_noise=20)
    transformer = conditions.parts.transformer
    hook = transformer.register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    first = latents_of(conditions)
    hook.remove()
    clean = conditions.encoded(image[None])
    noise = noise_like(torch.empty(conditions.latent_shape), torch.Generator("cpu").manual_seed(CLIP["seed"]))
    for given in seen:
        assert given["timestep"][0, 0] == 20
        assert torch.allclose(given["hidden_states"][:, :, :1], 0.98 * clean + 0.02 * noise[:, :, :1])
    assert torch.equal(first[:, :, :1], clean)
    assert torch.equal(first, latents_of(conditions_of(**values, sliding_window_overlap_noise=20)))
    assert largest_difference(first[:, :, 1:], latents_of(conditions_of(**values))[:, :, 1:]) > 1e-4


class Kept:
    """A memory that holds the latest state as bytes, as a file would."""

    def __init__(self) -> None:
        self.file: bytes | None = None

    def load(self):
        return None if self.file is None else torch.load(io.BytesIO(self.file), weights_only=True)

    def keep(self, state, at_once: bool = False) -> None:
        file = io.BytesIO()
        torch.save(state(), file)
        self.file = file.getvalue()


@pytest.mark.parametrize("mode", [0, 5])
def test_an_interrupted_run_goes_on_where_it_was(mode):
    values = {"image_start": picture(1, 64, 64), "model_mode": mode, "video_length": 37}
    values |= {"sliding_window_overlap_noise": 20, "apg_switch": 1}
    whole = latents_of(conditions_of(**values))
    memory, passes = Kept(), []
    with pytest.raises(GenerationCancelled):
        latents_of(conditions_of(**values), memory, passes, Cancel(lambda: 3 in passes))
    assert passes == [0, 1, 2, 3]
    passes.clear()
    assert torch.equal(latents_of(conditions_of(**values), memory, passes), whole)
    assert passes[:2] == [3, 4]


def test_windows_join_and_repeat_bit_equal():
    values = {"video_length": 41, "sliding_window_size": 29, "sliding_window_overlap_noise": 20}
    first, again = frames_of(**values), frames_of(**values)
    assert first.shape == (41, 64, 64, 3)
    assert np.array_equal(first, again)
    alone = frames_of(video_length=29)
    assert np.array_equal(first[:29], alone)


@pytest.mark.parametrize("mode", [0, 5])
def test_a_video_is_continued(tmp_path: Path, mode):
    source = np.stack([np.roll(picture(2, 64, 64), shift, axis=1) for shift in range(20)])
    path, other = tmp_path / "source.mkv", tmp_path / "other.mkv"
    write_video(path, list(source), fps=16, codec="ffv1")
    write_video(other, list(source[::-1]), fps=16, codec="ffv1")
    run = run_engine(**CLIP | {"video_length": 33}, video_source=str(path), model_mode=mode)
    assert run.data("error") == []
    frames = frames_of(video_length=33, video_source=str(path), model_mode=mode)
    assert len(frames) == probe_video(run.files[-1]).num_frames == 20 + 33 - 17
    assert np.array_equal(frames[:20], np.stack(list(read_frames(path))))
    elsewhere = frames_of(video_length=33, video_source=str(other), model_mode=mode)
    assert not np.array_equal(frames[20:], elsewhere[20:])


@pytest.mark.parametrize(("asked", "made"), [(5, 17), (17, 17), (20, 21), (37, 37)])
def test_files_have_exactly_the_frames(asked, made):
    run = run_engine(**CLIP | {"video_length": asked}, model_mode=5)
    info = probe_video(run.files[-1])
    assert (info.num_frames, info.width, info.height, info.fps) == (made, 64, 64, 16)


def test_cancel_between_blocks_makes_no_file_and_leaves_the_model_as_it_was():
    whole = frames_of(video_length=37)

    def stop(command, data, state):
        if command == "progress" and data[1] == "denoising" and data[0][0] == 5:
            wgp.abort_generation(state)

    run = run_engine(stop, **CLIP | {"video_length": 37}, model_mode=5)
    assert run.returned and run.files == [] and run.data("error") == []
    assert np.array_equal(frames_of(video_length=37), whole)


def test_what_it_cannot_do_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match="model_mode"):
        request_of(model_mode=3)
    with pytest.raises(Unsupported, match="sample_solver"):
        request_of(sample_solver="lcm")
    path = tmp_path / "begin.mkv"
    write_video(path, [picture(1, 64, 64)] * 17, fps=16, codec="ffv1")
    with pytest.raises(Unsupported, match="vid2vid_init_video"):
        request_of(model_mode=5, vid2vid_init_video=str(path))
