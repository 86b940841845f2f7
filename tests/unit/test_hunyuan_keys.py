"""The names and shapes of HunyuanVideo in its authors' layout, against diffusers' own conversion at full size."""

from __future__ import annotations

import torch
from accelerate import init_empty_weights
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.loaders.single_file_utils import convert_hunyuan_video_transformer_to_diffusers
from hunyuan_files import in_the_authors_layout

from Wan2GP.weights.configs import config_for
from Wan2GP.weights.hunyuan_keys import in_diffusers_layout, is_original
from Wan2GP.weights.reader import Stored


def published() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights of the published config, without their memory, in diffusers' layout and in the authors'."""
    config = {name: value for name, value in config_for("hunyuan").items() if name != "_class_name"}
    with init_empty_weights():
        ours = HunyuanVideoTransformer3DModel.from_config(config).state_dict()
    return ours, in_the_authors_layout(ours)


def test_the_names_and_shapes_are_those_of_diffusers_own_conversion():
    ours, original = published()
    assert is_original(original) and not is_original(ours)
    stored = {name: Stored(tuple(value.shape), value.dtype, value.clone) for name, value in original.items()}
    found = {name: each.shape for name, each in in_diffusers_layout(stored).items()}
    assert found == {name: tuple(value.shape) for name, value in ours.items()}
    converted = convert_hunyuan_video_transformer_to_diffusers(dict(original))
    assert found == {name: tuple(value.shape) for name, value in converted.items()}
