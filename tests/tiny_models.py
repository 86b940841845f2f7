"""Tiny random-weight models, built on the spot and saved as diffusers folders. Importable by every test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CORPUS = (
    "a red circle moving right on a dark ground",
    "a blue square moving left on a dark ground",
    "a green triangle moving up, a yellow ring moving down",
)

#: width of a text embedding, of an image embedding, and tokens of one image
TEXT_DIM, IMAGE_DIM, IMAGE_TOKENS = 32, 20, 5

_TRANSFORMER: Mapping[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": TEXT_DIM,
    "freq_dim": 256,
    "ffn_dim": 32,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}
_SEES_IMAGES = {"in_channels": 36, "image_dim": IMAGE_DIM, "added_kv_proj_dim": 24}
_TWO_EXPERTS = {"boundary_ratio": 0.9}


def tiny_wan_t2v(folder: Path, seed: int = 0) -> Path:
    """A whole Wan text-to-video pipeline of about 0.4 MB, weights random but the same for the same seed."""
    return _text_pipeline(folder, seed)


def tiny_wan_t2v_2_2(folder: Path, seed: int = 0) -> Path:
    """The same with two experts."""
    return _text_pipeline(folder, seed, **_TWO_EXPERTS)


def tiny_wan_ti2v(folder: Path, seed: int = 0) -> Path:
    """Wan 2.2 5B: one timestep a token, and its own VAE (48 channels, 16 pixels a side)."""
    return _text_pipeline(folder, seed, in_channels=48, out_channels=48, expand_timesteps=True)


def tiny_wan_i2v(folder: Path, seed: int = 0, **transformer: Any) -> Path:
    """Image-to-video with an image encoder; Fun InP is the same."""
    return _image_pipeline(folder, seed, **_SEES_IMAGES, **transformer)


def tiny_wan_flf2v(folder: Path, seed: int = 0) -> Path:
    """First and last frame: the transformer was made for the embeddings of two images."""
    return tiny_wan_i2v(folder, seed, pos_embed_seq_len=2 * IMAGE_TOKENS)


def tiny_wan_i2v_2_2(folder: Path, seed: int = 0) -> Path:
    """Image-to-video with two experts and no image encoder."""
    return _image_pipeline(folder, seed, in_channels=36, **_TWO_EXPERTS)


def tiny_wan_vace(folder: Path, seed: int = 0) -> Path:
    """VACE on one transformer."""
    return _vace_pipeline(folder, seed)


def tiny_wan_vace_2_2(folder: Path, seed: int = 0) -> Path:
    """VACE on two experts."""
    return _vace_pipeline(folder, seed, **_TWO_EXPERTS)


def tiny_wan_recam(folder: Path, seed: int = 0) -> Path:
    """ReCamMaster: a text-to-video model with two linear layers more in each block."""
    from safetensors.torch import load_file, save_file
    from torch import eye, randn

    file = next(tiny_wan_t2v(folder, seed).glob("transformer/*.safetensors"))
    weights, width = load_file(file), _TRANSFORMER["num_attention_heads"] * _TRANSFORMER["attention_head_dim"]
    for block in range(_TRANSFORMER["num_layers"]):
        weights |= {
            f"blocks.{block}.cam_encoder.weight": randn(width, 12) * 0.5,
            f"blocks.{block}.cam_encoder.bias": randn(width) * 0.1,
            f"blocks.{block}.projector.weight": eye(width) + randn(width, width) * 0.1,
            f"blocks.{block}.projector.bias": randn(width) * 0.1,
        }
    save_file(weights, file)
    return folder


def tiny_wan_fantasy(folder: Path, seed: int = 0) -> Path:
    """Fantasy Speaking: an image-to-video model; beside its parts `fantasy.safetensors`, the module laid over it, and
    `wav2vec2-base-960h`, what makes sound into states."""
    from safetensors.torch import save_file
    from torch import ones, randn, zeros
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    tiny_wan_i2v(folder, seed)
    width, states, tokens = _TRANSFORMER["num_attention_heads"] * _TRANSFORMER["attention_head_dim"], 16, 12
    weights = {
        "proj_model.proj.weight": randn(tokens, states),
        "proj_model.norm.weight": ones(tokens),
        "proj_model.norm.bias": zeros(tokens),
    }
    for block in range(_TRANSFORMER["num_layers"]):
        weights |= {f"blocks.{block}.cross_attn.{kind}_proj.weight": randn(width, tokens) for kind in "kv"}
    save_file(weights, folder / "fantasy.safetensors")
    config = Wav2Vec2Config(
        hidden_size=states,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(folder / "wav2vec2-base-960h")
    return folder


def tiny_sky_df(folder: Path, seed: int = 0) -> Path:
    """SkyReels V2 diffusion forcing: a noise level for each latent frame."""
    from diffusers import SkyReelsV2DiffusionForcingPipeline

    parts = _parts(seed)
    transformers = _transformers("SkyReelsV2Transformer3DModel", None, inject_sample_info=True)
    SkyReelsV2DiffusionForcingPipeline(**parts, **transformers).save_pretrained(folder)
    return folder


#: architecture -> what builds its tiny model
TINY_WAN: Mapping[str, Callable[[Path], Path]] = {
    "t2v": tiny_wan_t2v,
    "t2v_1.3B": tiny_wan_t2v,
    "t2v_2_2": tiny_wan_t2v_2_2,
    "i2v": tiny_wan_i2v,
    "i2v_2_2": tiny_wan_i2v_2_2,
    "i2v_2_2_svi2pro": tiny_wan_i2v_2_2,
    "flf2v_720p": tiny_wan_flf2v,
    "fun_inp": tiny_wan_i2v,
    "fun_inp_1.3B": tiny_wan_i2v,
    "ti2v_2_2": tiny_wan_ti2v,
    "vace_1.3B": tiny_wan_vace,
    "vace_14B": tiny_wan_vace,
    "vace_14B_2_2": tiny_wan_vace_2_2,
    "phantom_1.3B": tiny_wan_t2v,
    "phantom_14B": tiny_wan_t2v,
    "recam_1.3B": tiny_wan_recam,
    "fantasy": tiny_wan_fantasy,
    "sky_df_1.3B": tiny_sky_df,
    "sky_df_14B": tiny_sky_df,
}


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


# ---- pipelines


def _text_pipeline(
    folder: Path,
    seed: int,
    boundary_ratio: float | None = None,
    expand_timesteps: bool = False,
    **transformer: Any,
) -> Path:
    from diffusers import WanPipeline

    parts = _parts(seed, wide_vae=expand_timesteps)
    transformers = _transformers("WanTransformer3DModel", boundary_ratio, **transformer)
    options = {"boundary_ratio": boundary_ratio, "expand_timesteps": expand_timesteps}
    WanPipeline(**parts, **transformers, **options).save_pretrained(folder)
    return folder


def _image_pipeline(folder: Path, seed: int, boundary_ratio: float | None = None, **transformer: Any) -> Path:
    from diffusers import WanImageToVideoPipeline

    parts = _parts(seed)
    if "image_dim" in transformer:
        parts |= _image_encoder()
    transformers = _transformers("WanTransformer3DModel", boundary_ratio, **transformer)
    WanImageToVideoPipeline(**parts, **transformers, boundary_ratio=boundary_ratio).save_pretrained(folder)
    return folder


def _vace_pipeline(folder: Path, seed: int, boundary_ratio: float | None = None) -> Path:
    from diffusers import WanVACEPipeline

    parts = _parts(seed)
    vace = {"vace_layers": [0, 1], "vace_in_channels": 96}
    transformers = _transformers("WanVACETransformer3DModel", boundary_ratio, **vace)
    WanVACEPipeline(**parts, **transformers, boundary_ratio=boundary_ratio).save_pretrained(folder)
    return folder


# ---- parts


def _parts(seed: int, wide_vae: bool = False) -> dict[str, Any]:
    """What every pipeline has. Seeds torch: what is built next is the same for the same seed."""
    import torch
    from diffusers import UniPCMultistepScheduler
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    tokenizer = tiny_t5_tokenizer()
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": _text_encoder(len(tokenizer)),
        "vae": _wide_vae() if wide_vae else _vae(),
        "scheduler": scheduler,
    }


def _transformers(name: str, boundary_ratio: float | None, **changes: Any) -> dict[str, Any]:
    import diffusers
    import torch

    cls = getattr(diffusers, name)
    both = ("transformer", "transformer_2") if boundary_ratio is not None else ("transformer",)
    made = {which: cls(**_TRANSFORMER | changes).eval() for which in both}
    for transformer in made.values():
        embedder = transformer.condition_embedder.image_embedder
        if embedder is not None and embedder.pos_embed is not None:
            torch.nn.init.normal_(embedder.pos_embed)
    return made


def _text_encoder(vocabulary: int) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(vocab_size=vocabulary, d_model=TEXT_DIM, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
    return UMT5EncoderModel(config).eval()


def _vae() -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )


def _wide_vae() -> Any:
    """The VAE of Wan 2.2 5B: residual, 2 x 2 pixels a patch, 48 channels, 16 pixels a side in a latent pixel."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=48,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=16,
        latents_mean=[0.01 * channel for channel in range(48)],
        latents_std=[0.5 + 0.01 * channel for channel in range(48)],
    )


def _image_encoder() -> dict[str, Any]:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=IMAGE_DIM,
        projection_dim=IMAGE_DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        intermediate_size=37,
        patch_size=16,
    )
    size = {"shortest_edge": 32}
    processor = CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32})
    return {"image_encoder": CLIPVisionModel(config).eval(), "image_processor": processor}
