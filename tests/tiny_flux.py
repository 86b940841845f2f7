"""Tiny random-weight FLUX.1 and Z-Image pipelines, built on the spot and saved as diffusers folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CORPUS, tiny_t5_tokenizer
from tiny_vision import tiny_tokenizer

#: channels of a latent pixel
LATENT = 4


def tiny_flux(folder: Path, seed: int = 0, *, guided: bool = True) -> Path:
    """FLUX.1 dev, or schnell, which has no embedding of a guidance scale."""
    from diffusers import FluxPipeline

    return _saved(FluxPipeline, folder, seed, guided)


def tiny_schnell(folder: Path, seed: int = 0) -> Path:
    """FLUX.1 schnell."""
    return tiny_flux(folder, seed, guided=False)


def tiny_kontext(folder: Path, seed: int = 0) -> Path:
    """FLUX.1 Kontext."""
    from diffusers import FluxKontextPipeline

    return _saved(FluxKontextPipeline, folder, seed, True)


def tiny_z_image(folder: Path, seed: int = 0) -> Path:
    """Z-Image."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    _quiet()
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer(template=True)
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=LATENT,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[256, 128, 128],
    )
    for weights in transformer.parameters():
        # Without this, the pads and the last layer would be noughts or memory as it was.
        torch.nn.init.normal_(weights, 0, 0.1)
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(),
        text_encoder=Qwen3Model(text).eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    ).save_pretrained(folder)
    return folder


def _saved(cls: Any, folder: Path, seed: int, guided: bool) -> Path:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    _quiet()
    torch.manual_seed(seed)
    clip, t5 = tiny_clip_tokenizer(), tiny_t5_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(clip),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=clip.bos_token_id,
        eos_token_id=clip.eos_token_id,
        pad_token_id=clip.pad_token_id,
    )
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guided,
    )
    cls(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guided),
        vae=_vae(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=len(t5), d_model=32, d_kv=8, d_ff=37, num_layers=1)).eval(),
        tokenizer_2=t5,
        transformer=transformer.eval(),
    ).save_pretrained(folder)
    return folder


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=32,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        latent_channels=LATENT,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    ).eval()


def tiny_clip_tokenizer() -> Any:
    """Every byte a token, inside a word and at its end."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], model_max_length=77
    )
    assert len(tokenizer(CORPUS[0])["input_ids"]) > len(CORPUS[0].split())
    return tokenizer


def _quiet() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
