"""Multiplier strings of LoRAs: which number holds at which step, and what is refused."""

from __future__ import annotations

import random

import pytest

from Wan2GP.engine.lora.multipliers import plan_multipliers, split_tokens, step_multipliers
from Wan2GP.errors import InvalidInput, WanError

SIX_STEPS = (1, 1, 2, 2, 3, 3)


def steps(token: str, phase_of_step=SIX_STEPS, phases: int = 3, switch: int = 1) -> tuple[float, ...]:
    return step_multipliers(token, phase_of_step, phases=phases, model_switch_phase=switch)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("1 0.5", ["1", "0.5"]),
        ("1;0\n0;1", ["1;0", "0;1"]),
        ("# first the preset\n1;0 0;1|\n  # then mine\n0.7", ["1;0", "0;1", "0.7"]),
        ("1;0|0;1", ["1;0", "0;1"]),
        ("|0.5", ["0.5"]),
    ],
)
def test_text_is_split_into_one_token_a_lora(text, tokens):
    assert split_tokens(text) == tokens


def test_two_bars_are_refused():
    with pytest.raises(InvalidInput, match=r"^loras_multipliers: has more than one '\|'"):
        split_tokens("1|1|1")


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("", (1, 1, 1, 1, 1, 1)),
        ("0.5", (0.5,) * 6),
        ("1.2;0.6;0.0", (1.2, 1.2, 0.6, 0.6, 0, 0)),
        ("1,0.8,0.4", (1, 1, 0.8, 0.8, 0.4, 0.4)),
        ("1,2,3,4", (1, 1, 2, 3, 3, 4)),
        ("1,0.5;0;2", (1, 0.5, 0, 0, 2, 2)),
        ("1,2,3,4,5,6,7,8,9;0;0", (1, 5, 0, 0, 0, 0)),
        ("-1.5e-1;+.5;3.", (-0.15, -0.15, 0.5, 0.5, 3, 3)),
    ],
)
def test_values_are_spread_over_phases_and_steps(token, expected):
    assert steps(token) == pytest.approx(expected)


def test_fewer_phases_repeat_the_last_or_the_first_when_the_model_switches_late():
    assert steps("1;0") == (1, 1, 0, 0, 0, 0)
    assert steps("1;0", switch=2) == (1, 1, 1, 1, 0, 0)


def test_phases_may_have_any_number_of_steps():
    assert steps("1,2;3", (1, 2, 2, 2), phases=2) == (1, 3, 3, 3)
    assert steps("1;2,3;4", (1, 1, 1), phases=3) == (1, 1, 1)
    assert steps("0;1", (2, 2), phases=2) == (1, 1)


def test_more_phases_than_the_run_has_are_refused():
    with pytest.raises(InvalidInput, match=r"'1;0;1' has 3 phases, the run has 2; .*guidance_phases"):
        steps("1;0;1", (1, 2), phases=2)


@pytest.mark.parametrize(
    "token", ["x", "1;", ";1", "1,,2", "nan", "inf", "1e999", "10.01", "-11", "1_0", "0x1", "٣", ","]
)
def test_what_is_no_sensible_number_names_the_lora_and_the_token(token):
    with pytest.raises(InvalidInput, match=r"^loras_multipliers: LoRA 2 \(b\.safetensors\): ") as caught:
        plan_multipliers(["a.safetensors", "b.safetensors"], f"1 {token}", SIX_STEPS, 3, 1)
    assert repr(token) in str(caught.value) and caught.value.field == "loras_multipliers"


def test_values_per_guidance_branch_are_refused_by_name():
    with pytest.raises(InvalidInput, match="per guidance branch"):
        steps("1:0.5")


def test_a_lora_without_a_token_is_at_one_and_text_without_loras_has_no_effect():
    assert plan_multipliers(["a", "b"], "0.5", (1, 1), 1) == [(0.5, 0.5), (1, 1)]
    assert plan_multipliers([], "1 2", (1, 1), 1) == []


def test_more_tokens_than_loras_are_refused():
    with pytest.raises(InvalidInput, match=r"has 3 multipliers for 2 LoRA\(s\); '0\.3' belongs to none"):
        plan_multipliers(["a", "b"], "1 2 0.3", (1,), 1)


def test_any_text_gives_numbers_or_a_typed_error():
    """3,000 random texts; counts that both outcomes are met."""
    chance = random.Random(5)
    pieces = [
        "1",
        "0",
        ".5",
        "-2",
        "1e1",
        "99",
        "nan",
        "x",
        ";",
        ";",
        ",",
        ",",
        " ",
        " ",
        "\n",
        "#",
        "|",
        ":",
        "é",
        "\t",
    ]
    fine = refused = 0
    for _ in range(3000):
        text = "".join(chance.choices(pieces, k=chance.randint(0, 12)))
        phases, total = chance.randint(1, 3), chance.randint(1, 12)
        phase_of_step = sorted(chance.choices(range(1, phases + 1), k=total))
        names = ["lora"] * chance.randint(0, 4)
        try:
            plan = plan_multipliers(names, text, phase_of_step, phases, chance.randint(1, 2))
        except WanError:
            refused += 1
        else:
            fine += 1
            assert len(plan) == len(names) and all(len(schedule) == total for schedule in plan)
            assert all(abs(value) <= 10 for schedule in plan for value in schedule)
    assert fine > 300 and refused > 300
