"""Tiny random-weight HunyuanVideo models, built on the spot and saved as diffusers folders. For every test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CORPUS, IMAGE_DIM, TEXT_DIM

#: width of the pooled text embedding
_POOLED = 16
_LATENT = 4
#: an image is this many tokens for the text encoder: what the published prompt template is made for
_IMAGE_SIDE_TOKENS = 24
_IMAGE_PATCH = 2

_SPECIAL = (
    "<pad>",
    "<unk>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<image>",
)


def tiny_hunyuan(folder: Path, seed: int = 0) -> Path:
    """A whole HunyuanVideo text-to-video pipeline of about 1 MB, weights the same for the same seed."""
    from diffusers import HunyuanVideoPipeline

    parts = _parts(seed)
    HunyuanVideoPipeline(
        text_encoder=_llama(len(parts["tokenizer"])), transformer=_transformer(guidance_embeds=True), **parts
    ).save_pretrained(folder)
    return folder


def tiny_hunyuan_i2v(folder: Path, seed: int = 0, concatenated: bool = False) -> Path:
    """Image to video: the first latent frame is the image's, as published last; or, `concatenated`, the image's latents
    are further channels (the 33-channel model, which knows no distilled guidance)."""
    if concatenated:
        return _llava_pipeline(folder, seed, in_channels=2 * _LATENT + 1, image_condition_type="latent_concat")
    return _llava_pipeline(folder, seed, guidance_embeds=True, image_condition_type="token_replace")


def tiny_hunyuan_custom(folder: Path, seed: int = 0) -> Path:
    """HunyuanCustom: the plain transformer without distilled guidance, and the parts of the image-to-video model."""
    return _llava_pipeline(folder, seed)


def _llava_pipeline(folder: Path, seed: int, **transformer: Any) -> Path:
    from diffusers import HunyuanVideoImageToVideoPipeline
    from transformers import CLIPImageProcessor

    parts = _parts(seed)
    side = _IMAGE_SIDE_TOKENS * _IMAGE_PATCH
    HunyuanVideoImageToVideoPipeline(
        text_encoder=_llava(parts["tokenizer"]),
        transformer=_transformer(**transformer),
        image_processor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        **parts,
    ).save_pretrained(folder)
    return folder


# ---- parts


def _parts(seed: int) -> dict[str, Any]:
    import torch
    from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=_LATENT,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=True,
    )
    return {
        "tokenizer": _chat_tokenizer(),
        "vae": vae.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        **_clip(),
    }


def _transformer(**changes: Any) -> Any:
    from diffusers import HunyuanVideoTransformer3DModel

    config = {
        "in_channels": _LATENT,
        "out_channels": _LATENT,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "patch_size": 2,
        "patch_size_t": 1,
        "guidance_embeds": False,
        "text_embed_dim": TEXT_DIM,
        "pooled_projection_dim": _POOLED,
        "rope_axes_dim": (4, 4, 4),
    }
    return HunyuanVideoTransformer3DModel(**config | changes).eval()


def _llama_config(vocabulary: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_DIM,
        intermediate_size=37,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=5,
    )


def _llama(vocabulary: int) -> Any:
    from transformers import LlamaModel

    return LlamaModel(_llama_config(vocabulary)).eval()


def _llava(tokenizer: Any) -> Any:
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=IMAGE_DIM,
        intermediate_size=37,
        projection_dim=IMAGE_DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=_IMAGE_SIDE_TOKENS * _IMAGE_PATCH,
        patch_size=_IMAGE_PATCH,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=_llama_config(len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
        image_seq_length=_IMAGE_SIDE_TOKENS**2,
        vision_feature_layer=-2,
    )
    config.pad_token_id = 0
    return LlavaForConditionalGeneration(config).eval()


def _clip() -> dict[str, Any]:
    """What makes the pooled embedding of the prompt."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])
    tokenizer.model_max_length = 77
    config = CLIPTextConfig(
        vocab_size=len(pieces),
        hidden_size=_POOLED,
        intermediate_size=37,
        projection_dim=_POOLED,
        num_hidden_layers=1,
        num_attention_heads=4,
        bos_token_id=len(pieces) - 2,
        eos_token_id=len(pieces) - 1,
    )
    return {"tokenizer_2": tokenizer, "text_encoder_2": CLIPTextModel(config).eval()}


def _chat_tokenizer() -> Any:
    """Whole words, and the marks of a chat that the published prompt templates are written with."""
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video, pipeline_hunyuan_video_image2video
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    templates = [
        module.DEFAULT_PROMPT_TEMPLATE["template"]
        for module in (pipeline_hunyuan_video, pipeline_hunyuan_video_image2video)
    ]
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|\n|\w+|[^\w\s]| +"), "isolated")
    tokenizer.train_from_iterator(
        [*CORPUS, *templates], trainers.WordLevelTrainer(special_tokens=list(_SPECIAL), show_progress=False)
    )
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        additional_special_tokens=["<|start_header_id|>", "<|end_header_id|>", "<image>"],
        model_max_length=2048,
    )
