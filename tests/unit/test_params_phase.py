"""phase_config becomes ordinary knobs; who wins is decided by level."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from source.errors import InvalidInput, Unsupported
from source.params.base import parse_params
from source.params.phase import PhaseConfig
from source.params.travel import SegmentParams, TravelParams
from source.planning.travel import plan_travel
from source.store.types import Status, Task
from source.task_registry import registry
from source.tasks.generate import GenerateParams


def phases(*scales: float, **changes: Any) -> dict[str, Any]:
    return {"phases": [{"guidance_scale": scale} for scale in scales or (3.0, 1.0, 1.0)]} | changes


@pytest.mark.parametrize(
    ("solver", "shift", "steps", "first", "second"),
    [
        ("euler", 5, [2, 2, 2], 917.5, 663.2),
        ("euler", 5, [3, 3], 826.1, None),
        ("euler", 5, [2, 2, 5], 954.9, 863.3),
        ("euler", 3, [2, 2, 2], 870.8, 548.5),
        ("unipc", 5, [2, 2, 2], 935.4, 774.3),
        ("", 5, [2, 2, 2], 935.4, 774.3),
        ("unipc", 5, [3, 3], 871.4, None),
        ("dpm++", 5, [2, 2, 2], 935.3, 773.8),
        ("dpm++_sde", 5, [2, 2, 2], 935.3, 773.8),
        ("heun", 5, [2, 2, 2], 700.3, 300.7),
        ("lcm", 5, [2, 2, 2], 935.3, 773.8),
        ("causvid", 5, [2, 2, 2], 898.0, 679.5),
        ("euler", 5, [4, 2, 0], 663.2, None),
    ],
)
def test_thresholds_lie_between_the_phases(
    solver: str, shift: float, steps: list[int], first: float, second: float | None
) -> None:
    values = phases(*[1.0] * len(steps), sample_solver=solver, flow_shift=shift, steps_per_phase=steps)
    knobs = PhaseConfig.parse(values | {"num_phases": len(steps)}).knobs()
    assert knobs["switch_threshold"] == pytest.approx(first, abs=0.05)
    assert knobs["switch_threshold2"] == (pytest.approx(second, abs=0.05) if second else None)
    assert (knobs["guidance_phases"], knobs["num_inference_steps"]) == (len(steps), sum(steps))


@pytest.mark.parametrize(
    ("count", "steps", "scales", "effective", "used"),
    [
        (None, [2, 2, 2], 3, 3, (2, 2, 2)),
        (3, [3, 3], 2, 2, (3, 3)),
        (2, [2, 2, 2], 3, 3, (2, 2, 2)),
        (3, [2, 2, 2], 2, 2, (2, 4)),
        (2, [2, 2], 3, 3, (2, 2, 0)),
        (2, None, 2, 2, (2, 4)),
    ],
)
def test_the_lists_decide_how_many_phases_there_are(
    count: int | None, steps: list[int] | None, scales: int, effective: int, used: tuple[int, ...]
) -> None:
    config = PhaseConfig.parse(phases(*[1.0] * scales, num_phases=count, steps_per_phase=steps))
    assert (config.guidance_phases, config.steps) == (effective, used)


def test_scales_have_defaults_and_phases_their_numbers() -> None:
    config = PhaseConfig.parse({"phases": [{"phase": 2, "guidance_scale": 1.5}, {"phase": 1}, {"phase": 3}]})
    knobs = config.knobs()
    assert [knobs[f"guidance{number}_scale"] for number in ("", 2, 3)] == [3.0, 1.5, 1.0]


def test_loras_have_one_multiplier_a_phase() -> None:
    high, low = "https://example.com/high.safetensors", "https://example.com/low.safetensors"
    config = PhaseConfig.parse({
        "steps_per_phase": [2, 3],
        "phases": [
            {"loras": [{"url": high, "multiplier": "1.0,0.5"}, {"url": "", "multiplier": 1}]},
            {"loras": [{"url": low, "multiplier": 1.2}, {"url": f"{high}?v=2", "multiplier": 0.3}]},
        ],
    })  # fmt: skip
    assert [(entry.reference, entry.multiplier) for entry in config.lora.entries] == [
        (high, "1.0,0.5;0.3"), (low, "0;1.2"),
    ]  # fmt: skip
    assert config.lora.get_pending_downloads() == {high: "1.0,0.5;0.3", low: "0;1.2"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (phases(1.0), "phase_config.phases"),
        (phases(1.0, 1.0, 1.0, 1.0), "phase_config.phases"),
        ({}, "phase_config.phases"),
        (phases(steps_per_phase=[0, 0, 0]), "phase_config.steps_per_phase"),
        (phases(steps_per_phase=[150, 50, 1]), "phase_config.steps_per_phase"),
        (phases(steps_per_phase=[2, -1, 2]), "steps_per_phase"),
        (phases(flow_shift=0), "flow_shift"),
        (phases(flow_shift=float("nan")), "flow_shift"),
        (phases(model_switch_phase=3), "model_switch_phase"),
        (phases(99.0), "guidance_scale"),
        ({"phases": [{"phase": 1}, {"phase": 1}]}, "phase_config.phases"),
        ({"phases": [{"loras": [{"url": "a", "multiplier": "1,2,3"}]}, {}, {}]}, "phases.0.loras.0.multiplier"),
        ({"phases": [{"loras": [{"url": "a", "multiplier": "1;0"}]}, {}, {}]}, "phases.0.loras.0.multiplier"),
        ({"phases": [{}, {"loras": [{"url": "ftp://x/a"}]}, {}]}, "phases.1.loras.0.url"),
        (phases(svi2pro=True), "phase_config.svi2pro"),
        (phases(unheard_of=1), "phase_config.unheard_of"),
        ({"phases": [{"guidence_scale": 1}, {}, {}]}, "phases.0.guidence_scale"),
        ("fast", "phase_config"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: Any, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        parse_params(GenerateParams, {"prompt": "x", "phase_config": values}, strict=True)


def test_svi_in_a_phase_config_is_not_supported() -> None:
    with pytest.raises(Unsupported, match="SVI"):
        PhaseConfig.parse(phases(svi2pro=True))


def test_disagreement_and_causvid_only_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        PhaseConfig.parse(phases(sample_solver="causvid", num_phases=2))
    assert [record.message.split(" ")[0] for record in caplog.records] == ["phase_config.num_phases", "phase_config:"]


def options(**levels: Any) -> Any:
    return parse_params(SegmentParams, levels, strict=True).params.options


def test_it_beats_knobs_of_its_own_and_weaker_levels_and_is_beaten_by_stronger_ones() -> None:
    made = options(
        orchestrator_details={"guidance_scale": 9.0, "num_inference_steps": 30, "switch_threshold2": 5.0},
        phase_config=phases(4.0, 2.0, steps_per_phase=[3, 3]),
        guidance2_scale=9.0,
        individual_segment_params={"flow_shift": 8.0},
    )
    assert (made.guidance_scale, made.guidance2_scale, made.flow_shift) == (4.0, 2.0, 8.0)
    assert (made.num_inference_steps, made.guidance_phases, made.switch_threshold2) == (6, 2, None)
    assert (made.sample_solver, made.model_switch_phase, made.skip_model_loras) == ("euler", 2, 1)


def test_the_strongest_phase_config_replaces_the_others_whole() -> None:
    weak = {"phases": [{"loras": [{"url": "old"}]}, {}, {}]}
    strong = {"phases": [{"loras": [{"url": "new"}]}, {}], "steps_per_phase": [1, 3]}
    made = options(orchestrator_details={"phase_config": weak}, individual_segment_params={"phase_config": strong})
    assert (made.activated_loras, made.loras_multipliers, made.num_inference_steps) == (["new"], "1;0", 4)


@pytest.mark.parametrize("level", ["individual_segment_params", None])
def test_steps_that_contradict_it_are_refused(level: str | None) -> None:
    raw = {"num_inference_steps": 30}
    with pytest.raises(InvalidInput, match=r"phase_config\.steps_per_phase.*num_inference_steps is 30") as caught:
        options(phase_config=phases(), **({level: raw} if level else raw))
    assert caught.value.field == "phase_config.steps_per_phase"
    assert options(phase_config=phases(), num_inference_steps=6).num_inference_steps == 6


def test_its_loras_join_the_others_and_the_models_own_multipliers_go() -> None:
    made = options(
        activated_loras=["a", "b"], loras_multipliers="1 1|0.5 0.6", additional_loras={"c": 0.7},
        phase_config={"phases": [{"loras": [{"url": "b", "multiplier": 0.9}]}, {}, {}]},
    )  # fmt: skip
    assert (made.activated_loras, made.loras_multipliers) == (["a", "b", "c"], "0.5 0.9;0;0 0.7")


ROW = {
    "run_id": "run", "model_name": "draft", "segment_frames_expanded": [33, 33], "frame_overlap_expanded": [8],
    "input_image_paths_resolved": ["a.png", "b.png", "c.png"], "parsed_resolution_wh": "384x256",
}  # fmt: skip


def children(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters of a travel's segments, as the orchestrator writes them."""
    row = Task(
        id="5f0c7a52-3a42-4a5e-9d0a-0d5f7f7b6a11", task_type="travel_orchestrator", params=raw,
        status=Status.IN_PROGRESS, created_at="2026-01-01T00:00:00.000Z",
    )  # fmt: skip
    params = parse_params(TravelParams, raw, strict=True).params
    return [dict(child.params) for child in plan_travel(params, row, min_frames=5, step=4).children[:2]]


TRAVEL = {
    "full_orchestrator_payload": {"activated_loras": ["x"], "loras_multipliers": "0.3", "guidance_scale": 7.0},
    "orchestrator_details": ROW | {
        "additional_loras": {"https://example.com/a.safetensors": 0.8},
        "phase_config": {"steps_per_phase": [2, 2], "phases": [{"loras": [{"url": "p"}]}, {}]},
    },
    "lora_names": ["y"], "guidance2_scale": 2.5,
}  # fmt: skip


def test_loras_and_phases_of_a_travel_reach_every_segment() -> None:
    for child in children(TRAVEL):
        made = registry().get("travel_segment").parse(child, strict=True).params.options
        assert made.activated_loras == ["y", "https://example.com/a.safetensors", "p"]
        assert made.loras_multipliers == "1 0.8 1;0"
        assert (made.num_inference_steps, made.guidance_phases, made.skip_model_loras) == (4, 2, 1)
        assert (made.guidance_scale, made.guidance2_scale) == (3.0, 2.5)


def test_a_segment_of_its_own_replaces_the_travels_loras_and_phases() -> None:
    own = {
        "additional_loras": {"mine": 0.1},
        "phase_config": {
            "steps_per_phase": [1, 1, 1],
            "phases": [{"guidance_scale": 5}, {}, {"loras": [{"url": "q"}]}],
        },
    }
    row = children(TRAVEL)[1] | {"individual_segment_params": own}
    made = registry().get("individual_travel_segment").parse(row, strict=True).params.options
    assert (made.activated_loras, made.loras_multipliers) == (["y", "mine", "q"], "1 0.1 0;0;1")
    assert (made.num_inference_steps, made.guidance_phases, made.guidance_scale) == (3, 3, 5.0)
    assert made.guidance2_scale == 1.0
    assert made.switch_threshold2 is not None


@pytest.mark.parametrize("seed", [0, -1])
@pytest.mark.parametrize("name", ["seed", "seed_to_use"])
def test_a_segments_own_seed_counts_also_when_it_is_0_or_minus_1(name: str, seed: int) -> None:
    row = children({"orchestrator_details": ROW | {"seed_base": 5}})[1] | {"individual_segment_params": {name: seed}}
    assert parse_params(SegmentParams, row).params.options.seed == seed
