"""Frames leave the VAE as they are decoded: the same pixels as at once, few in memory, and nothing left half done."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from wan_runs import Tiny, tiny_models

from Wan2GP.engine.families import Cancel
from Wan2GP.engine.wan.latents import decoded, to_frames
from Wan2GP.errors import GenerationCancelled

SHORT: dict[str, Any] = {"num_inference_steps": 1, "guidance_scale": 1.0, "resolution": "32x32", "video_length": 9}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Callable[[str], Tiny]:
    return tiny_models(tmp_path_factory)


def noise(model: Tiny, frames: int) -> torch.Tensor:
    shape = model.parts.latent_shape(frames, 32, 32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class Decodings:
    """Counts the latent frames that a model's VAE decodes while the block runs."""

    def __init__(self, model: Tiny) -> None:
        self._decoder, self.count = model.parts.vae.decoder, 0

    def __enter__(self) -> Decodings:
        self._hook = self._decoder.register_forward_hook(self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        self._hook.remove()

    def _note(self, *_: Any) -> None:
        self.count += 1


@pytest.mark.parametrize("architecture", ["t2v", "ti2v_2_2"])
def test_streamed_frames_are_those_of_decoding_at_once_bit_for_bit(tiny, architecture):
    parts = tiny(architecture).parts
    latents = noise(tiny(architecture), 13)
    shape = (1, parts.latent_channels, 1, 1, 1)
    mean, spread = (torch.tensor(parts.vae.config[name]).view(shape) for name in ("latents_mean", "latents_std"))
    with torch.inference_mode():
        at_once = to_frames(parts.vae.decode(latents * spread + mean, return_dict=False)[0])
    streamed = list(decoded(parts, latents))
    assert [len(part) for part in streamed] == [1, 4, 4, 4]
    assert np.array_equal(np.concatenate(streamed), at_once)


def test_a_frame_can_be_taken_before_the_next_latent_frame_is_decoded(tiny):
    model = tiny("t2v")
    with Decodings(model) as decodings:
        ahead = [decodings.count - index for index, _ in enumerate(decoded(model.parts, noise(model, 21)), start=1)]
    assert set(ahead) == {0}, "whatever its length, one latent frame is decoded at a time"


def test_a_run_hands_out_its_first_frame_before_it_decodes_the_second_latent_frame(tiny):
    model = tiny("t2v")
    frames = model.model.generate(model.request(**SHORT), lambda *_: None, Cancel(lambda: False))
    with Decodings(model) as decodings:
        first = list(islice(frames, 1))
        at_first = decodings.count
        rest = list(frames)
    assert (len(first), at_first, len(rest), decodings.count) == (1, 1, 8, 3)


@pytest.mark.slow
def test_frames_that_a_window_leaves_out_at_its_end_are_not_decoded(tiny):
    model = tiny("t2v")
    windows = SHORT | {
        "video_length": 25, "sliding_window_size": 17, "sliding_window_overlap": 1,
        "sliding_window_discard_last_frames": 8,
    }  # fmt: skip
    with Decodings(model) as decodings:
        frames = model.frames(**windows)
    assert len(frames) == 25
    assert decodings.count == 3 + 5, "of the first window's 5 latent frames 3 are shown"


def test_a_run_that_is_cancelled_stops_between_two_latent_frames_and_the_next_is_whole(tiny):
    model = tiny("t2v")
    whole = model.frames(**SHORT)
    with Decodings(model) as decodings, pytest.raises(GenerationCancelled):
        model.frames(**SHORT, cancel=lambda: decodings.count == 2)
    assert decodings.count == 2
    assert np.array_equal(model.frames(**SHORT), whole)


def test_a_decoding_that_nobody_finishes_leaves_nothing_in_the_vae(tiny):
    model = tiny("t2v")
    latents = noise(model, 13)
    whole = np.concatenate(list(decoded(model.parts, latents)))
    begun = decoded(model.parts, latents)
    next(begun)
    next(begun)
    begun.close()
    assert all(each is None for each in model.parts.vae._feat_map)
    assert np.array_equal(np.concatenate(list(decoded(model.parts, latents))), whole)
