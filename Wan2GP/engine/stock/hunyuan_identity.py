"""How HunyuanCustom (Hu et al. 2025, arXiv 2505.04512) is shown the subject of a picture.

The transformer is HunyuanVideo's. The picture's latents go before the video's on the time axis, without noise, at time
-1 and one width further right. The text encoder, LLaVA, reads the picture after the prompt. Names, numbers and masks
are those of the authors' program, which was written for transformers 4.41: there padding is embedded as zeros, and the
tokens that a picture adds count as attended at the end of the text, wherever they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor, nn

from Wan2GP.errors import InvalidInput
from Wan2GP.media import Frame

#: tokens of the prompt, the picture's own not counted
_TOKENS = 256
#: layers of the text encoder that are left out at its end
_LAYERS_SKIPPED = 2
#: colours as CLIP was trained with: mean and deviation of red, green and blue in 0-1
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.4082107), (0.26862954, 0.26130258, 0.27577711)


class ShownFirst(nn.Module):
    """HunyuanVideo's transformer with a clean latent frame before those of the video; called as it is."""

    def __init__(self, transformer: Any, shown: Tensor) -> None:
        """`shown` is (1, C, 1, H, W)."""
        super().__init__()
        self.transformer, self._shown = transformer, shown
        self.config, self.cache_context = transformer.config, transformer.cache_context

    @property
    def dtype(self) -> torch.dtype:
        """That of the transformer's weights."""
        return next(self.transformer.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the transformer's weights are."""
        return next(self.transformer.parameters()).device

    def forward(self, hidden_states: Tensor, guidance: Tensor | None = None, **others: Any) -> tuple[Tensor]:
        """(1, C, F, H, W) -> the same; the model has no distilled guidance."""
        together = torch.cat([self._shown.to(hidden_states), hidden_states], dim=2)
        (predicted,) = self.transformer(hidden_states=together, guidance=None, **others)
        return (predicted[:, :, 1:],)


class ShownFirstPositions(nn.Module):
    """Rotary positions of latents whose first frame is the picture. Takes the place of the transformer's own."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        self._patch, self._patch_t, self._dims, self._theta = own.patch_size, own.patch_size_t, own.rope_dim, own.theta

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (tokens, width of a head)."""
        _, _, frames, height, width = hidden_states.shape
        sizes = (frames // self._patch_t - 1, height // self._patch, width // self._patch)
        axes = [torch.arange(size, device=hidden_states.device, dtype=torch.float32) for size in sizes]
        video = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        picture = video[:, :1].clone()
        picture[0], picture[2] = -1, picture[2] + sizes[2]
        places = torch.cat([picture, video], dim=1)
        found = [
            get_1d_rotary_pos_embed(dims, axis.reshape(-1), self._theta, use_real=True)
            for dims, axis in zip(self._dims, places, strict=True)
        ]
        return torch.cat([cosines for cosines, _ in found], dim=1), torch.cat([sines for _, sines in found], dim=1)


@dataclass(frozen=True)
class Read:
    """A prompt and a picture, read: what the transformer is given."""

    #: (1, tokens, width)
    embeddings: Tensor
    #: (1, tokens): 1 for a token that counts
    mask: Tensor
    #: (1, width) of the second text encoder
    pooled: Tensor
    #: how many tokens the picture adds
    added: int

    @property
    def mask_without_picture(self) -> Tensor:
        """The mask of a negative prompt: as many tokens from the beginning as count, less those of the picture."""
        count = int(self.mask.sum()) - self.added
        kept = torch.arange(self.mask.shape[1], device=self.mask.device) < count
        return kept.to(self.mask.dtype)[None] if count > 0 else self.mask


def read(pipeline: Any, prompt: str, subject: str, picture: Frame) -> Read:
    """The prompt with "The <subject> looks like" the picture. Raises InvalidInput for one that is too long."""
    encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    if hasattr(encoder, "_hf_hook"):
        encoder._hf_hook.pre_forward(encoder)  # its parts are called one by one below
    crop = DEFAULT_PROMPT_TEMPLATE["crop_start"]
    text = DEFAULT_PROMPT_TEMPLATE["template"].format(prompt) + f"\nThe {subject} looks like<image>"
    lengths = {"max_length": _TOKENS + crop, "padding": "max_length", "padding_side": "right", "truncation": True}
    tokens = tokenizer(text, return_tensors="pt", **lengths)
    place = (tokens.input_ids[0] == encoder.config.image_token_index).nonzero()
    if len(place) != 1:
        raise InvalidInput(f"is longer than the {_TOKENS} tokens that the model reads; shorten it", field="prompt")
    embedded, mask = _with_picture(encoder, tokens, int(place), picture)
    states = encoder.model.language_model(
        inputs_embeds=embedded,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).masked_fill(mask == 0, 1),
        output_hidden_states=True,
    ).hidden_states[-(_LAYERS_SKIPPED + 1)]
    added = embedded.shape[1] - tokens.attention_mask.shape[1]
    counted = torch.cat([tokens.attention_mask, torch.ones(1, added, dtype=tokens.attention_mask.dtype)], dim=1)
    pooled = pipeline._get_clip_prompt_embeds(prompt)
    return Read(states[:, crop:], counted[:, crop:].to(states.device), pooled, added)


def on_white(picture: Frame, size: tuple[int, int]) -> Frame:
    """The whole picture in the middle of a white one of `size` (width, height), as large as fits."""
    (height, width), (wide, high) = picture.shape[:2], size
    by_height = wide / width > high / height
    inner = (max(int(width / height * high), 1), high) if by_height else (wide, max(int(height / width * wide), 1))
    left, top = (wide - inner[0]) // 2, (high - inner[1]) // 2
    canvas = np.full((high, wide, 3), 255, np.uint8)
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=cv2.INTER_LINEAR)
    return canvas


def _with_picture(encoder: Any, tokens: Any, place: int, picture: Frame) -> tuple[Tensor, Tensor]:
    """Embeddings and mask of the tokens, those of the picture in the place of its mark; padding is zero."""
    device, model = encoder.device, encoder.model
    ids = tokens.input_ids.to(device)
    words = model.get_input_embeddings()(ids).masked_fill((ids == encoder.config.pad_token_id)[..., None], 0)
    side = encoder.config.vision_config.image_size
    pixels = torch.from_numpy(on_white(picture, (side, side))).permute(2, 0, 1)[None] / 255
    pixels = (pixels - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_DEVIATION).view(1, 3, 1, 1)
    layers = model.vision_tower(pixels.to(device, words.dtype), output_hidden_states=True).hidden_states
    seen = model.multi_modal_projector(layers[encoder.config.vision_feature_layer][:, 1:]).to(words.dtype)
    mask = tokens.attention_mask.to(device)
    ones = torch.ones(1, seen.shape[1], dtype=mask.dtype, device=device)
    return (
        torch.cat([words[:, :place], seen, words[:, place + 1 :]], dim=1),
        torch.cat([mask[:, :place], ones, mask[:, place + 1 :]], dim=1),
    )
