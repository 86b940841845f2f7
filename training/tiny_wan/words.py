"""The tiny models' text side: a whole-word tokenizer and a one-layer text encoder, of the classes that Wan uses."""

from __future__ import annotations

from typing import Any

from training.tiny_wan.shapes import COLOURS, DIRECTIONS, SHAPES

#: words a prompt may hold, its end, and padding; the real models pad to 512
MAX_TOKENS = 16

_WORDS = (*COLOURS, *SHAPES, *DIRECTIONS, "a", "moving")


def tokenizer() -> Any:
    """A T5 tokenizer whose pieces are whole words; any other word is unknown."""
    from transformers import T5Tokenizer

    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((f"\N{LOWER ONE EIGHTH BLOCK}{word}", -1.0) for word in _WORDS),
    ]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)


def text_encoder(vocabulary: int) -> Any:
    """A UMT5 encoder of about 0.05 million parameters; untrained."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocabulary, d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4, dropout_rate=0.0
    )
    return UMT5EncoderModel(config)


def token_ids(words: Any, prompts: list[str]) -> tuple[Any, Any]:
    """(ids, mask), each (N, MAX_TOKENS) int64."""
    read = words(prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return read.input_ids, read.attention_mask
