"""Tiny random-weight models that see: Qwen2.5-VL with a tokenizer of its own, and Depth Anything V2."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

#: marks of the chat's structure, as in the real tokenizer
MARKS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

#: the form of the real template, in its parts that matter here
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_qwen_vl(folder: Path, seed: int = 0, *, template: bool = True) -> Path:
    """A whole Qwen2.5-VL of about 1 MB, weights random but the same for the same seed."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    tokenizer = tiny_tokenizer(template)
    mark = {name: tokenizer.convert_tokens_to_ids(name) for name in MARKS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "bos_token_id": mark["<|endoftext|>"],
            "eos_token_id": mark["<|im_end|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=mark["<|image_pad|>"],
        video_token_id=mark["<|video_pad|>"],
        vision_start_token_id=mark["<|vision_start|>"],
        vision_end_token_id=mark["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        # Initial weights are too small to tell pictures apart.
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(6)
    model.generation_config.eos_token_id = [mark["<|im_end|>"], mark["<|endoftext|>"]]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer(template: bool) -> Any:
    """Every byte a token, with the marks of the real one."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {letter: number for number, letter in enumerate(bytes_to_unicode().values())}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    if template:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_depth(folder: Path, seed: int = 0) -> Path:
    """A whole Depth Anything V2 of a few hundred kB whose pictures are 56 pixels a side."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    backbone = Dinov2Config(
        image_size=56,
        patch_size=14,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    torch.manual_seed(seed)
    model = DepthAnythingForDepthEstimation(config).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1 and "head" in name:
                weights.normal_(0, 0.3)
        model.head.conv3.bias.fill_(1.0)
    model.save_pretrained(folder)
    return folder


def drop_weights(folder: Path, count: int = 1) -> str:
    """Take some tensors out of a folder's weights; returns the name of one."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    names = list(itertools.islice(sorted(weights), count))
    save_file({name: tensor for name, tensor in weights.items() if name not in names}, path, metadata={"format": "pt"})
    return names[0]


def change_config(folder: Path, **changes: Any) -> None:
    """Other values in a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
