"""Prompts become embeddings."""

from __future__ import annotations

import html
import re

import ftfy
import torch

from Wan2GP.engine.wan.parts import WanParts


def cleaned(prompt: str) -> str:
    """Broken encodings mended, HTML entities resolved (twice, as such texts are often escaped twice), spaces single."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(prompt)))).strip()


@torch.inference_mode()
def encode_prompts(parts: WanParts, prompts: list[str]) -> list[torch.Tensor]:
    """One (1, T, D) embedding a prompt in the transformer's dtype, zero after the end of the text."""
    tokens = parts.tokenizer(
        [cleaned(prompt) for prompt in prompts],
        padding="max_length",
        max_length=parts.text_tokens,
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    mask = tokens.attention_mask.to(parts.device)
    with parts.using("text_encoder") as encoder:
        states = encoder(tokens.input_ids.to(parts.device), mask).last_hidden_state
    states = states * mask[..., None].to(states.dtype)
    return list(states.to(parts.dtype).split(1))
