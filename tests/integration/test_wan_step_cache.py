"""The step cache by what it does: which passes are left out, when it starts anew, and what is left behind: nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_loras import comfy, factors, linears, named, write
from wan_runs import CLIP, Tiny, tiny_models

from training.tiny_wan.measure import cases, drawn, psnr
from Wan2GP import wgp
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.request import parse_request
from Wan2GP.engine.wan.model import Wan
from Wan2GP.engine.wan.step_cache import MOST_IN_A_ROW, choose_held
from Wan2GP.errors import GenerationCancelled, InvalidInput, Unsupported

STEPS = 12
LONG: dict[str, Any] = {
    "num_inference_steps": STEPS,
    "resolution": "32x32",
    "video_length": 5,
    "sample_solver": "unipc",
}
CACHED: dict[str, Any] = LONG | {"skip_steps_cache_type": "tea", "skip_steps_multiplier": 2.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Callable[[str], Tiny]:
    return tiny_models(tmp_path_factory)


@contextmanager
def counted(modules: Any) -> Iterator[list[int]]:
    """One entry for each call of one of the modules while the block runs."""
    calls: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *_, number=number: calls.append(number))
        for number, module in enumerate(modules)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


# ---- which steps


@pytest.mark.parametrize("kind", ["tea", "mag"])
@pytest.mark.parametrize("speed_up", [1.25, 1.5, 1.75, 2.0, 2.5])
def test_so_many_steps_are_predicted_as_make_the_run_as_fast_as_was_asked(kind, speed_up):
    changes = [0.0 if kind == "tea" else 1.0, *(1.01 + 0.003 * number for number in range(39))]
    held = choose_held([number > 3 for number in range(39)] + [False], changes, kind, speed_up)
    assert 40 / speed_up - 2 <= 40 - len(held) <= 40 / speed_up


def test_steps_at_which_more_changes_are_predicted():
    changes = [0.0, 5.0, 5.0, 5.0, *[1.0] * 12, 5.0, 5.0, 5.0, 5.0]
    held = choose_held([False, *[True] * 18, False], changes, "tea", 1.6)
    assert held and all(4 <= number < 16 for number in held)


def test_no_more_than_two_steps_in_a_row_are_held_however_much_is_asked():
    held = choose_held([False] + [True] * 19, [1.0] * 20, "tea", 5.0)
    runs = "".join("h" if number in held else " " for number in range(20)).split()
    assert max(map(len, runs)) == MOST_IN_A_ROW


def test_a_held_step_asks_no_block_not_even_those_of_vace(tiny):
    model = tiny("vace_1.3B")
    transformer = model.parts.transformer
    asked = CACHED | {"video_length": 17, "guidance_scale": 3.0}
    with counted(transformer.vace_blocks) as of_vace, counted(transformer.blocks) as of_all:
        model.frames(**asked)
    predicted = STEPS // 2
    assert len(of_vace) == 2 * predicted * len(transformer.vace_blocks)
    assert len(of_all) == 2 * predicted * len(transformer.blocks)
    assert f"the step cache held {STEPS - predicted} of {STEPS} steps" in model.model.remarks


def test_the_first_steps_before_the_start_and_the_last_step_are_always_predicted(tiny):
    model = tiny("t2v")
    asked = CACHED | {"skip_steps_start_step_perc": 50, "guidance_scale": 1.0}
    with model.watched() as calls:
        model.frames(**asked)
    with model.watched() as whole:
        model.frames(**LONG, guidance_scale=1.0)
    moments = [call.timestep for call in whole]
    seen = [call.timestep for call in calls]
    assert seen[:6] == moments[:6] and seen[-1] == moments[-1] and len(seen) < STEPS


def test_a_models_own_polynomial_says_how_much_a_step_is_expected_to_change(tiny):
    model = tiny("t2v")
    usual = model.definition

    def moments(coefficients):
        model.definition = replace(usual, model={**usual.model, "teacache_coefficients": coefficients})
        with model.watched() as calls:
            model.frames(**CACHED, guidance_scale=1.0)
        return [call.timestep for call in calls]

    try:
        plain = moments([])
        assert moments([3.0, 0.0]) == plain, "three times as much everywhere is the same order"
        turned_round = moments([-1.0, 1.0])
        assert len(turned_round) == len(plain) and turned_round != plain
        with pytest.raises(InvalidInput, match="teacache_coefficients in the definition of tiny must be numbers"):
            moments(["much"])
    finally:
        model.definition = usual


# ---- it begins anew


def test_each_expert_predicts_its_first_step(tiny):
    model = tiny("t2v_2_2")
    split = {"guidance_phases": 2, "guidance_scale": 1.0, "guidance2_scale": 1.0, "switch_threshold": 860}
    with model.watched() as whole:
        model.frames(**LONG, **split)
    with model.watched() as calls:
        model.frames(**CACHED, **split)
    firsts = {call.expert: call for call in reversed(whole)}
    assert set(firsts) == {"transformer", "transformer_2"}
    assert all(first in calls for first in firsts.values())
    assert len(calls) < len(whole)


def test_each_window_predicts_its_first_step_and_a_run_that_of_the_next(tiny):
    model = tiny("t2v")
    windows = CACHED | {
        "video_length": 25,
        "sliding_window_size": 17,
        "sliding_window_overlap": 5,
        "guidance_scale": 1.0,
    }
    with model.watched() as calls:
        first = model.frames(**windows)
        again = model.frames(**windows)
    assert len(calls) == 4 * STEPS // 2
    assert len({call.timestep for call in calls[:: STEPS // 2]}) == 1
    assert np.array_equal(first, again)


def test_a_step_of_another_lora_multiplier_is_predicted_and_nothing_is_left_behind(tiny, tmp_path):
    model = tiny("t2v")
    layers = linears(model.parts.transformer)[:2]
    layout = named(comfy, ".lora_down.weight", ".lora_up.weight")
    write(tmp_path / "wan", layout(factors(model.parts.transformer, layers)))
    plain = model.frames(**LONG)
    rising = ",".join(str(number / 10) for number in range(STEPS))
    asked = (
        CLIP | CACHED | {"guidance_scale": 1.0, "activated_loras": ["mine.safetensors"], "loras_multipliers": rising}
    )
    request = parse_request(asked, model.definition, Wan.reads, tmp_path)
    with model.watched() as calls:
        list(model.model.generate(request, lambda *_: None, Cancel(lambda: False)))
    assert len(calls) == STEPS, "its multiplier changes at each step"
    assert np.array_equal(model.frames(**LONG), plain)


def test_a_run_that_was_cancelled_between_held_steps_leaves_nothing_behind(tiny):
    model = tiny("t2v")
    plain, cached = model.frames(**LONG), model.frames(**CACHED)
    asked: list[bool] = []

    def in_the_middle() -> bool:
        asked.append(True)
        return len(asked) > STEPS // 2 + 2

    with pytest.raises(GenerationCancelled):
        model.frames(**CACHED, cancel=in_the_middle)
    assert np.array_equal(model.frames(**LONG), plain)
    assert np.array_equal(model.frames(**CACHED), cached)


def test_a_cached_run_that_was_interrupted_before_a_held_step_goes_on_to_the_same_frames(tiny, tmp_path):
    model = tiny("t2v")
    whole = model.frames(**CACHED)
    kept = CACHED | {"plugin_data": {"checkpoint": tmp_path, "checkpoint_interval_s": 0}}
    for stop_at in range(4, 8):

        def stop(phase: str, step: int, total: int, stop_at: int = stop_at) -> None:
            if phase == "denoising" and step == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(model.model.generate(model.request(**kept), stop, Cancel(lambda: False)))
    assert np.array_equal(model.frames(**kept), whole)
    assert "went on after step 7 of window 1" in model.model.remarks


# ---- what it cannot do is said


def test_a_kind_that_is_not_there_is_refused(tiny):
    with pytest.raises(Unsupported, match="no step cache 'first_block' for tiny; choose tea or mag"):
        tiny("t2v").request(**LONG, skip_steps_cache_type="first_block")


def test_magnitudes_that_nobody_measured_are_refused(tiny):
    with pytest.raises(Unsupported, match="never measured; use tea"):
        tiny("t2v_2_2").request(**LONG, skip_steps_cache_type="mag")
    tiny("t2v").request(**LONG, skip_steps_cache_type="mag")


def test_a_speed_up_below_one_is_refused(tiny):
    with pytest.raises(InvalidInput, match="skip_steps_multiplier"):
        tiny("t2v").request(**CACHED | {"skip_steps_multiplier": 0.5})


def test_a_few_steps_are_all_predicted_and_that_is_said(tiny):
    model = tiny("t2v")
    few = CACHED | {"num_inference_steps": 4, "guidance_scale": 1.0}
    with model.watched() as calls:
        model.frames(**few)
    assert len(calls) == 4
    assert any("no effect on fewer than 10 steps" in note for note in model.request(**few).notes)


@pytest.mark.slow
def test_staggered_frames_take_no_part_and_that_is_said(tiny):
    model = tiny("sky_df_1.3B")
    lagging = CACHED | {"model_mode": 5, "video_length": 21, "guidance_scale": 1.0}
    with model.watched() as calls:
        model.frames(**lagging)
    assert len(calls) > STEPS
    assert any("no effect in model_mode 5" in note for note in model.request(**lagging).notes)


# ---- quality, on weights that were trained


@pytest.mark.slow
def test_a_cached_video_is_closer_to_the_whole_one_than_one_of_fewer_steps(tmp_path):
    wgp.configure(definitions=[], device="cpu")
    case = next(cases(1))
    try:
        whole = drawn("tiny_wan_t2v", case, tmp_path)
        by_tea, by_mag = (
            drawn("tiny_wan_t2v", case, tmp_path, skip_steps_cache_type=kind, skip_steps_multiplier=1.75)
            for kind in ("tea", "mag")
        )
        shorter = drawn("tiny_wan_t2v", case, tmp_path, num_inference_steps=11)
    finally:
        wgp.release_model()
    assert psnr(by_tea, whole) >= psnr(shorter, whole) + 3
    assert psnr(by_mag, whole) >= 30, "with magnitudes that were measured on a larger model"
