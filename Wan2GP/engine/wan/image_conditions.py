"""Image-to-video: the transformer sees, beside the noisy latents, the given frames and a mask of which were given."""

from __future__ import annotations

import numpy as np
import torch

from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.conditions import Conditions, Known, Prompts
from Wan2GP.engine.wan.latents import encode, to_tensor
from Wan2GP.engine.wan.parts import WanParts
from Wan2GP.engine.wan.steps import Step
from Wan2GP.engine.wan.window import Window
from Wan2GP.media import Frame, resize


class ImageConditions(Conditions):
    """Wan i2v, FLF2V, Fun InP and Wan 2.2 i2v: condition channels beside the latents, and an image embedding where the
    transformer takes one. Frames to continue from stand where a start image would."""

    def __init__(self, parts: WanParts, request: GenerationRequest, window: Window, prompts: Prompts) -> None:
        super().__init__(parts, request, window, prompts)
        self._condition = torch.cat([self._given_mask(), self._given_latents()], dim=1).to(self.dtype)
        self._image = self._image_embedding()

    def forward(self, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        hidden = torch.cat([latents.to(self.dtype), self._condition], dim=1)
        return self.call(step, hidden, self.timestep(step), prompt, encoder_hidden_states_image=self._image)

    def _kept_prefix(self) -> Known | None:
        """The model has an input for its first frames."""
        return None

    def _given_latents(self) -> torch.Tensor:
        """(1, C, F', H', W'): the given frames, mid grey elsewhere."""
        window = self.window
        video = torch.zeros(1, 3, window.frames, window.height, window.width)
        first = window.first_frames
        video[:, :, : len(first)] = to_tensor(first)
        if window.image_end is not None:
            video[:, :, -1:] = to_tensor(window.image_end[None])
        return encode(self.parts, video)

    def _given_mask(self) -> torch.Tensor:
        """(1, 4, F', H', W'): for each latent frame, which of its frames are given. The first holds one, four times."""
        marks = torch.zeros(self.window.frames)
        marks[: len(self.window.first_frames)] = 1
        if self.window.image_end is not None:
            marks[-1] = 1
        temporal = self.parts.temporal
        marks = torch.cat([marks[:1].repeat(temporal), marks[1:]]).view(-1, temporal).T
        _, _, _, height, width = self.latent_shape
        return marks[None, :, :, None, None].expand(-1, -1, -1, height, width).to(self.parts.device)

    def _image_embedding(self) -> torch.Tensor | None:
        """What CLIP sees in the start image (and in the end image, for a model that was trained with both)."""
        config = self.parts.transformer.config
        if config.image_dim is None:
            return None
        images = [self._looked_at()]
        if config.pos_embed_seq_len is not None:
            end = self.window.image_end
            # A window before the last has no end image of its own; it is on its way to the last one.
            images.append(resize(self.request.image_ends[-1], self.request.size) if end is None else end)
        return clip_states(self.parts, images).to(self.parts.dtype)

    def _looked_at(self) -> Frame:
        """What the image encoder sees of the beginning."""
        frame: Frame = self.window.first_frames[-1]
        return frame


class FirstLatentConditions(Conditions):
    """Wan 2.2 5B: the given frames replace the first latent frames, whose timestep is 0; without any it is plain
    text-to-video with one timestep a token."""

    def __init__(self, parts: WanParts, request: GenerationRequest, window: Window, prompts: Prompts) -> None:
        super().__init__(parts, request, window, prompts)
        self._first = self._first_latents(window.first_frames)

    def start(self, noise: torch.Tensor, sigma: float) -> torch.Tensor:
        return self._with_first(super().start(noise, sigma))

    def forward(self, step: Step, latents: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        _, _, frames, height, width = self.latent_shape
        _, down, right = self.parts.transformer.config.patch_size
        moments = torch.full((1, frames, height // down, width // right), step.timestep, device=self.parts.device)
        moments[:, : self._count] = 0
        return self.call(step, self._with_first(latents), moments.flatten(1), prompt)

    def video(self, latents: torch.Tensor) -> torch.Tensor:
        return self._with_first(latents)

    @property
    def _count(self) -> int:
        return 0 if self._first is None else int(self._first.shape[2])

    def _first_latents(self, frames: np.ndarray) -> torch.Tensor | None:
        whole = (len(frames) - 1) // self.parts.temporal * self.parts.temporal + 1
        return self.encoded(frames[:whole]) if len(frames) else None

    def _with_first(self, latents: torch.Tensor) -> torch.Tensor:
        if self._first is None:
            return latents
        return torch.cat([self._first, latents[:, :, self._count :]], dim=2)

    def _kept_prefix(self) -> Known | None:
        return None


@torch.inference_mode()
def clip_states(parts: WanParts, images: list[Frame]) -> torch.Tensor:
    """(H, W, 3) uint8 images -> (N, T, D): the last but one layer of the image encoder. The same are looked at once."""
    return parts.remembered("images", "image_encoder", images, lambda: _seen(parts, images))


def _seen(parts: WanParts, images: list[Frame]) -> torch.Tensor:
    pixels = parts.image_processor(images=list(images), return_tensors="pt").pixel_values
    with parts.using("image_encoder") as encoder:
        found: torch.Tensor = encoder(
            pixel_values=pixels.to(parts.device, encoder.dtype), output_hidden_states=True
        ).hidden_states[-2]
    return found
