"""ReCamMaster on tiny random weights: the source video after the new one, and the camera's path in every block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_runs import picture, run_engine
from safetensors.torch import load_file, save_file
from tiny_models import tiny_wan_t2v, write_definition
from wan_passes import conditions_of, first_step, passes, predicted
from wan_runs import Tiny, tiny_definition

from Wan2GP import wgp
from Wan2GP.engine.families import Place
from Wan2GP.engine.wan.cameras import MOVEMENTS, camera_path
from Wan2GP.engine.wan.loading import load_parts
from Wan2GP.engine.wan.recam import ReCamTransformer
from Wan2GP.errors import InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import probe_video, write_video

WIDTH, BLOCKS = 24, 2


class Filmed(Tiny):
    """A text-to-video model whose weights hold the layers of ReCamMaster too, as a published file does."""

    def __init__(self, folder: Path, new: bool = False) -> None:
        self.weights = tiny_wan_t2v(folder / "weights")
        add_layers(self.weights, new)
        self.definition = tiny_definition(folder / "rows", "recam_1.3B", self.weights)
        self.parts = load_parts(self.definition, Place(folder, "cpu"))


def add_layers(weights: Path, new: bool) -> None:
    """`new`: as they are before training, when they change nothing."""
    file = next(weights.glob("transformer/*.safetensors"))
    tensors = load_file(file)
    for block in range(BLOCKS):
        tensors[f"blocks.{block}.cam_encoder.weight"] = torch.randn(WIDTH, 12) * (0 if new else 0.5)
        tensors[f"blocks.{block}.cam_encoder.bias"] = torch.randn(WIDTH) * (0 if new else 0.1)
        tensors[f"blocks.{block}.projector.weight"] = torch.eye(WIDTH) + torch.randn(WIDTH, WIDTH) * (0 if new else 0.1)
        tensors[f"blocks.{block}.projector.bias"] = torch.randn(WIDTH) * (0 if new else 0.1)
    save_file(tensors, file)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Filmed:
    return Filmed(tmp_path_factory.mktemp("recam"))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return film(tmp_path_factory.mktemp("source") / "source.mkv", 3)


def film(path: Path, seed: int, frames: int = 17) -> Path:
    write_video(path, [np.roll(picture(seed, 64, 64), shift, axis=1) for shift in range(frames)], fps=16, codec="ffv1")
    return path


# ---- the camera

#: of the file of trajectories that the authors publish, in its axes (forward, right, up; centimetres), at frame 80:
#: the camera's forward axis, and its way from the first frame
PUBLISHED = {
    1: ((0.940432, 0.339982, 0), (0, 0, 0)),
    2: ((0.940432, -0.339982, 0), (0, 0, 0)),
    3: ((0.984995, 0, 0.17258), (0, 0, 0)),
    4: ((0.984995, 0, -0.17258), (0, 0, 0)),
    5: ((1, 0, 0), (198.76, 0, 0)),
    6: ((1, 0, 0), (-198.76, 0, 0)),
    7: ((0.970496, 0, -0.241117), (0, 0, 99.379)),
    8: ((0.970496, 0, 0.241117), (0, 0, -99.379)),
    9: ((0.867575, 0.497306, 0), (53.26, -198.76, 0)),
    10: ((0.867575, -0.497306, 0), (53.26, 198.76, 0)),
}


@pytest.mark.parametrize("mode", PUBLISHED)
def test_the_camera_goes_the_published_way(mode):
    path = camera_path(mode, 81, 4).reshape(21, 3, 4)
    (ahead, right, up), (far, aside, high) = PUBLISHED[mode]
    assert np.allclose(path[20][:, 2], (right, -up, ahead), atol=1e-6)
    assert np.allclose(path[20][:, 3], np.array((aside, -high, far)) / 100, atol=1e-4)


@pytest.mark.parametrize("mode", MOVEMENTS)
@pytest.mark.parametrize("frames", [5, 17, 81])
def test_the_camera_begins_where_it_was_and_turns_without_a_twist(mode, frames):
    path = camera_path(mode, frames, 4).reshape(-1, 3, 4)
    assert len(path) == (frames - 1) // 4 + 1
    assert np.array_equal(path[0], np.eye(3, 4))
    for pose in path:
        assert np.allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-6)
        assert np.linalg.det(pose[:, :3]) == pytest.approx(1, abs=1e-6)


# ---- the model


def test_the_source_stands_clean_after_the_new_video_and_is_not_predicted(tiny, source):
    conditions = conditions_of(tiny, video_guide=str(source), model_mode=1, guidance_scale=1)
    with passes(tiny.parts.transformer) as seen:
        velocity = predicted(conditions)
    assert conditions.latent_shape == (1, 16, 5, 8, 8)
    assert len(seen) == 1 and seen[0].hidden.shape[2] == 10
    assert torch.equal(seen[0].hidden[:, :, 5:], conditions.encoded(conditions.window.guide))
    assert torch.equal(velocity, seen[0].found[:, :, :5])


def test_new_layers_are_plain_attention_over_both_videos(tmp_path: Path, source):
    tiny = Filmed(tmp_path, new=True)
    conditions = conditions_of(tiny, video_guide=str(source), model_mode=9, guidance_scale=1)
    with passes(tiny.parts.transformer) as seen:
        velocity = predicted(conditions)
    with torch.inference_mode():
        plain = conditions.call(
            first_step(conditions.request), seen[0].hidden, torch.tensor([1000.0]), conditions.prompts.positive
        )
    assert torch.allclose(velocity, plain[:, :, :5], atol=1e-6)


def test_untrained_layers_of_the_class_change_nothing():
    small = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 32, "ffn_dim": 32, "num_layers": 1}
    block = ReCamTransformer(**small).blocks[0]
    assert not block.cam_encoder.weight.any() and not block.cam_encoder.bias.any()
    assert torch.equal(block.projector.weight, torch.eye(WIDTH)) and not block.projector.bias.any()


def test_each_input_changes_the_video_and_the_same_inputs_repeat_it(tiny, source, tmp_path: Path):
    given = {"video_guide": str(source), "model_mode": 1}
    base = tiny.latents(**given)
    assert torch.equal(base, tiny.latents(**given))
    others = [
        {"model_mode": 2},
        {"model_mode": 5},
        {"video_guide": str(film(tmp_path / "other.mkv", 4))},
        {"prompt": "a blue square"},
    ]
    for other in others:
        assert (tiny.latents(**given | other) - base).abs().max() > 1e-3, other


def test_attention_is_plain_again_after_a_run(tiny, source):
    plain = [block.attn1.processor for block in tiny.parts.transformer.blocks]
    tiny.latents(video_guide=str(source), model_mode=1, slg_switch=1, slg_layers=[1])
    assert [block.attn1.processor for block in tiny.parts.transformer.blocks] == plain


def test_a_file_has_exactly_the_frames(tiny, source, tmp_path: Path):
    folder = write_definition(tmp_path / "rows", "filmed", "recam_1.3B", tiny.weights, num_inference_steps=2)
    wgp.configure(checkpoints=tmp_path, definitions=[folder], save_path=tmp_path / "out", device="cpu")
    clip = {"model_type": "filmed", "prompt": "a red circle", "resolution": "64x64", "video_length": 17, "seed": 5}
    try:
        run = run_engine(**clip, video_guide=str(source), model_mode=3, video_prompt_type="UV")
    finally:
        wgp.release_model()
        wgp.configure(definitions=[])
    assert run.data("error") == []
    info = probe_video(run.files[-1])
    assert (info.num_frames, info.width, info.height, info.fps) == (17, 64, 64, 16)
    assert run.frames().std() > 5


def test_weights_without_the_layers_are_refused(tmp_path: Path):
    weights = tiny_wan_t2v(tmp_path / "weights")
    with pytest.raises(ModelUnavailable, match="cam_encoder"):
        load_parts(tiny_definition(tmp_path / "rows", "recam_1.3B", weights), Place(tmp_path, "cpu"))


def test_what_it_cannot_film_is_refused(tiny, source, tmp_path: Path):
    given = {"video_guide": str(source), "model_mode": 1, "video_prompt_type": "UV"}
    short = str(film(tmp_path / "short.mkv", 3, frames=16))
    refused = [
        ({"model_mode": None}, InvalidInput, "model_mode"),
        ({"model_mode": 11}, InvalidInput, "model_mode"),
        ({"video_guide": None}, InvalidInput, "video_guide"),
        ({"video_guide": short}, InvalidInput, "video_guide"),
        ({"video_prompt_type": "GV"}, Unsupported, "video_prompt_type"),
        ({"keep_frames_video_guide": "1:8"}, Unsupported, "keep_frames_video_guide"),
    ]
    for values, error, field in refused:
        with pytest.raises(error) as raised:
            tiny.request(**given | values)
        assert raised.value.field == field
