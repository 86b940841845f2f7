"""SVI 2 Pro: image-to-video that goes on from a video by an anchor image and the last latent frame of that video.

Li et al. 2025, "Stable Video Infinity: Infinite-Length Video Generation with Error Recycling", arXiv 2510.09212; the
layout of the Pro weights for Wan 2.2 is that of the authors' release. The condition beside the noisy latents is

    latents   anchor | last latent frame of the video before | zeros ... | end image, where there is one
    mask         1   |                  0                    |   0  ...  | 1

The anchor's latent frame is one frame after decoding, and no part of the video. The latent frame after it stands for
the last four frames of the video before, and the new frames follow it.
"""

from __future__ import annotations

import numpy as np
import torch

from Wan2GP.architecture import SVI_LEAST_CONTEXT
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.image_conditions import ImageConditions
from Wan2GP.engine.wan.window import SVI_CONTEXT
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import Frame


class SviConditions(ImageConditions):
    """Image-to-video whose windows go on from the last latent frame; one that begins a video is a plain one."""

    @property
    def lead(self) -> int:
        """The anchor's frame."""
        return 1 if self._goes_on else 0

    @staticmethod
    def check(request: GenerationRequest) -> None:
        model = request.definition.id
        redrawn = {"video_guide": request.video_guide, "vid2vid_init_video": request.initial_video}
        for field, video in redrawn.items():
            if video is not None:
                raise Unsupported(f"{model} goes on from a video (svi2pro), it redraws none; leave it out", field=field)
        if "F" in request.video_prompt_type:
            raise Unsupported(
                f"{model} has one reference, the anchor (I), and none at a frame (F)", field="video_prompt_type"
            )
        if len(request.references) > 1:
            raise InvalidInput(f"SVI has one anchor, not {len(request.references)} images", field="image_refs")

    @property
    def _goes_on(self) -> bool:
        return len(self.window.prefix) > 0

    def _given_latents(self) -> torch.Tensor:
        """(1, C, F', H', W')."""
        if not self._goes_on:
            return super()._given_latents()
        latents = torch.zeros(self.latent_shape, device=self.parts.device)
        latents[:, :, :1] = self.encoded(self._looked_at()[None])
        latents[:, :, 1:2] = self._last_of_before()
        if self.window.image_end is not None:
            latents[:, :, -1:] = self._still(self.window.image_end)
        return latents

    def _given_mask(self) -> torch.Tensor:
        """(1, 4, F', H', W'): 1 for the anchor, and for the whole last latent frame where an end image is given."""
        if not self._goes_on:
            return super()._given_mask()
        _, _, frames, height, width = self.latent_shape
        mask = torch.zeros((1, self.parts.temporal, frames, height, width), device=self.parts.device)
        mask[:, :, :1] = 1
        if self.window.image_end is not None:
            mask[:, :, -1:] = 1
        return mask

    def _last_of_before(self) -> torch.Tensor:
        """The last latent frame of the frames before, which are encoded with those that it depends on most."""
        prefix = self.window.prefix
        count = SVI_CONTEXT if len(prefix) >= SVI_CONTEXT else SVI_LEAST_CONTEXT
        return self.encoded(prefix[-count:])[:, :, -1:]

    def _still(self, image: Frame) -> torch.Tensor:
        """A latent frame that shows the image in each of its frames, so that the video may end at any of them."""
        return self.encoded(np.stack([image] * SVI_LEAST_CONTEXT))[:, :, -1:]

    def _looked_at(self) -> Frame:
        """The anchor."""
        if not self._goes_on:
            return super()._looked_at()
        assert self.window.anchor is not None
        return self.window.anchor
