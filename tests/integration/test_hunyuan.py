"""HunyuanVideo: every definition on tiny weights, against diffusers' own pipelines."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import Run, picture, run_engine
from hunyuan_files import in_the_authors_layout
from PIL import Image
from safetensors.torch import load_file, save_file
from stock_runs import TinyWeights, definitions_of
from tiny_hunyuan import tiny_hunyuan, tiny_hunyuan_i2v

from Wan2GP import wgp
from Wan2GP.errors import InvalidInput, ModelUnavailable
from Wan2GP.media import probe_video, write_video


def tiny_hunyuan_33(folder: Path) -> Path:
    """The first image-to-video model, which is given its image as channels."""
    return tiny_hunyuan_i2v(folder, concatenated=True)


BUILDERS = {"hunyuan": tiny_hunyuan, "hunyuan_i2v": tiny_hunyuan_i2v, "33 channels": tiny_hunyuan_33}
NAMES = definitions_of("hunyuan", "hunyuan_i2v")
CALL = {
    "prompt": "a red circle moving right",
    "resolution": "48x32",
    "video_length": 5,
    "num_inference_steps": 3,
    "flow_shift": 5,
    "seed": 5,
    "plugin_data": {"lossless": True},
}
START = picture(1, 48, 32)
#: one level of 255: diffusers' pictures and ours are rounded from the same numbers
LEVEL = 1


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> TinyWeights:
    return TinyWeights(BUILDERS, lambda name: tmp_path_factory.mktemp(name))


@pytest.fixture
def engine(weights, tmp_path: Path):
    rows = tmp_path / "rows"
    with weights.under(rows, *NAMES):
        yield rows


def run(name: str = "hunyuan", **values: Any) -> Run:
    made = run_engine(model_type=name, **CALL | values)
    assert made.returned and made.data("error") == [], made.data("error")
    return made


def frames(name: str = "hunyuan", **values: Any) -> np.ndarray:
    return run(name, **values).frames()


@cache
def loaded(folder: Path) -> Any:
    """diffusers' own pipeline, loaded by its own loader."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(folder: Path, shift: float = 5.0, **call: Any) -> np.ndarray:
    """(F, H, W, 3) of diffusers' own pipeline."""
    pipeline = loaded(folder)
    pipeline.scheduler.set_shift(shift)
    common = {"prompt": CALL["prompt"], "width": 48, "height": 32, "num_frames": 5, "num_inference_steps": 3}
    generator = torch.Generator().manual_seed(5)
    return np.asarray(pipeline(generator=generator, output_type="np", **common | call).frames[0])


def require_equal(ours: np.ndarray, other: np.ndarray) -> None:
    """The same floats, rounded."""
    assert ours.shape == other.shape and ours.std() > 5
    assert np.abs(ours.astype(int) - np.rint(other * 255)).max() <= LEVEL
    assert np.mean(ours != np.rint(other * 255)) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_makes_its_video_and_makes_it_again(engine, name: str):
    given = {"image_start": START} if name == "hunyuan_i2v" else {}
    values = CALL | given | {"model_type": name, "plugin_data": None, "flow_shift": None}
    first, again = run_engine(**values), run_engine(**values)
    info = probe_video(first.files[0])
    assert (info.num_frames, info.width, info.height, float(info.fps)) == (5, 48, 32, 24)
    assert first.frames().std() > 1 and np.array_equal(first.frames(), again.frames())
    assert first.data("info") == []


def test_text_to_video_equals_diffusers_with_distilled_guidance(engine, weights):
    ours = frames(embedded_guidance_scale=4.0)
    require_equal(ours, theirs(weights.of("hunyuan"), guidance_scale=4.0))
    assert not np.array_equal(ours, frames(embedded_guidance_scale=9.0))
    assert not np.array_equal(ours, frames(embedded_guidance_scale=4.0, flow_shift=11))
    # Without guidance of its own a negative prompt does nothing.
    assert np.array_equal(ours, frames(embedded_guidance_scale=4.0, negative_prompt="a blue square"))


def test_true_guidance_runs_beside_the_distilled_one_when_asked(engine, weights):
    ours = frames(guidance_scale=3.0, negative_prompt="a blue square", embedded_guidance_scale=1.0)
    call = {"true_cfg_scale": 3.0, "negative_prompt": "a blue square", "guidance_scale": 1.0}
    require_equal(ours, theirs(weights.of("hunyuan"), **call))


def test_explicit_noise_levels_are_run_as_they_are(engine, weights):
    ours = frames(sigmas=[1.0, 0.7, 0.2])
    require_equal(ours, theirs(weights.of("hunyuan"), shift=1.0, sigmas=[1.0, 0.7, 0.2], guidance_scale=6.0))


def test_image_to_video_equals_diffusers(engine, weights):
    ours = frames("hunyuan_i2v", image_start=START)
    call = {"image": Image.fromarray(START), "guidance_scale": 6.0}
    require_equal(ours, theirs(weights.of("hunyuan_i2v"), **call))
    assert not np.array_equal(ours, frames("hunyuan_i2v", image_start=picture(2, 48, 32)))


def test_the_model_of_33_channels_makes_as_many_frames_as_are_asked(engine, weights):
    folder = weights.of("33 channels")
    (engine / "hunyuan_i2v.json").write_text(json.dumps({"model": {"source": str(folder), "devices": []}}))
    wgp.configure(definitions=[engine])
    ours = frames("hunyuan_i2v", image_start=START)
    require_equal(ours, theirs(folder, image=Image.fromarray(START), num_frames=9))


def test_a_video_goes_on_from_its_last_frame(engine, weights, tmp_path: Path):
    source = [picture(20 + number, 48, 32) for number in range(5)]
    write_video(tmp_path / "source.mkv", source, fps=24, codec="ffv1")
    ours = frames("hunyuan_i2v", video_source=str(tmp_path / "source.mkv"))
    assert ours.shape == (5 + 4, 32, 48, 3) and np.array_equal(ours[:5], np.stack(source))
    call = {"image": Image.fromarray(source[4]), "guidance_scale": 6.0}
    require_equal(ours[5:], theirs(weights.of("hunyuan_i2v"), **call)[1:])


@pytest.mark.parametrize(("asked", "made"), [(4, 5), (18, 17), (33, 33)])
def test_lengths_are_one_more_than_a_multiple_of_four(engine, asked: int, made: int):
    taken = run(video_length=asked, resolution="32x32", num_inference_steps=1)
    assert probe_video(taken.files[0]).num_frames == made


def test_what_cannot_be_done_is_refused_before_the_model_is_loaded(engine):
    with pytest.raises(InvalidInput, match="begins with an image"):
        run("hunyuan_i2v")
    with pytest.raises(InvalidInput, match="does not take it"):
        run("hunyuan", image_start=START)
    with pytest.raises(InvalidInput, match="stills"):
        run("hunyuan", image_mode=1)


def test_a_tokenizer_without_the_marks_of_a_chat_is_refused(engine, tmp_path: Path):
    folder = tiny_hunyuan(tmp_path / "broken")
    file = folder / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace("<|end_header_id|>", "<|end|>"))
    config = folder / "tokenizer" / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<|end_header_id|>", "<|end|>"))
    (engine / "hunyuan.json").write_text(json.dumps({"model": {"source": str(folder), "devices": []}}))
    wgp.configure(definitions=[engine])
    with pytest.raises(ModelUnavailable, match="Llama 3"):
        run()


def test_a_cancelled_run_leaves_no_file_and_harms_no_later_one(engine):
    before = frames()

    def stop(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress" and data[1] == "denoising" and data[0][0] == 2:
            wgp.abort_generation(state)

    cancelled = run_engine(stop, model_type="hunyuan", **CALL)
    assert cancelled.returned and cancelled.files == []
    assert [data[0] for data in cancelled.data("progress") if data[1] == "denoising"][-1] == (2, 3)
    assert not [data for data in cancelled.data("progress") if data[1] == "decoding"]
    assert np.array_equal(before, frames())


LAYER = "transformer_blocks.0.attn.to_q"


def test_a_lora_counts_per_step_and_leaves_the_weights_as_they_were(engine):
    lora = engine / "loras" / "hunyuan" / "strong.safetensors"
    lora.parent.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"transformer.{LAYER}.lora_A.weight": torch.randn((4, 24), generator=generator),
        f"transformer.{LAYER}.lora_B.weight": torch.randn((24, 4), generator=generator),
    }
    save_file(tensors, lora)
    plain = frames()
    parameter = wgp.wan_model._pipeline.transformer.get_parameter(f"{LAYER}.weight")
    untouched = parameter.clone()
    made = {
        text: frames(activated_loras=["strong.safetensors"], loras_multipliers=text) for text in ("1", "0,0,1", "0")
    }
    assert torch.equal(parameter, untouched)
    assert np.array_equal(plain, made["0"])
    assert not np.array_equal(plain, made["0,0,1"]) and not np.array_equal(made["1"], made["0,0,1"])


def test_a_transformer_in_its_authors_layout_is_read_into_its_place(engine, weights):
    """As single files of it are published; the other parts are those of the architecture's own model."""
    folder = weights.of("hunyuan")
    own = engine / "own"
    own.mkdir()
    (own / "config.json").write_text((folder / "transformer" / "config.json").read_text())
    original = in_the_authors_layout(load_file(next(folder.glob("transformer/*.safetensors"))))
    save_file({f"model.diffusion_model.{name}": value for name, value in original.items()}, own / "model.safetensors")
    before = frames()
    row = {"model": {"name": "own", "architecture": "hunyuan", "source": str(folder), "URLs": [str(own)]}}
    (engine / "own.json").write_text(json.dumps(row | {"guidance_scale": 1}))
    wgp.configure(definitions=[engine])
    assert np.array_equal(before, frames("own"))
