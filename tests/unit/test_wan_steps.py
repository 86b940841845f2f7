"""Where the phases of a run begin, which guidance each has, and where one expert hands over to the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from Wan2GP.engine.sampling import Sampling
from Wan2GP.engine.wan.steps import plan_steps
from Wan2GP.errors import InvalidInput
from Wan2GP.schedules import SOLVERS, model_sigmas, switch_thresholds, wan_sigmas

BOTH = ("transformer", "transformer_2")
HIGH, LOW = BOTH
SCALES = {"guidance_scale": 3.0, "guidance2_scale": 2.0, "guidance3_scale": 1.0}


def sampling(solver: str = "euler", steps: int = 6, **values: Any) -> Sampling:
    return Sampling(**{"num_inference_steps": steps, "solver": solver, "flow_shift": 5.0} | SCALES | values)


def phased(solver: str, per_phase: tuple[int, ...], **values: Any) -> Sampling:
    """A run whose phases shall have so many steps, with the thresholds that say so."""
    levels = model_sigmas(solver, sum(per_phase), 5.0)
    names = ("switch_threshold", "switch_threshold2")
    thresholds = dict(zip(names, switch_thresholds(levels, per_phase), strict=False))
    return sampling(solver, sum(per_phase), guidance_phases=len(per_phase), **thresholds | values)


def phases(run: Sampling, **more: Any) -> list[int]:
    return [step.phase for step in plan_steps(run, ("transformer",), **more)[0]]


def experts(run: Sampling, boundary: float | None = None) -> list[str]:
    return [step.expert for step in plan_steps(run, BOTH, boundary)[0]]


SPLITS = [(6,), (1, 5), (2, 4), (3, 3), (5, 1), (2, 2, 2), (1, 2, 3), (4, 1, 1)]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("split", SPLITS)
def test_each_phase_begins_at_its_step(solver, split):
    expected = [phase for phase, count in enumerate(split, start=1) for _ in range(count)]
    assert phases(phased(solver, split)) == expected


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("split", SPLITS)
def test_each_step_has_the_guidance_of_its_phase(solver, split):
    steps, _ = plan_steps(phased(solver, split), ("transformer",))
    assert [step.guidance for step in steps] == [(3.0, 2.0, 1.0)[step.phase - 1] for step in steps]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("split", [(2, 4), (1, 2, 3), (2, 2, 2)])
@pytest.mark.parametrize("switch", [1, 2])
def test_the_second_expert_takes_over_where_the_chosen_phase_ends(solver, split, switch):
    first = split[0] if switch == 1 or len(split) == 2 else split[0] + split[1]
    found = experts(phased(solver, split, model_switch_phase=switch))
    assert found == [HIGH] * first + [LOW] * (6 - first)


@pytest.mark.parametrize(
    ("threshold", "second"),  # euler's six timesteps at shift 5 are 1000, 952, 883, 771, 557, 5
    [(1000, 0), (953, 1), (952, 2), (883, 2), (882, 3), (771, 3), (500, 5), (5, 5), (0, 6)],
)
def test_a_phase_begins_at_the_first_timestep_at_or_below_its_threshold(threshold, second):
    found = phases(sampling(guidance_phases=2, switch_threshold=threshold))
    assert found == [1] * second + [2] * (6 - second)


def test_the_presets_that_users_know_switch_after_two_steps_each():
    preset = sampling(guidance_phases=3, switch_threshold=883, switch_threshold2=558, model_switch_phase=2)
    assert phases(preset) == [1, 1, 2, 2, 3, 3]
    assert experts(preset) == [HIGH] * 4 + [LOW] * 2


def test_a_threshold_exactly_at_a_timestep_belongs_to_the_later_phase():
    levels = wan_sigmas(6, 5.0)
    run = sampling("dpm++", guidance_phases=2, switch_threshold=float(levels[3]) * 1000)
    assert phases(run) == [1, 1, 1, 2, 2, 2]


def test_one_guidance_phase_hands_over_all_the_same():
    one = sampling("unipc", 10)
    assert experts(one, boundary=0.875).index(LOW) == next(
        step.index for step in plan_steps(one, BOTH, 0.875)[0] if step.timestep <= 875
    )
    assert experts(sampling("unipc", 10, switch_threshold=950), boundary=0.875).index(LOW) == 3
    assert phases(sampling("unipc", 10, switch_threshold=950)) == [1] * 10


def test_two_phases_without_a_threshold_switch_at_the_models_own_boundary():
    run = sampling("unipc", 10, guidance_phases=2)
    steps, _ = plan_steps(run, BOTH, 0.9)
    assert [(step.phase, step.expert) for step in steps] == [
        (2, LOW) if step.timestep <= 900 else (1, HIGH) for step in steps
    ]
    assert phases(run) == [1] * 10


def test_phases_in_the_wrong_order_are_refused():
    with pytest.raises(InvalidInput, match="switch_threshold2"):
        plan_steps(sampling(guidance_phases=3, switch_threshold=500, switch_threshold2=800), ("transformer",))


@pytest.mark.parametrize(("strength", "left"), [(1.0, 10), (0.7, 7), (0.25, 2), (0.05, 1), (0.0, 1)])
def test_a_denoising_strength_runs_the_last_part_of_the_schedule(strength, left):
    whole = plan_steps(sampling(steps=10), ("transformer",))[1]
    steps, levels = plan_steps(sampling(steps=10, denoising_strength=strength), ("transformer",))
    assert np.array_equal(levels, whole[-left:])
    assert [step.index for step in steps] == list(range(left))
    assert {step.total for step in steps} == {left}


def test_given_noise_levels_are_run_as_they_are():
    levels = (1.0, 0.9375, 0.8333, 0.625)
    steps, found = plan_steps(sampling(sigmas=levels), ("transformer",))
    assert found.tolist() == list(levels)
    assert [step.timestep for step in steps] == pytest.approx([1000, 937.5, 833.3, 625])


def test_a_recognised_few_step_lora_runs_wans_own_schedule():
    _, found = plan_steps(sampling("euler", 4, wan_schedule=True), ("transformer",))
    assert found == pytest.approx(wan_sigmas(4, 5.0))


@pytest.mark.parametrize(("solver", "most"), [("causvid", 9), ("lcm", 8)])
def test_distilled_samplers_take_only_so_many_steps(solver, most):
    assert len(plan_steps(sampling(solver, most), ("transformer",))[0]) == most
    with pytest.raises(InvalidInput, match=f"num_inference_steps.*at most {most}"):
        plan_steps(sampling(solver, most + 1), ("transformer",))
