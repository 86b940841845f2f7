"""What Stable Video Infinity needs of a model: LoRAs and settings, for the architectures that they were made for."""

from __future__ import annotations

import pytest

from headless.options import GenerationOptions
from source.errors import Unsupported
from source.planning.svi import RECIPES, Strengths, check_phases, with_recipe

WAN_2_2 = "i2v_2_2"


def multipliers(options: GenerationOptions) -> list[str]:
    return (options.loras_multipliers or "").split()


def test_the_recipe_adds_four_loras_and_its_settings() -> None:
    options = with_recipe(GenerationOptions(guidance_scale=5.0), WAN_2_2, Strengths())
    assert multipliers(options) == ["1;0", "0;1", "1.2;0", "0;1"]
    assert [("high" in each, "low" in each) for each in options.activated_loras or ()] == [
        (True, False),
        (False, True),
    ] * 2
    assert (options.guidance_phases, options.num_inference_steps, options.guidance_scale) == (2, 6, 1.0)
    assert (options.switch_threshold, options.model_switch_phase, options.sample_solver) == (883, 1, "euler")


@pytest.mark.parametrize(
    ("strengths", "expected"),
    [
        (Strengths(all=0.5), ["0.5;0", "0;0.5", "0.6;0", "0;0.5"]),
        (Strengths(high=2), ["2;0", "0;1", "2.4;0", "0;1"]),
        (Strengths(all=0.5, low=1), ["0.5;0", "0;1", "0.6;0", "0;1"]),
        (Strengths(all=0.5, high=0), ["0;0", "0;0.5", "0;0", "0;0.5"]),
    ],
)
def test_strengths_scale_the_loras_of_each_expert(strengths: Strengths, expected: list[str]) -> None:
    assert multipliers(with_recipe(GenerationOptions(), WAN_2_2, strengths)) == expected


def test_a_lora_that_is_there_already_stays_as_it_is() -> None:
    """The same file under another folder is the same LoRA; where it is given, its multiplier holds."""
    name = RECIPES[WAN_2_2].loras[1][0].rpartition("/")[2]
    given = GenerationOptions(activated_loras=[f"mine/{name}", "other.safetensors"], loras_multipliers="0;0.3 0.7")
    options = with_recipe(given, WAN_2_2, Strengths())
    assert (options.activated_loras or [])[:2] == [f"mine/{name}", "other.safetensors"]
    assert multipliers(options) == ["0;0.3", "0.7", "1;0", "1.2;0", "0;1"]


def test_a_model_that_has_the_svi_loras_gets_the_fast_ones_alone() -> None:
    assert multipliers(with_recipe(GenerationOptions(), "i2v_2_2_svi2pro", Strengths())) == ["1.2;0", "0;1"]


def test_where_a_models_own_loras_are_left_out_those_of_svi_come_back() -> None:
    """A phase_config leaves them out, so that none is applied twice."""
    options = with_recipe(GenerationOptions(skip_model_loras=1), "i2v_2_2_svi2pro", Strengths(high=0.5))
    assert multipliers(options) == ["0.5;0", "0;1", "0.6;0", "0;1"]


def test_loras_of_more_phases_than_the_recipe_runs_are_refused() -> None:
    three = GenerationOptions(activated_loras=["a.safetensors"], loras_multipliers="1;0.5;0")
    with pytest.raises(Unsupported, match="2 phases"):
        check_phases(three, WAN_2_2)
    check_phases(three, "fun_inp_1.3B")
    check_phases(three.replace(loras_multipliers="1;0"), WAN_2_2)


@pytest.mark.parametrize("architecture", ["draft", "fun_inp_1.3B", "i2v", "svi"])
def test_other_models_are_used_as_they_are(architecture: str) -> None:
    options = GenerationOptions(num_inference_steps=9)
    assert with_recipe(options, architecture, Strengths(all=0.5)) is options
