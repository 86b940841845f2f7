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
    """One (1, T, D) embedding a prompt in the transformer's dtype, zero after the end of the text. Each is encoded by
    itself, so that it is the same whichever others it comes with, and once."""
    return [_encoded(parts, cleaned(prompt)) for prompt in prompts]


def _encoded(parts: WanParts, prompt: str) -> torch.Tensor:
    tokens = parts.tokenizer(
        [prompt],
        padding="max_length",
        max_length=parts.text_tokens,
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    content = [tokens.input_ids, tokens.attention_mask, parts.dtype]
    return parts.remembered("text", "text_encoder", content, lambda: _states(parts, *content))


def _states(parts: WanParts, words: torch.Tensor, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = mask.to(parts.device)
    with parts.using("text_encoder") as encoder:
        states: torch.Tensor = encoder(words.to(parts.device), mask).last_hidden_state
    return (states * mask[..., None].to(states.dtype)).to(dtype)
