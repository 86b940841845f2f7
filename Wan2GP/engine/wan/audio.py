"""Speech as a model hears it: wav2vec2's states, and which of them belong to each latent frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.media import read_sound

#: samples a second that wav2vec2 was trained with
SAMPLE_RATE = 16_000


def speech(path: Path, start_s: float, length_s: float) -> tuple[torch.Tensor, float]:
    """Samples (N,) of `length_s` seconds from `start_s` (may be negative), and the second of them at which sound ends.

    What is sound has mean 0 and variance 1, as wav2vec2 (base, 960 h) wants it; around it is silence.
    """
    count = round(length_s * SAMPLE_RATE)
    before = min(max(round(-start_s * SAMPLE_RATE), 0), count)
    begin = max(start_s, 0.0)
    heard = read_sound(path, rate=SAMPLE_RATE, start_s=begin, stop_s=begin + (count - before) / SAMPLE_RATE)
    samples = np.zeros(count, np.float32)
    if len(heard):
        heard = heard[: count - before]
        samples[before : before + len(heard)] = (heard - heard.mean()) / np.sqrt(heard.var() + 1e-7)
    return torch.from_numpy(samples), (before + len(heard)) / SAMPLE_RATE


@torch.inference_mode()
def speech_states(parts: WanParts, samples: torch.Tensor) -> torch.Tensor:
    """(N,) samples -> (1, T, D) float32: the last layer of the audio encoder, about 50 states a second."""
    with parts.using("audio_encoder") as encoder:
        found: torch.Tensor = encoder(samples[None].to(parts.device, encoder.dtype)).last_hidden_state
    return found.float()


def around_latent_frames(states: int, frames: int, temporal: int, margin: int = 4) -> list[tuple[int, int]]:
    """For each latent frame the first and last state that it hears; they may lie outside of 0 to `states` - 1.

    As in FantasyTalking's program: as many states as a latent frame lasts, around its middle, and `margin` more on both
    sides. The first latent frame, which is one frame, hears what comes before the range of the second.
    """
    each = states / frames
    half = int(each * temporal / 2)
    ranges = []
    for latent in range(1, (frames - 1) // temporal + 1):
        middle = int((each * ((latent - 1) * temporal + 1) + each * (latent * temporal + 1)) / 2) - 1
        ranges.append((middle - half, middle + half))
    second = ranges[0][0] if ranges else half
    ranges.insert(0, (second - 2 * half, second))
    return [(first - margin, last + margin) for first, last in ranges]


def gathered(tokens: torch.Tensor, ranges: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, T, D) tokens -> (F', L, D), those of each range with zeros for what lies outside, and a mask (F', L)."""
    places = torch.tensor([list(range(first, last + 1)) for first, last in ranges], device=tokens.device)
    inside = (places >= 0) & (places < tokens.shape[1])
    found = functional.embedding(places.clamp(0, tokens.shape[1] - 1), tokens[0])
    return found * inside[..., None].to(found.dtype), inside


def load_audio_encoder(folder: Path) -> Any:
    """wav2vec2 from a local folder, in full precision: it is small."""
    from transformers import Wav2Vec2Model

    return Wav2Vec2Model.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
