"""The shipped configs make transformers whose names and shapes are those of the published checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest
import transformers
from accelerate import init_empty_weights

from Wan2GP.definitions import ARCHITECTURES, load_definitions
from Wan2GP.errors import InvalidInput
from Wan2GP.wan_keys import diffusers_name, original_name
from Wan2GP.weights.configs import config_for, transformer_config
from Wan2GP.weights.published import DIGESTS, digest

WAN = sorted(name for name, architecture in ARCHITECTURES.items() if architecture.engine == "wan")


def shapes(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    cls = getattr(diffusers, str(config["_class_name"]))
    with init_empty_weights():
        model = cls.from_config({name: value for name, value in config.items() if name != "_class_name"})
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("model", sorted(DIGESTS))
def test_names_and_shapes_equal_the_published_ones(model):
    expected = shapes(config_for(load_definitions()[model].architecture_name))
    assert digest({original_name(name): shape for name, shape in expected.items()}) == DIGESTS[model]


def test_the_diffusers_layout_is_the_published_one_too():
    assert digest(shapes(config_for("t2v"))) == "cb104773c6c2cb6df4f9529ad5c60d0b"
    assert digest(shapes(config_for("i2v_2_2"))) == "8b85650bb749144f6b934ba7d76a8a0c"


def test_exactly_the_checked_rows_are_marked_as_verified():
    known = load_definitions()
    assert {name for name in known if known[name].verified} == set(DIGESTS)


@pytest.mark.parametrize("architecture", WAN)
def test_every_architecture_has_every_config_and_its_names_convert_both_ways(architecture):
    expected = shapes(config_for(architecture))
    assert {diffusers_name(original_name(name)) for name in expected} == set(expected)
    vae = config_for(architecture, "vae")
    channels = config_for(architecture)["out_channels"]
    assert vae["z_dim"] == channels == len(vae["latents_mean"]) == len(vae["latents_std"])
    assert config_for(architecture, "scheduler")["prediction_type"] == "flow_prediction"
    text = transformers.UMT5Config(**config_for(architecture, "text_encoder"))
    assert text.d_model == config_for(architecture)["text_dim"]


def test_parts_that_a_model_does_not_have_are_refused_by_name():
    assert config_for("i2v", "image_encoder")["hidden_size"] == config_for("i2v")["image_dim"] == 1280
    with pytest.raises(InvalidInput, match="t2v have no image_encoder"):
        config_for("t2v", "image_encoder")
    with pytest.raises(InvalidInput, match="'flux'"):
        config_for("flux")


def test_the_config_beside_weights_counts_only_when_it_is_of_the_architectures_class(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel", "num_layers": 2}))
    files = [tmp_path, tmp_path / "module.safetensors"]
    assert transformer_config("t2v", files)["num_layers"] == 2
    assert transformer_config("vace_14B_2_2", files) == config_for("vace_14B")
