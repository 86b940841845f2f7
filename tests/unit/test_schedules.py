"""Noise levels of the samplers, against values known elsewhere; and the thresholds between phases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from Wan2GP.schedules import (
    CAUSVID_TIMESTEPS,
    MOST_STEPS,
    SOLVERS,
    model_sigmas,
    solver_sigmas,
    switch_thresholds,
    wan_sigmas,
)


def test_wans_own_schedule_is_the_one_its_few_step_loras_were_made_for():
    assert np.floor(wan_sigmas(6, 5) * 1000).tolist() == [1000, 961, 909, 833, 714, 500]
    assert np.round(wan_sigmas(4, 5), 4).tolist() == [1.0, 0.9375, 0.8333, 0.625]


def test_eulers_schedule_is_the_one_that_front_ends_know():
    assert solver_sigmas("euler", 6, 5) * 1000 == pytest.approx([1000, 952.4, 882.5, 769.7, 556.8, 5.0], abs=0.1)


def test_unipcs_schedule_is_that_of_diffusers():
    from diffusers import UniPCMultistepScheduler

    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    theirs.set_timesteps(8)
    assert solver_sigmas("unipc", 8, 5) == pytest.approx(theirs.sigmas[:-1].numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("solver", "shift", "steps", "expected"),
    [
        ("euler", 5, (2, 2, 2), (917.5, 663.2)),
        ("euler", 5, (3, 3), (826.1,)),
        ("euler", 5, (2, 2, 5), (954.9, 863.3)),
        ("euler", 3, (2, 2, 2), (870.8, 548.5)),
        ("unipc", 5, (2, 2, 2), (935.4, 774.3)),
        ("unipc", 5, (3, 3), (871.4,)),
        ("dpm++_sde", 5, (2, 2, 2), (935.3, 773.8)),
        ("lcm", 5, (2, 2, 2), (700.3, 300.7)),
    ],
)
def test_thresholds_are_the_values_that_front_ends_compute(solver, shift, steps, expected):
    found = switch_thresholds(solver_sigmas(solver, sum(steps), shift), steps)
    assert found == pytest.approx(expected, abs=0.1)


def test_a_phase_without_steps_has_no_threshold():
    assert switch_thresholds(solver_sigmas("euler", 4, 5), (2, 2, 0))[1] is None
    assert switch_thresholds(solver_sigmas("euler", 4, 5), (4, 0)) == (None,)
    assert switch_thresholds(solver_sigmas("euler", 4, 5), (0, 4)) == (None,)


@given(solver=st.sampled_from(SOLVERS), shift=st.floats(0.5, 20), data=st.data())
def test_levels_fall_from_at_most_one_to_above_zero(solver, shift, data):
    steps = data.draw(st.integers(1, MOST_STEPS.get(solver, 60)))
    levels = model_sigmas(solver, steps, shift)
    assert len(levels) == steps
    assert levels[0] == pytest.approx(1) and levels[-1] > 0
    assert (np.diff(levels) < 0).all()


@given(shift=st.floats(1.01, 20), steps=st.integers(2, 40))
def test_a_shift_spends_more_steps_at_high_noise(shift, steps):
    assert (wan_sigmas(steps, shift)[1:] > wan_sigmas(steps, 1)[1:]).all()


def test_the_distilled_samplers_run_at_the_levels_that_they_were_distilled_for():
    assert (model_sigmas("causvid", 9, 7) * 1000).round().tolist() == list(CAUSVID_TIMESTEPS)
    assert (model_sigmas("causvid", 4, 7) * 1000).round().tolist() == [1000, 934, 862, 756]
    assert model_sigmas("lcm", 4, 5) == pytest.approx(wan_sigmas(4, 5))
