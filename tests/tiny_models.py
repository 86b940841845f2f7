"""Tiny random-weight models, built on the spot and saved as diffusers folders. Importable by every test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CORPUS = (
    "a red circle moving right on a dark ground",
    "a blue square moving left on a dark ground",
    "a green triangle moving up, a yellow ring moving down",
)


def tiny_wan_t2v(folder: Path, seed: int = 0) -> Path:
    """A whole Wan text-to-video pipeline of about 0.4 MB, weights random but the same for the same seed."""
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    tokenizer = tiny_t5_tokenizer()
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=_text_encoder(len(tokenizer)),
        vae=AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ),
        transformer=WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=256,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        ),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
    )
    pipeline.save_pretrained(folder)
    return folder


def tiny_t5_tokenizer() -> Any:
    """A Unigram tokenizer trained on a few sentences."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import T5Tokenizer

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    pieces = [(piece, float(score)) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def write_definition(folder: Path, name: str, architecture: str, source: Path, **settings: Any) -> Path:
    """A definition row for a model in a local folder. Returns the folder, to be given as a definitions folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {"name": name, "architecture": architecture, "source": str(source.resolve())}
    (folder / f"{name}.json").write_text(json.dumps({"model": model, **settings}), encoding="utf-8")
    return folder


def _text_encoder(vocabulary: int) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(vocab_size=vocabulary, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    return UMT5EncoderModel(config).eval()
