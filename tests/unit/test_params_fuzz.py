"""Any JSON at all either parses or is refused by a typed error that names a parameter."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headless.options import GenerationOptions
from source.errors import InvalidInput
from source.params.base import BOOKKEEPING, CONTAINERS, UNSUPPORTED
from source.params.lora import LoRAConfig, checked_multiplier
from source.params.phase import PhaseConfig
from source.params.structure_guidance import LEGACY, StructureGuidanceConfig
from source.params.task import TaskConfig
from source.task_registry import registry

KINDS = {kind.name: kind for kind in registry()}
NAMES = sorted({name for kind in KINDS.values() for name in kind.schema()["properties"]} - CONTAINERS)
ODD_NAMES = ["", "nonsense", "prompt ", "__class__", "model_config", "options", "🦊", *UNSUPPORTED, *BOOKKEEPING]
PHASE_NAMES = [*PhaseConfig.model_fields, "nonsense"]
INNER_NAMES = ["url", "multiplier", "path", "scale", "phase", "guidance_scale", "loras", "videos", "x"]
TEXTS = [
    "", " ", "NaN", "nan", "Infinity", "-1", "1e999", "1;0", "1,0.5;0", "a b", "1|2|3", "|", ";", ",", "# a\n1",
    "832x480",
    "0x0", "٣x٣", "http://[::1", "https://h/%2F%2e%2e", "file:///x", "a/../b", "\x00", "\ud800", "🦊" * 50, "9" * 5000,
    "euler", "causvid", "vace", "i2v", "true", "none", "null", "x.safetensors", "https://h/a.safetensors?x=1",
]  # fmt: skip
NUMBERS = [0, 1, 2, 3, -1, 0.5, 1e308, -0.0, 1e-300, 2**31, 2**63, 2**64, 10**400, -(10**400),
           float("nan"), float("inf"), float("-inf"), True, False, None]  # fmt: skip

numbers = st.integers() | st.floats() | st.sampled_from(NUMBERS)
texts = st.text(max_size=20) | st.sampled_from(TEXTS)
names = st.sampled_from(NAMES + ODD_NAMES)
inner_names = st.sampled_from(PHASE_NAMES + INNER_NAMES) | st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(inner_names, inner, max_size=4),
    max_leaves=8,
)
levels = st.dictionaries(names, values, max_size=5)
rows = st.builds(
    lambda top, inner: top | inner,
    levels,
    st.dictionaries(st.sampled_from(sorted(CONTAINERS)), levels | values, max_size=2),
)

#: every word that a message may use for what is at fault
KNOWN_WORDS = {
    *NAMES,
    *CONTAINERS,
    *UNSUPPORTED,
    *PHASE_NAMES,
    *INNER_NAMES,
    *GenerationOptions.model_fields,
    "parameters",
}


def refused_by_name(read: Callable[[], Any]) -> bool:
    """Run it: True when it was refused, by a typed error that names a parameter."""
    try:
        read()
    except InvalidInput as error:
        assert error.field is not None or any(word in str(error) for word in KNOWN_WORDS), str(error)
        return True
    return False


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=rows, name=st.sampled_from(sorted(KINDS)), strict=st.booleans())
def test_any_row_of_any_type_parses_or_is_refused_by_name(raw: dict[str, Any], name: str, strict: bool) -> None:
    refused_by_name(partial(KINDS[name].parse, raw, strict=strict))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=st.dictionaries(st.sampled_from(PHASE_NAMES), values, max_size=6))
def test_any_phase_config_parses_or_is_refused_by_name(raw: dict[str, Any]) -> None:
    refused_by_name(lambda: PhaseConfig.from_params({"phase_config": raw}))


@settings(max_examples=100, deadline=None)
@given(listed=st.lists(texts, max_size=4), text=texts | st.text("0123456789.,;|# \n-+e", max_size=20))
def test_any_lora_text_is_read_the_same_way_twice_or_refused_by_name(listed: list[str], text: str) -> None:
    try:
        made = LoRAConfig.from_names(listed, text)
    except InvalidInput as error:
        assert error.field in ("activated_loras", "loras_multipliers")
        return
    if made.entries:
        assert LoRAConfig.from_options(made.to_options(GenerationOptions())) == made


@settings(max_examples=100, deadline=None)
@given(raw=st.dictionaries(st.sampled_from(["structure_guidance", *UNSUPPORTED, *LEGACY]), values, max_size=5))
def test_any_structure_guidance_parses_or_is_refused_by_name(raw: dict[str, Any]) -> None:
    refused_by_name(lambda: StructureGuidanceConfig.from_params(raw))


@pytest.mark.parametrize("depth", [65, 900, 20_000])
def test_json_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    with pytest.raises(InvalidInput, match=r"slg_layers.*deep"):
        KINDS["t2v"].parse({"prompt": "x", "slg_layers": value})


@pytest.mark.parametrize("number", [10**400, -(10**5000)], ids=["400 digits", "5000 digits"])
def test_numbers_of_too_many_digits_are_refused(number: int) -> None:
    with pytest.raises(InvalidInput, match=r"force_fps.*larger number"):
        KINDS["t2v"].parse({"orchestrator_details": {"prompt": "x", "force_fps": number}})


def _value(draw: random.Random, depth: int = 0) -> Any:
    choice = draw.random()
    if choice < 0.35 or depth > 3:
        return draw.choice(NUMBERS)
    if choice < 0.7:
        return draw.choice(TEXTS)
    if choice < 0.85:
        return [_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(PHASE_NAMES + INNER_NAMES): _value(draw, depth + 1) for _ in range(draw.randrange(4))}


def _row(draw: random.Random) -> dict[str, Any]:
    row = {"prompt": "x"} | {draw.choice(NAMES + ODD_NAMES): _value(draw) for _ in range(draw.randrange(4))}
    if draw.random() < 0.3:
        level = {draw.choice(NAMES): _value(draw) for _ in range(3)}
        row[draw.choice(sorted(CONTAINERS))] = level if draw.random() < 0.9 else _value(draw)
    return row


def _phase_config(draw: random.Random) -> dict[str, Any]:
    """Nearly right, so that the checks behind the types are reached."""
    url = draw.choice(TEXTS) if draw.random() < 0.2 else f"https://h/{draw.choice('abc')}.safetensors"
    lora = {"url": url, "multiplier": draw.choice([1, 0.5, 0.5, 2, "1,0.5", "1;0"])}
    config = {
        "num_phases": draw.choice([2, 3]),
        "steps_per_phase": [draw.randrange(5) for _ in range(draw.randrange(2, 4))],
        "sample_solver": draw.choice(["euler", "unipc", "dpm++", "lcm", "causvid", "", "other"]),
        "flow_shift": draw.uniform(0, 12),
        "phases": [{"guidance_scale": draw.uniform(0, 8), "loras": [lora]} for _ in range(draw.randrange(2, 4))],
    }
    if draw.random() < 0.3:
        config[draw.choice(PHASE_NAMES)] = _value(draw)
    return config


def _lora_text(draw: random.Random) -> str:
    """Nearly right or nonsense."""
    if draw.random() < 0.4:
        return "".join(draw.choice("0123456789..,,;;|  \n#-+e") for _ in range(draw.randrange(24)))
    tokens = ["".join(f"{draw.uniform(0, 2):.2f}{draw.choice(',; ')}" for _ in range(3)) + "1" for _ in range(2)]
    return draw.choice(" \n|,").join(tokens[: draw.randrange(1, 3)])


@pytest.mark.slow
def test_20000_random_rows_lora_texts_and_phase_configs_meet_typed_errors_only() -> None:
    """Seeded, so that a failure repeats; a minute on one core at most."""
    draw = random.Random(20)
    outcomes: Counter[tuple[int, bool]] = Counter()
    for number in range(20_000):
        kind = KINDS[draw.choice(sorted(KINDS))]
        row = _row(draw) if number % 3 == 0 or draw.random() < 0.3 else {"prompt": "x"}
        if number % 3 == 1:
            row["phase_config"] = _phase_config(draw)
        elif number % 3 == 2:
            row |= {"activated_loras": [draw.choice("abcdef") for _ in range(6)], "loras_multipliers": _lora_text(draw)}
        strict = draw.random() < 0.3
        outcomes[number % 3, refused_by_name(partial(kind.parse, row, strict=strict))] += 1
    assert len(outcomes) == 6
    assert min(outcomes.values()) > 500, outcomes


def _through_task_config(row: dict[str, Any], name: str) -> None:
    TaskConfig.from_params(row, task_type=name).to_wgp_format()


@pytest.mark.slow
def test_2000_random_rows_become_task_configs_or_are_refused_by_name() -> None:
    draw = random.Random(21)
    for _ in range(2000):
        row, name = _row(draw), draw.choice(sorted(KINDS))
        refused_by_name(partial(_through_task_config, row, name))


def test_a_multiplier_of_many_digits_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="too long"):
        checked_multiplier("9" * 1_000_000 + "x")
