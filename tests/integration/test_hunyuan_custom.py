"""HunyuanCustom on tiny weights, against a plain loop written from its description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from engine_runs import Run, picture, run_engine
from PIL import Image
from stock_runs import TinyWeights, definitions_of
from tiny_hunyuan import tiny_hunyuan_custom

from Wan2GP.engine.stock.hunyuan_identity import on_white, read
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import probe_video

NAMES = definitions_of("hunyuan_custom")
CALL = {
    "model_type": "hunyuan_custom",
    "prompt": "a red circle moving right",
    "negative_prompt": "a blue square",
    "resolution": "48x32",
    "video_length": 5,
    "num_inference_steps": 2,
    "guidance_scale": 3.0,
    "flow_shift": 7,
    "seed": 5,
    "plugin_data": {"lossless": True},
}
SUBJECT = picture(1, 40, 40)
#: one level of 255: both videos are rounded from the same numbers, computed in another order
LEVEL = 1
IMAGE_TOKENS = 576


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> TinyWeights:
    return TinyWeights({"hunyuan_custom": tiny_hunyuan_custom}, lambda name: tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def parts(weights) -> Any:
    """The parts by diffusers' own loader."""
    return DiffusionPipeline.from_pretrained(weights.of("hunyuan_custom"))


@pytest.fixture
def engine(weights, tmp_path: Path):
    with weights.under(tmp_path / "rows", *NAMES):
        yield


def run(**values: Any) -> Run:
    made = run_engine(**CALL | {"image_refs": [SUBJECT]} | values)
    assert made.returned and made.data("error") == [], made.data("error")
    return made


def positions(latents: torch.Tensor, dims: tuple[int, ...], theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The angle of every pair of every token, one by one; the first frame is the picture."""
    _, _, frames, height, width = latents.shape
    rows, columns = height // 2, width // 2
    tokens = [(-1, row, column + columns) for row in range(rows) for column in range(columns)]
    tokens += [(t, row, column) for t in range(frames - 1) for row in range(rows) for column in range(columns)]
    angles = [
        [
            place / theta ** (2 * pair / size)
            for place, size in zip(token, dims, strict=True)
            for pair in range(size // 2)
        ]
        for token in tokens
    ]
    each = torch.tensor(angles, dtype=torch.float32).repeat_interleave(2, dim=1)
    return each.cos(), each.sin()


class Positions(torch.nn.Module):
    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return positions(latents, (4, 4, 4), 256.0)


@torch.no_grad()
def by_hand(parts: Any, guidance: float) -> np.ndarray:
    """(F, H, W, 3): negative and positive in one batch, as the authors' program runs them."""
    vae, transformer, scheduler = parts.vae, parts.transformer, parts.scheduler
    transformer.rope = Positions()
    generator = torch.Generator().manual_seed(5)
    pixels = torch.from_numpy(on_white(SUBJECT, (48, 32))).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    shown = vae.encode(pixels).latent_dist.sample(generator) * vae.config.scaling_factor
    latents = torch.randn((1, 4, 2, 4, 6), generator=generator)
    prompt = read(parts, str(CALL["prompt"]), "object", SUBJECT)
    negative = read(parts, str(CALL["negative_prompt"]), "person", np.full_like(SUBJECT, 255))
    count = int(negative.mask.sum()) - (IMAGE_TOKENS - 1)
    kept = torch.zeros_like(negative.mask)
    kept[:, :count] = 1
    scheduler.set_shift(7)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, 3)[:-1])
    for time in scheduler.timesteps:
        both = torch.cat([shown, latents], dim=2).repeat(2, 1, 1, 1, 1)
        predicted = transformer(
            both,
            timestep=time.expand(2),
            encoder_hidden_states=torch.cat([negative.embeddings, prompt.embeddings]),
            encoder_attention_mask=torch.cat([kept, prompt.mask]).float(),
            pooled_projections=torch.cat([negative.pooled, prompt.pooled]),
            return_dict=False,
        )[0][:, :, 1:]
        low, high = predicted.chunk(2)
        latents = scheduler.step(low + guidance * (high - low), time, latents, return_dict=False)[0]
    frames = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return (frames[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_makes_its_video_and_makes_it_again(engine, name: str):
    first, again = (run(model_type=name, plugin_data=None) for _ in range(2))
    info = probe_video(first.files[0])
    assert (info.num_frames, info.width, info.height, float(info.fps)) == (5, 48, 32, 24)
    assert first.frames().std() > 1 and np.array_equal(first.frames(), again.frames())


def test_it_equals_a_plain_loop(engine, parts):
    ours, other = run().frames(), by_hand(parts, 3.0)
    assert ours.shape == other.shape and ours.std() > 5
    assert np.abs(ours.astype(int) - np.rint(other * 255)).max() <= LEVEL


def test_the_picture_and_what_is_said_of_it_count(engine):
    short: dict[str, Any] = {"num_inference_steps": 1}
    ours = run(**short).frames()
    for other in ({"image_refs": [picture(2, 40, 40)]}, {"prompt": "a ring"}, {"negative_prompt": "a ring"}):
        assert not np.array_equal(ours, run(**short | other).frames())
    single = run(**short, guidance_scale=1).frames()
    assert not np.array_equal(ours, single)
    assert np.array_equal(single, run(**short, guidance_scale=1, negative_prompt="a ring").frames())


@torch.no_grad()
def test_the_prompt_is_read_as_llava_reads_it(parts):
    """Its own forward pass, with the picture's tokens written out; what is padded there is left out of account."""
    ours = read(parts, "a red circle", "object", SUBJECT)
    encoder, tokenizer = parts.text_encoder, parts.tokenizer
    text = DEFAULT_PROMPT_TEMPLATE["template"].format("a red circle") + "\nThe object looks like<image>"
    (ids,) = tokenizer(text, return_tensors="pt").input_ids
    image = encoder.config.image_token_index
    place = int((ids == image).nonzero())
    written = torch.cat([ids[:place], torch.full((IMAGE_TOKENS,), image), ids[place + 1 :]])[None]
    mean, deviation = parts.image_processor.image_mean, parts.image_processor.image_std
    seen = (on_white(SUBJECT, (48, 48)) / 255 - mean) / deviation
    pixels = torch.from_numpy(seen.astype(np.float32)).permute(2, 0, 1)[None]
    theirs = encoder(input_ids=written, pixel_values=pixels, output_hidden_states=True).hidden_states[-3][:, 95:]
    count = theirs.shape[1]
    assert torch.allclose(ours.embeddings[:, :count], theirs, atol=1e-5)
    assert ours.embeddings.shape[1] == 256 + IMAGE_TOKENS - 1
    assert int(ours.mask.sum()) == count


def test_a_picture_keeps_its_shape_in_the_middle_of_white():
    tall = np.zeros((40, 20, 3), np.uint8)
    placed = on_white(tall, (64, 32))
    assert placed.shape == (32, 64, 3)
    assert (placed[:, 24:40] == 0).all() and (placed[:, :24] == 255).all() and (placed[:, 40:] == 255).all()
    wide = on_white(np.asarray(Image.fromarray(tall).rotate(90, expand=True)), (64, 64))
    assert (wide[16:48] == 0).all() and (wide[:16] == 255).all()
    line = on_white(np.zeros((1, 300, 3), np.uint8), (64, 64))
    assert (line == 0).any(axis=2).sum() == 64, "as thin as a picture can be"


def test_anything_but_one_subject_is_refused(engine):
    with pytest.raises(InvalidInput, match="subject of a picture"):
        run(image_refs=None)
    with pytest.raises(Unsupported, match="one subject"):
        run(image_refs=[SUBJECT, SUBJECT])
    with pytest.raises(Unsupported, match="background"):
        run(video_prompt_type="KI")


def test_a_prompt_that_leaves_no_room_for_the_picture_is_refused(engine):
    made = run_engine(**CALL | {"image_refs": [SUBJECT], "prompt": "a red circle " * 60})
    (error,) = made.data("error")
    assert isinstance(error, InvalidInput) and error.field == "prompt"
    assert not made.returned and made.files == []
