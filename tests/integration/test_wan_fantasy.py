"""Fantasy Speaking on tiny random weights: a voice steers an image-to-video model, frame by frame."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import picture, run_engine
from safetensors.torch import save_file
from tiny_models import tiny_wan_i2v
from wan_passes import conditions_of, passes, predicted
from wan_runs import Tiny, tiny_definition

from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.engine.families import Place
from Wan2GP.engine.wan.audio import SAMPLE_RATE, around_latent_frames, gathered, speech
from Wan2GP.engine.wan.loading import load_parts
from Wan2GP.errors import InvalidInput, InvalidMedia, ModelUnavailable, Unsupported
from Wan2GP.media import probe_video, read_sound

WIDTH, BLOCKS, STATES, TOKENS = 24, 2, 16, 12
START = picture(1, 64, 64)


class Speaking(Tiny):
    """An image-to-video model, a module file named as the published ones are, and a small wav2vec2."""

    def __init__(self, folder: Path, module: dict[str, torch.Tensor] | None = None) -> None:
        self.weights = tiny_wan_i2v(folder / "weights")
        save_file(module or added_weights(), folder / "fantasy.safetensors")
        tiny_wav2vec2(folder / "tiny-wav2vec2")
        model = {"name": "Speaking", "architecture": "fantasy", "source": str(self.weights)}
        model |= {"modules": [[str(folder / "fantasy.safetensors")]], "audio_encoder": "somewhere/tiny-wav2vec2"}
        self.rows = folder / "rows"
        self.rows.mkdir()
        (self.rows / "speaking.json").write_text(json.dumps({"model": model, "audio_prompt_type": "A"}))
        self.definition = load_definitions([self.rows])["speaking"]
        self.folder = folder
        self.parts = load_parts(self.definition, Place(folder, "cpu"))


def added_weights(prefix: str = "", processor: str = "", scale: float = 1.0) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    weights = {
        "proj_model.proj.weight": torch.randn(TOKENS, STATES),
        "proj_model.norm.weight": torch.ones(TOKENS),
        "proj_model.norm.bias": torch.zeros(TOKENS),
    }
    for block in range(BLOCKS):
        for kind in ("k_proj", "v_proj"):
            name = f"{prefix}blocks.{block}.cross_attn.{processor}{kind}.weight"
            weights[name] = torch.randn(WIDTH, TOKENS) * scale
    return weights


def tiny_wav2vec2(folder: Path) -> None:
    """Strides and kernels of the real one, which make 50 states a second."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(3)
    config = Wav2Vec2Config(
        hidden_size=STATES,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(folder)


def sound(path: Path, seconds: float = 2.0, pitch: float = 220.0, rate: int = 22_050, channels: int = 1) -> Path:
    """A tone whose loudness goes up and down, as a voice's does."""
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * pitch * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat((tone * 32_767).astype("<i2"), channels).tobytes())
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Speaking:
    return Speaking(tmp_path_factory.mktemp("fantasy"))


@pytest.fixture(scope="module")
def voice(tmp_path_factory) -> str:
    return str(sound(tmp_path_factory.mktemp("voice") / "voice.wav"))


@pytest.fixture
def said(voice) -> dict[str, Any]:
    return {"image_start": START, "audio_guide": voice, "guidance_scale": 5.0, "audio_guidance_scale": 4.0}


# ---- sound


@pytest.mark.parametrize("channels", [1, 2])
def test_sound_is_read_mono_at_the_rate_asked_for(tmp_path: Path, channels):
    path = sound(tmp_path / "tone.wav", seconds=1.0, channels=channels)
    samples = read_sound(path, rate=SAMPLE_RATE)
    assert samples.dtype == np.float32 and abs(len(samples) - SAMPLE_RATE) < 40
    assert np.abs(np.fft.rfft(samples)).argmax() == pytest.approx(220, abs=1)
    assert 0.4 < np.abs(samples).max() < 0.6
    middle = read_sound(path, rate=SAMPLE_RATE, start_s=0.25, stop_s=0.5)
    assert np.array_equal(middle, samples[4000:8000])
    assert len(read_sound(path, rate=SAMPLE_RATE, start_s=5, stop_s=6)) == 0


def test_speech_is_normalised_and_silent_outside_of_the_sound(tmp_path: Path):
    path = sound(tmp_path / "tone.wav", seconds=1.0)
    samples, end_s = speech(path, -0.5, 2.0)
    assert samples.shape == (2 * SAMPLE_RATE,) and end_s == pytest.approx(1.5, abs=0.01)
    assert not samples[: SAMPLE_RATE // 2].any() and not samples[int(1.51 * SAMPLE_RATE) :].any()
    inside = samples[SAMPLE_RATE // 2 : int(1.49 * SAMPLE_RATE)]
    assert float(inside.mean()) == pytest.approx(0, abs=0.01) and float(inside.std()) == pytest.approx(1, abs=0.02)
    silent, end_s = speech(path, 3.0, 1.0)
    assert not silent.any() and end_s == 0


def test_latent_frames_hear_what_is_around_them():
    """173 states for 81 frames are the example in the authors' program, which begins with -7 to 1 and 1 to 9."""
    ranges = around_latent_frames(173, 81, 4, margin=0)
    assert len(ranges) == 21
    assert ranges[:2] == [(-7, 1), (1, 9)] and ranges[-1] == (163, 171)
    assert around_latent_frames(173, 81, 4)[1] == (-3, 13)
    tokens = torch.arange(1.0, 174)[None, :, None]
    heard, inside = gathered(tokens, ranges)
    assert heard.shape == (21, 9, 1) and inside.shape == (21, 9)
    assert heard[0, :, 0].tolist() == [0] * 7 + [1, 2]
    assert inside.sum(dim=1).tolist() == [2, *[9] * 20]


# ---- the model


def test_guidance_combines_three_passes(tiny, said):
    conditions = conditions_of(tiny, **said)
    with passes(tiny.parts.transformer) as seen:
        velocity = predicted(conditions)
    heard, silent, nothing = (one.found for one in seen)
    prompts = conditions.prompts
    told = [prompts.positive, prompts.positive, prompts.negative]
    assert all(torch.equal(one.prompt, prompt) for one, prompt in zip(seen, told, strict=True))
    by_hand = nothing + 5.0 * (silent - nothing) + 4.0 * (heard - silent)
    assert torch.allclose(velocity, by_hand, atol=1e-5)
    assert (heard - silent).abs().max() > 1e-3


@pytest.mark.parametrize(("text", "voice_scale", "made"), [(1.0, 1.0, 1), (1.0, 4.0, 2), (5.0, 1.0, 2), (5.0, 4.0, 3)])
def test_passes_that_are_not_needed_are_left_out(tiny, said, text, voice_scale, made):
    conditions = conditions_of(tiny, **said | {"guidance_scale": text, "audio_guidance_scale": voice_scale})
    with passes(tiny.parts.transformer) as seen:
        velocity = predicted(conditions)
    assert len(seen) == made
    found = [one.found for one in seen]
    if (text, voice_scale) == (1.0, 4.0):
        assert torch.allclose(velocity, found[1] + 4 * (found[0] - found[1]), atol=1e-5)
    if (text, voice_scale) == (5.0, 1.0):
        assert torch.allclose(velocity, found[1] + 5 * (found[0] - found[1]), atol=1e-5)


def test_without_its_scale_the_sound_changes_nothing_bit_for_bit(tiny, said, tmp_path: Path):
    plain = Tiny.__new__(Tiny)
    plain.parts, plain.definition = tiny.parts, tiny_definition(tmp_path / "rows", "i2v", tiny.weights)
    image = {"image_start": START, "guidance_scale": 5.0}
    assert torch.equal(tiny.latents(**said, audio_scale=0), plain.latents(**image))
    assert not torch.equal(tiny.latents(**said), plain.latents(**image))


def test_each_input_changes_the_video_and_the_same_inputs_repeat_it(tiny, said, tmp_path: Path):
    base = tiny.latents(**said)
    assert base.shape == (1, 16, 5, 8, 8)
    assert torch.equal(base, tiny.latents(**said))
    others = [
        {"audio_guide": str(sound(tmp_path / "other.wav", pitch=400))},
        {"audio_scale": 0.5},
        {"audio_guidance_scale": 2.0},
        {"image_start": picture(2, 64, 64)},
        {"force_fps": "16"},
    ]
    for other in others:
        assert (tiny.latents(**said | other) - base).abs().max() > 1e-3, other


def test_a_frame_hears_its_own_part_of_the_sound_first(tiny, said):
    """In one pass, other sound for the last latent frame alone reaches it far more than the first."""
    conditions = conditions_of(tiny, **said | {"guidance_scale": 1.0, "audio_guidance_scale": 1.0})
    before = predicted(conditions)
    heard, inside = conditions._heard
    changed = [(keys, torch.cat([values[:-1], -values[-1:]])) for keys, values in heard]
    conditions._heard = changed, inside
    moved = (predicted(conditions) - before).abs().amax(dim=(0, 1, 3, 4))
    assert moved[-1] > 1e-3
    assert moved[-1] > 3 * moved[:-1].max()


def test_sound_after_the_end_of_the_video_is_not_heard(tiny, said, tmp_path: Path):
    short = str(sound(tmp_path / "short.wav", seconds=17 / 23 + 0.1))
    assert torch.equal(tiny.latents(**said), tiny.latents(**said | {"audio_guide": short}))


def test_attention_is_plain_again_after_a_run(tiny, said):
    plain = [block.attn2.processor for block in tiny.parts.transformer.blocks]
    tiny.latents(**said, slg_switch=1, slg_layers=[1])
    tiny.latents(**said | {"guidance_scale": 1}, NAG_scale=3)
    assert [block.attn2.processor for block in tiny.parts.transformer.blocks] == plain


def test_a_file_has_exactly_the_frames_and_windows_go_on_in_the_sound(tiny, said, tmp_path: Path):
    wgp.configure(checkpoints=tiny.folder, definitions=[tiny.rows], save_path=tmp_path / "out", device="cpu")
    clip = {"model_type": "speaking", "prompt": "a red circle", "resolution": "64x64", "seed": 5}
    clip |= {"num_inference_steps": 2, "sliding_window_size": 17, "sliding_window_overlap": 1, "video_length": 33}
    brief = str(sound(tmp_path / "brief.wav", seconds=0.7))
    try:
        whole = run_engine(**clip | said)
        cut = run_engine(**clip | said | {"audio_guide": brief})
    finally:
        wgp.release_model()
        wgp.configure(definitions=[])
    assert whole.data("error") == [] and whole.data("info") == []
    info = probe_video(whole.files[-1])
    assert info.has_audio
    assert (info.num_frames, info.width, info.height, info.fps) == (33, 64, 64, 23)
    assert cut.data("info") == ["the sound ends at 0.70 s, before the video does; silence follows"]
    assert not np.array_equal(whole.frames()[17:], cut.frames()[17:])


# ---- files


@pytest.mark.parametrize(("prefix", "processor"), [("", ""), ("", "processor."), ("audio_processor.", "processor.")])
def test_published_names_are_all_read(tiny, tmp_path: Path, prefix, processor):
    other = Speaking(tmp_path, added_weights(prefix, processor))
    ours, theirs = (each.parts.extra["audio_projector"].state_dict() for each in (tiny, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in added_weights().items() if key != name}


@pytest.mark.parametrize(
    ("module", "said_of_it"),
    [
        (without("proj_model.norm.weight"), "proj_model"),
        (without("blocks.1.cross_attn.v_proj.weight"), r"v_proj\.1"),
        (added_weights() | {"blocks.2.cross_attn.k_proj.weight": torch.zeros(WIDTH, TOKENS)}, "block"),
        (added_weights() | {"blocks.0.cross_attn.k_proj.weight": torch.zeros(30, TOKENS)}, r"\(30, 12\)"),
        (added_weights() | {"extra.weight": torch.zeros(2)}, "extra.weight"),
        (added_weights(scale=float("nan")), "not numbers"),
    ],
)
def test_module_files_that_do_not_fit_are_refused(tmp_path: Path, module, said_of_it):
    with pytest.raises(ModelUnavailable, match=said_of_it):
        Speaking(tmp_path, module)


def test_what_it_cannot_say_is_refused(tiny, said, tmp_path: Path):
    no_sound = tmp_path / "text.wav"
    no_sound.write_text("not a sound")
    refused = [
        ({"audio_guide": None}, InvalidInput, "give audio_guide"),
        ({"audio_guide": str(no_sound)}, InvalidMedia, "text.wav"),
        ({"audio_guide": str(tmp_path / "missing.wav")}, InvalidMedia, "missing.wav"),
        ({"image_start": None}, InvalidInput, "image_start"),
        ({"audio_prompt_type": "AB"}, Unsupported, "one sound track"),
    ]
    for values, error, message in refused:
        with pytest.raises(error, match=message):
            tiny.request(**said | values)
