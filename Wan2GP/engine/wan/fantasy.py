"""FantasyTalking (Wang et al. 2025, arXiv 2504.04842), "Fantasy Speaking": image-to-video that moves to a voice.

To Wan's image-to-video transformer it adds, in every block, a key and a value projection without bias: cross-attention
attends, beside text and image, to what is heard around each latent frame. That is wav2vec2's last layer through one
linear layer without bias and a layer norm (768 -> 2048). Guidance, as in the authors' program:

    v = v(silent, negative) + g * (v(silent, prompt) - v(silent, negative)) + a * (v(heard, prompt) - v(silent, prompt))

with g `guidance_scale` and a `audio_guidance_scale` (5 and 5 there). With a at 1 or less the sound is heard in both
passes of plain guidance, which is what that program does without a scale for sound.

Names in weights files (read in published programs; no published file was at hand): `proj_model.{proj,norm}.*` and
`blocks.N.cross_attn[.processor].{k,v}_proj.weight`, in front of which `audio_processor.` may stand. Some releases keep
the projector in a file of its own, with bare names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch.nn import functional

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.audio import around_latent_frames, gathered, speech, speech_states
from Wan2GP.engine.wan.conditions import Prompts
from Wan2GP.engine.wan.guidance import unprojected
from Wan2GP.engine.wan.image_conditions import ImageConditions
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.engine.wan.steps import Step
from Wan2GP.engine.wan.window import Window
from Wan2GP.errors import InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import check_sound
from Wan2GP.weights.reader import read_state_dict

#: letters of audio_prompt_type: a sound track, which does not have to last to the video's end, of any loudness
_LETTERS = "ALN"

#: the keys and the values (F', L, D) of one block
Heard = tuple[torch.Tensor, torch.Tensor]


class SoundProjector(torch.nn.Module):
    """What FantasyTalking adds to a transformer of `blocks` blocks of width `width`."""

    def __init__(self, states: int, tokens: int, width: int, blocks: int) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(states, tokens, bias=False)
        self.norm = torch.nn.LayerNorm(tokens)
        self.k_proj = torch.nn.ModuleList(torch.nn.Linear(tokens, width, bias=False) for _ in range(blocks))
        self.v_proj = torch.nn.ModuleList(torch.nn.Linear(tokens, width, bias=False) for _ in range(blocks))

    def forward(self, states: torch.Tensor, ranges: list[tuple[int, int]]) -> tuple[list[Heard], torch.Tensor]:
        """(1, T, S) states -> each block's keys and values, and a mask (F', L) of what is inside the sound."""
        tokens = self.norm(self.proj(states.to(self.proj.weight.dtype)))
        heard, inside = gathered(tokens, ranges)
        return [(key(heard), value(heard)) for key, value in zip(self.k_proj, self.v_proj, strict=True)], inside


class FantasyConditions(ImageConditions):
    """Image conditions and a sound track. Sound counts from where control videos do; after its end there is silence."""

    def __init__(self, parts: WanParts, request: GenerationRequest, window: Window, prompts: Prompts) -> None:
        super().__init__(parts, request, window, prompts)
        self._heard: tuple[list[Heard], torch.Tensor] | None = None
        if request.audio_scale > 0:
            self._heard = self._keys_and_values()

    @staticmethod
    def check(request: GenerationRequest) -> None:
        model = request.definition.id
        if request.audio_guide is None:
            raise InvalidInput(f"{model} moves to a voice; give audio_guide", field="audio_guide")
        others = sorted(set(str(request.settings["audio_prompt_type"])) - set(_LETTERS))
        if others:
            raise Unsupported(
                f"{model} hears one sound track as it is (A); it cannot do {' '.join(others)}",
                field="audio_prompt_type",
            )
        check_sound(request.audio_guide)

    def predict(self, step: Step, latents: torch.Tensor) -> torch.Tensor:
        scale, positive = self.request.sampling.audio_guidance_scale, self.prompts.positive
        if self._heard is None or scale <= 1:
            return super().predict(step, latents)
        if step.guidance <= 1:
            with self._against_the_negative(step):
                heard = self.forward(step, latents, positive).float()
                silent = self._silent(step, latents, positive)
            return silent + scale * (heard - silent)
        if self.guidance.waits(step):
            return torch.zeros_like(latents)
        heard = self.forward(step, latents, positive).float()
        silent = self._silent(step, latents, positive)
        with self._layers_of_the_second_pass(step):
            uncond = self._silent(step, latents, self.prompts.negative)
        return self.guidance.combined(silent, uncond, step) + scale * (heard - silent)

    def forward(self, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        if self._heard is None:
            return super().forward(step, latents, prompt)
        with hearing(self.parts.experts[step.expert], *self._heard, self.request.audio_scale):
            return super().forward(step, latents, prompt)

    def _silent(self, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        return super().forward(step, latents, prompt).float()

    @torch.inference_mode()
    def _keys_and_values(self) -> tuple[list[Heard], torch.Tensor]:
        """Made once: they are the same at every step."""
        window, fps, path = self.window, self.request.fps, self.request.audio_guide
        assert path is not None, "checked before the model is loaded"
        length_s = window.frames / fps
        samples, heard_s = speech(path, window.start / fps, length_s)
        if heard_s < length_s - 1 / fps:
            end = max(window.start / fps + heard_s, 0)
            self.remarks = (f"the sound ends at {end:.2f} s, before the video does; silence follows",)
        states = speech_states(self.parts, samples)
        ranges = around_latent_frames(states.shape[1], window.frames, self.parts.temporal)
        with self.parts.using("audio_projector") as projector:
            found: tuple[list[Heard], torch.Tensor] = projector(states, ranges)
        return found


class SoundAttention:
    """Cross-attention that attends, frame by frame, to sound too; `scale` is how strongly."""

    def __init__(self, plain: Any, heard: Heard, inside: torch.Tensor, scale: float) -> None:
        self._plain = plain
        self._keys, self._values = heard
        self._inside = inside
        self._scale = scale

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: Any = None,
    ) -> torch.Tensor:
        with unprojected(attn):
            seen = self._plain(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        heard = self._attended(attn, hidden_states)
        out: torch.Tensor = attn.to_out[1](attn.to_out[0](seen + self._scale * heard))
        return out

    def _attended(self, attn: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        """(1, F' * P, D) -> the same shape: the P tokens of each latent frame attend to the sound around it."""
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(1, (len(self._keys), -1))[0]
        parts = [each.to(query.dtype).unflatten(2, (attn.heads, -1)) for each in (query, self._keys, self._values)]
        query, keys, values = (each.transpose(1, 2) for each in parts)
        found = functional.scaled_dot_product_attention(query, keys, values, attn_mask=self._inside[:, None, None])
        return found.transpose(1, 2).flatten(2).flatten(0, 1)[None]


@contextmanager
def hearing(transformer: Any, heard: Sequence[Heard], inside: torch.Tensor, scale: float) -> Iterator[None]:
    """The transformer with sound in it while the block runs. Blocks left out for guidance are passed over."""
    blocks = [(block, each) for block, each in zip(transformer.blocks, heard, strict=True) if hasattr(block, "attn2")]
    plain = [block.attn2.processor for block, _ in blocks]
    try:
        for (block, each), processor in zip(blocks, plain, strict=True):
            block.attn2.set_processor(SoundAttention(processor, each, inside, scale))
        yield
    finally:
        for (block, _), processor in zip(blocks, plain, strict=True):
            block.attn2.set_processor(processor)


_PROJECTOR = re.compile(r"(?:proj_model\.)?((?:proj|norm)\.(?:weight|bias))")
_IN_BLOCK = re.compile(
    r"(?:audio_processor\.)?blocks\.(\d+)\.(?:cross_attn|attn2)\.(?:processor\.)?([kv]_proj)\.weight"
)


def load_projector(files: Sequence[Path], transformer: Any, states: int, dtype: torch.dtype) -> SoundProjector:
    """The projector that the module files hold, for this transformer and an audio encoder of width `states`.

    Raises ModelUnavailable that names the files and what they lack, hold beyond it, or hold in another shape.
    """
    weights = {
        _own_name(name, files): tensor for file in files for name, tensor in read_state_dict(file, dtype).items()
    }
    if "norm.weight" not in weights:
        raise ModelUnavailable(f"{_names(files)} lacks proj_model, the projector of FantasyTalking; add its file")
    config = transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    with init_empty_weights():
        projector = SoundProjector(states, len(weights["norm.weight"]), width, len(transformer.blocks))
    _check(weights, projector.state_dict(), files)
    projector.load_state_dict(weights, strict=True, assign=True)
    return projector


def _own_name(name: str, files: Sequence[Path]) -> str:
    if found := _PROJECTOR.fullmatch(name):
        return found[1]
    if found := _IN_BLOCK.fullmatch(name):
        return f"{found[2]}.{found[1]}.weight"
    raise ModelUnavailable(f"{_names(files)} holds {name}, which FantasyTalking has no place for")


def _check(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], files: Sequence[Path]) -> None:
    for name, tensor in expected.items():
        if name not in weights:
            raise ModelUnavailable(
                f"{_names(files)} lacks {name} of FantasyTalking's projector; delete it and fetch it again"
            )
        if weights[name].shape != tensor.shape:
            raise ModelUnavailable(
                f"{_names(files)}: {name} is {tuple(weights[name].shape)}; this model needs {tuple(tensor.shape)}"
            )
        if not torch.isfinite(weights[name]).all():
            raise ModelUnavailable(
                f"{_names(files)}: {name} holds values that are not numbers; delete it and fetch it again"
            )
    if left := sorted(set(weights) - set(expected)):
        raise ModelUnavailable(f"{_names(files)} holds {left[0]}, a block that the transformer does not have")


def _names(files: Sequence[Path]) -> str:
    return " with ".join(map(str, files)) or "the model's definition names no module file, so it"
