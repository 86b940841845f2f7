"""Tiny random-weight models that write: Llama 3 and Florence-2, each with a tokenizer of its own."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

LLAMA_MARKS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")

#: the form of the real template, in its parts that matter here: unless it is told another, it names the day
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y %f') %}{% endif %}"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% if message['role'] == 'system' %}Today Date: {{ date_string }}\n\n{% endif %}"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

#: numbers of the letters among the bytes
_LETTERS = [ord(letter) - ord("!") for letter in string.ascii_letters]
#: letters that end an answer: random weights would never come to an end
_ENDS = [ord(letter) - ord("!") for letter in "EXvj"]


def tiny_llama(folder: Path, seed: int = 0, *, template: bool = True) -> Path:
    """A whole Llama 3 of a few hundred kB, weights random but the same for the same seed; every byte is a token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    tokenizer = _byte_tokenizer(LLAMA_MARKS)
    tokenizer.bos_token, tokenizer.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    if template:
        tokenizer.chat_template = LLAMA_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, *_ENDS],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    _speaking(model, 8)
    # The published settings draw by chance.
    model.generation_config.do_sample, model.generation_config.temperature = True, 0.6
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def parrot_llama(folder: Path, sentence: str) -> Path:
    """A Llama that answers `sentence` whatever it is asked; nothing for "".

    Each token is a direction of its own, attention and MLP add nothing, and the last layer leads from the end of the
    chat's opening to the sentence, which is one token, and from there to the end.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    tokenizer = _byte_tokenizer(LLAMA_MARKS)
    tokenizer.bos_token, tokenizer.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    tokenizer.chat_template = LLAMA_TEMPLATE
    tokenizer.add_tokens([sentence] if sentence else [])
    width = len(tokenizer) + len(tokenizer) % 2
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=4096, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    (line_end,), end = tokenizer("\n", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id
    said = tokenizer.convert_tokens_to_ids(sentence) if sentence else end
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), width))
        model.lm_head.weight[said, line_end] = model.lm_head.weight[end, said] = 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_florence2(folder: Path, seed: int = 0) -> Path:
    """A whole Florence-2 of about 1 MB that sees pictures of the real size, in coarse patches."""
    import torch
    from transformers import Florence2Config, Florence2ForConditionalGeneration
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    tokenizer = _byte_tokenizer(("<s>", "<pad>", "</s>", "<image>"))
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<s>", "</s>", "<pad>"
    mark = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<s>", "<pad>", "</s>", "<image>")}
    config = Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 1024,
            "bos_token_id": mark["<s>"],
            "pad_token_id": mark["<pad>"],
            "eos_token_id": mark["</s>"],
            "decoder_start_token_id": mark["</s>"],
            "forced_eos_token_id": mark["</s>"],
        },
        vision_config={
            "depths": [1, 1],
            "patch_size": [16, 3],
            "patch_stride": [16, 4],
            "patch_padding": [0, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "projection_dim": 32,
        },
        image_token_id=mark["<image>"],
    )
    torch.manual_seed(seed)
    model = Florence2ForConditionalGeneration(config).eval()
    _speaking(model, 6)
    settings = model.generation_config
    settings.num_beams, settings.no_repeat_ngram_size, settings.early_stopping = 3, 3, True
    settings.decoder_start_token_id, settings.forced_eos_token_id = mark["</s>"], mark["</s>"]
    settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = (
        mark["<s>"],
        [mark["</s>"], *_ENDS],
        mark["<pad>"],
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_tokenizer(marks: tuple[str, ...]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {letter: number for number, letter in enumerate(bytes_to_unicode().values())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in marks])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _speaking(model: Any, factor: float) -> None:
    """Initial weights are too small to tell inputs apart; and of all tokens, letters alone are ever likely."""
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1:
                weights.mul_(factor)
            if "o_proj" in name or "encoder_attn.out_proj" in name:
                weights.mul_(factor)
        words = model.get_input_embeddings().weight
        silent = torch.ones(len(words), dtype=torch.bool)
        silent[_LETTERS] = False
        words[silent] *= 0.05
