"""A tiny random-weight LTX-Video, built on the spot and saved as a diffusers folder. Importable by every test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import TEXT_DIM, tiny_t5_tokenizer

#: channels of the latents
_LATENT = 8


def tiny_ltx(folder: Path, seed: int = 0) -> Path:
    """Text, image and video to video at 32 pixels and 8 frames a latent, as LTX-Video 0.9.7; about 0.6 MB."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline, LTXVideoTransformer3DModel
    from transformers import T5Config, T5EncoderModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    tokenizer = tiny_t5_tokenizer()
    transformer = LTXVideoTransformer3DModel(
        in_channels=_LATENT,
        out_channels=_LATENT,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=TEXT_DIM,
    )
    text = T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_DIM,
        d_kv=8,
        d_ff=37,
        num_layers=1,
        num_heads=4,
        is_encoder_decoder=False,
    )
    LTXConditionPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(),
        text_encoder=T5EncoderModel(text).eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    ).save_pretrained(folder)
    return folder


def tiny_ltx_upsampler(folder: Path, seed: int = 1) -> Path:
    """What doubles the sides of the latents of `tiny_ltx`, as published beside LTX-Video 0.9.7."""
    import torch
    from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

    torch.manual_seed(seed)
    model = LTXLatentUpsamplerModel(in_channels=_LATENT, mid_channels=32, num_blocks_per_stage=1)
    model.eval().save_pretrained(folder / "latent_upsampler")
    return folder


def _vae() -> Any:
    """32 pixels a side and 8 frames a latent, decoded with the noise level as a condition."""
    import torch
    from diffusers import AutoencoderKLLTXVideo

    vae = AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=_LATENT,
        block_out_channels=(8, 8, 16, 16, 16),
        decoder_block_out_channels=(8, 16, 32),
        down_block_types=("LTXVideo095DownBlock3D",) * 4,
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, True),
        decoder_spatio_temporal_scaling=(True, True, True),
        decoder_inject_noise=(False, False, False, False),
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        upsample_residual=(True, True, True),
        upsample_factor=(2, 2, 2),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
        timestep_conditioning=True,
        patch_size=4,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    vae.latents_mean = torch.linspace(-0.2, 0.2, _LATENT)
    vae.latents_std = torch.linspace(0.7, 1.3, _LATENT)
    return vae.eval()
