"""The settings of a denoise loop, parsed from the call. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from Wan2GP.architecture import Architecture
from Wan2GP.engine.numbers import Numbers
from Wan2GP.errors import InvalidInput
from Wan2GP.schedules import SOLVERS

#: steps of a schedule of which some can be left out
LEAST_CACHED_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class StepCache:
    """Steps that hold the prediction of the one before."""

    #: how they are chosen
    kind: str
    #: how many times fewer steps shall be predicted, from 1
    speed_up: float
    #: 0-1: share of the steps before which none holds
    start: float


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How noise becomes a picture."""

    num_inference_steps: int
    #: one of the architecture's
    solver: str
    flow_shift: float
    #: explicit noise levels; empty: the solver's own
    sigmas: tuple[float, ...] = ()
    #: the schedule of Wan's own code instead of the solver's
    wan_schedule: bool = False
    guidance_phases: int = 1
    guidance_scale: float = 5.0
    guidance2_scale: float = 5.0
    guidance3_scale: float = 5.0
    switch_threshold: float = 0.0
    switch_threshold2: float = 0.0
    model_switch_phase: int = 1
    #: a model's second guidance (Phantom's references) and that of an audio condition
    alt_guidance_scale: float = 1.0
    audio_guidance_scale: float = 1.0
    #: 0-1: share of the schedule that is run, from given latents
    denoising_strength: float = 1.0
    cfg_star: bool = False
    #: with CFG-star: steps up to this one predict nothing; -1 is off
    cfg_zero_step: int = -1
    apg: bool = False
    #: skip-layer guidance: layers that the second pass leaves out, between two shares (0-1) of the run
    skipped_layers: tuple[int, ...] = ()
    skip_from: float = 0.1
    skip_until: float = 0.9
    nag_scale: float = 1.0
    nag_tau: float = 3.5
    nag_alpha: float = 0.5
    step_cache: StepCache | None = None


def parse_sampling(numbers: Numbers, solver: str, wan_schedule: bool, architecture: Architecture) -> Sampling:
    """Raises InvalidInput that names the field. Which of Wan's samplers a Wan model has, its family knows."""
    declared = architecture.solvers
    solvers = SOLVERS if set(declared) <= set(SOLVERS) else declared
    if solver and solver not in solvers:
        raise InvalidInput(f"there is no sampler {solver!r}; choose one of {', '.join(solvers)}", field="sample_solver")
    sigmas = _sigmas(numbers)
    cfg_star, apg = numbers.switch("cfg_star_switch"), numbers.switch("apg_switch")
    if cfg_star and apg:
        raise InvalidInput("cannot be combined with cfg_star_switch; switch one of them off", field="apg_switch")
    phases = numbers.whole("guidance_phases", 0, 3) or 1
    if phases > architecture.phases:
        raise InvalidInput(f"is {phases}; this model has at most {architecture.phases}", field="guidance_phases")
    slg = next((name for name in ("slg", "perturbation") if numbers.switch(f"{name}_switch")), None)
    return Sampling(
        num_inference_steps=len(sigmas) or numbers.whole("num_inference_steps", 1, 1000),
        solver=solver or solvers[0],
        flow_shift=numbers.real("flow_shift", 0.01, 100),
        sigmas=sigmas,
        wan_schedule=wan_schedule,
        guidance_phases=phases,
        **{name: numbers.real(name, 0, 100) for name in _SCALES},
        switch_threshold=numbers.real("switch_threshold", 0, 1000),
        switch_threshold2=numbers.real("switch_threshold2", 0, 1000),
        model_switch_phase=numbers.whole("model_switch_phase", 1, 2),
        denoising_strength=numbers.real("denoising_strength", 0, 1),
        cfg_star=cfg_star,
        cfg_zero_step=numbers.whole("cfg_zero_step", -1) if cfg_star else -1,
        apg=apg,
        skipped_layers=numbers.wholes(f"{slg}_layers") if slg else (),
        skip_from=numbers.real(f"{slg or 'slg'}_start_perc", 0, 100) / 100,
        skip_until=numbers.real(f"{slg or 'slg'}_end_perc", 0, 100) / 100,
        nag_scale=numbers.real("NAG_scale", 0, 100),
        nag_tau=numbers.real("NAG_tau", 0.1, 100),
        nag_alpha=numbers.real("NAG_alpha", 0, 10),
        step_cache=_step_cache(numbers),
    )


_SCALES = ("guidance_scale", "guidance2_scale", "guidance3_scale", "alt_guidance_scale", "audio_guidance_scale")


def _step_cache(numbers: Numbers) -> StepCache | None:
    kind = numbers.text("skip_steps_cache_type")
    speed_up = numbers.real("skip_steps_multiplier", 1, 5)
    start = numbers.real("skip_steps_start_step_perc", 0, 100) / 100
    return StepCache(kind=kind, speed_up=speed_up, start=start) if kind else None


def _sigmas(numbers: Numbers) -> tuple[float, ...]:
    levels = numbers.reals("sigmas")
    if levels and levels[-1] == 0:
        levels = levels[:-1]
    falling = all(high > low for high, low in pairwise(levels))
    if not falling or any(not 0 < level <= 1 for level in levels):
        raise InvalidInput("must fall from at most 1 to above 0, each lower than the one before", field="sigmas")
    return levels
