"""A tiny SAM 2 of random weights: the whole network of the library, for pictures of 64 pixels a side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: pixels a side of what the network sees
SIDE = 64
#: channels; the library's code takes memories of 64 channels alone, and features of a multiple of that, from two on
_WIDTH = 128


def tiny_sam2(folder: Path, seed: int = 0) -> Path:
    """A whole Sam2VideoModel of about 2 MB, weights random but the same for the same seed."""
    import torch
    from transformers import Sam2VideoModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    model = Sam2VideoModel(_config()).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1:
                # Initial weights are too small for masks that differ.
                weights.mul_(4)
            elif "memory" in name or "pointer" in name:
                weights.normal_(0, 0.1)
        for name in ("memory_temporal_positional_encoding", "no_memory_embedding", "no_object_pointer"):
            getattr(model, name).normal_(0, 0.3)
        # What is there in every frame: of an object that is gone the network says nothing but so.
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(20.0)
    model.save_pretrained(folder)
    return folder


def _config() -> Any:
    from transformers import Sam2VideoConfig

    cells = SIDE // 16
    return Sam2VideoConfig(
        image_size=SIDE,
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 2, 4, 8],
                "window_size_per_stage": [4, 4, 4, 4],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [cells] * 2],
            "fpn_hidden_size": _WIDTH,
        },
        prompt_encoder_config={"hidden_size": _WIDTH, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": _WIDTH,
            "mlp_dim": 32,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 16,
        },
        memory_attention_hidden_size=_WIDTH,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[cells, cells],
        memory_encoder_hidden_size=_WIDTH,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=_WIDTH,
        memory_fuser_embed_dim=_WIDTH,
        memory_fuser_intermediate_dim=32,
    )
