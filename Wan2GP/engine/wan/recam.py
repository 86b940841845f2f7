"""ReCamMaster (Bai et al. 2025, arXiv 2503.11647): a given video seen from a camera that moves in another way.

The source video's latents stand after those of the new video, clean at every step, and the new video alone is
predicted. In every block a linear layer turns the camera's pose of each latent frame into something that is added to
what self-attention sees (the same for both videos), and another is applied to what comes out of it. Names of these
layers in weights files: `blocks.N.cam_encoder.*` and `blocks.N.projector.*`. Published for the 1.3B model alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from diffusers import WanTransformer3DModel

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.cameras import MOVEMENTS, camera_path
from Wan2GP.engine.wan.conditions import Conditions, Prompts
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.engine.wan.steps import Step
from Wan2GP.engine.wan.window import Window
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import probe_video

#: numbers of a pose
_POSE = 12


class ReCamTransformer(WanTransformer3DModel):  # type: ignore[misc]
    """Wan's transformer with the two layers a block. New, they change nothing: no camera, and the identity."""

    @wraps(WanTransformer3DModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        width = self.config.num_attention_heads * self.config.attention_head_dim
        for block in self.blocks:
            block.cam_encoder = torch.nn.Linear(_POSE, width)
            block.projector = torch.nn.Linear(width, width)
            torch.nn.init.zeros_(block.cam_encoder.weight)
            torch.nn.init.eye_(block.projector.weight)
            for layer in (block.cam_encoder, block.projector):
                torch.nn.init.zeros_(layer.bias)


class ReCamConditions(Conditions):
    """The source video and the path of the camera (`model_mode`)."""

    def __init__(self, parts: WanParts, request: GenerationRequest, window: Window, prompts: Prompts) -> None:
        super().__init__(parts, request, window, prompts)
        assert window.guide is not None, "checked before the model is loaded"
        self._source = self.encoded(window.guide)
        path = torch.from_numpy(camera_path(request.model_mode, window.frames, parts.temporal))
        self._poses = path.repeat(2, 1)[None].to(parts.device, parts.dtype)

    @staticmethod
    def check(request: GenerationRequest) -> None:
        if request.model_mode not in MOVEMENTS:
            known = ", ".join(f"{number} {movement.name}" for number, movement in MOVEMENTS.items())
            raise InvalidInput(f"is {request.model_mode}; choose how the camera moves: {known}", field="model_mode")
        if request.video_guide is None:
            raise InvalidInput(
                f"{request.definition.id} films a given video anew; give video_guide", field="video_guide"
            )
        if "G" in request.video_prompt_type or request.guide_frames is not None:
            field = "video_prompt_type" if "G" in request.video_prompt_type else "keep_frames_video_guide"
            raise Unsupported(f"{request.definition.id} takes the whole video as it is; use UV", field=field)
        frames = probe_video(request.video_guide).num_frames
        if frames < request.num_frames:
            raise InvalidInput(
                f"has {frames} frames, and {request.num_frames} are to be made of them; "
                "give a longer video or a smaller video_length",
                field="video_guide",
            )

    def forward(self, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        hidden = torch.cat([latents, self._source.to(latents.dtype)], dim=2)
        with seen_from(self.parts.experts[step.expert], self._poses):
            return self.call(step, hidden, self.timestep(step), prompt)[:, :, : latents.shape[2]]


class CameraAttention:
    """Self-attention between a block's two layers. `poses`: (1, F', 12)."""

    def __init__(self, plain: Any, block: Any, poses: torch.Tensor) -> None:
        self._plain = plain
        self._block = block
        self._poses = poses

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: Any = None,
    ) -> torch.Tensor:
        tokens = hidden_states.shape[1] // self._poses.shape[1]
        camera = self._block.cam_encoder(self._poses).repeat_interleave(tokens, dim=1)
        found = self._plain(attn, hidden_states + camera, encoder_hidden_states, attention_mask, rotary_emb)
        out: torch.Tensor = self._block.projector(found)
        return out


@contextmanager
def seen_from(transformer: Any, poses: torch.Tensor) -> Iterator[None]:
    """The transformer with the camera's path while the block runs. Blocks left out for guidance are passed over."""
    blocks = [block for block in transformer.blocks if hasattr(block, "attn1")]
    plain = [block.attn1.processor for block in blocks]
    try:
        for block, processor in zip(blocks, plain, strict=True):
            block.attn1.set_processor(CameraAttention(processor, block, poses))
        yield
    finally:
        for block, processor in zip(blocks, plain, strict=True):
            block.attn1.set_processor(processor)
