"""LoRAs that make a model need fewer steps, and the settings that each was made for. Data; no torch here.

A LoRA is recognised by its published file name. Its settings stand between the model's own and the caller's: they apply
where the caller wrote nothing. The numbers are those of the authors' model cards and of the presets that users know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from Wan2GP.engine.lora.multipliers import is_off, split_tokens

_NO_GUIDANCE = {"guidance_scale": 1.0, "guidance2_scale": 1.0, "guidance3_scale": 1.0}


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One row: a family of accelerating LoRAs."""

    name: str
    #: searched in the file name, which is first reduced to lower-case letters and digits
    pattern: str
    #: parameter name -> value
    settings: Mapping[str, Any]
    #: what changes when the multipliers say so many phases ("1;0 0;1" says two)
    by_phases: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    #: (strength from, steps), falling, where the number of steps follows the multiplier
    steps_by_strength: tuple[tuple[float, int], ...] = ()
    #: "wan": must run at `Wan2GP.schedules.wan_sigmas`, whatever the solver; "": at the solver's own noise levels
    sigmas: str = ""


#: the first row whose pattern fits counts
ACCELERATORS: tuple[Accelerator, ...] = (
    *(
        Accelerator(
            name=f"Qwen-Image Lightning, {steps} steps",
            pattern=rf"(?=.*qwen)(?=.*lightning)(?=.*{steps}step)",
            settings={"guidance_scale": 1.0, "num_inference_steps": steps, "sample_solver": "lightning"},
        )
        for steps in (4, 8)
    ),
    Accelerator(
        name="FusioniX",
        pattern=r"fusioni?x",
        settings={**_NO_GUIDANCE, "num_inference_steps": 8, "sample_solver": "unipc", "flow_shift": 2.0},
    ),
    Accelerator(
        name="Wan2.2 Lightning",
        pattern=r"(?=.*wan22)(?=.*(lightning|lightx2v|4step))",
        settings={**_NO_GUIDANCE, "num_inference_steps": 4, "sample_solver": "euler", "flow_shift": 5.0},
        by_phases={
            2: {"guidance_phases": 2, "switch_threshold": 876, "model_switch_phase": 1},
            3: {
                "guidance_phases": 3,
                "switch_threshold": 965,
                "switch_threshold2": 800,
                "model_switch_phase": 2,
                "guidance_scale": 3.5,
                "num_inference_steps": 8,
                "flow_shift": 3.0,
            },
        },
        sigmas="wan",
    ),
    Accelerator(
        name="LightX2V self-forcing",
        pattern=r"lightx2v|cfgstepdistill|stepdistill|selfforcing",
        settings={**_NO_GUIDANCE, "num_inference_steps": 4, "sample_solver": "euler", "flow_shift": 5.0},
        sigmas="wan",
    ),
    Accelerator(
        name="CausVid v2",
        pattern=r"causvid.*v(15|2)",
        settings={**_NO_GUIDANCE, "num_inference_steps": 8, "sample_solver": "unipc", "flow_shift": 7.0},
    ),
    Accelerator(
        name="CausVid",
        pattern=r"causvid",
        settings={**_NO_GUIDANCE, "sample_solver": "unipc", "flow_shift": 7.0},
        steps_by_strength=((0.8, 4), (0.5, 8), (0.0, 12)),
    ),
    Accelerator(
        name="FastWan",
        pattern=r"fastwan",
        settings={**_NO_GUIDANCE, "num_inference_steps": 3, "sample_solver": "unipc", "flow_shift": 3.0},
    ),
    Accelerator(
        name="AccVideo",
        pattern=r"accvid",
        settings={**_NO_GUIDANCE, "flow_shift": 5.0},
    ),
)

#: file names that say nothing by themselves; the folder above them does
_GENERIC = re.compile(r"(high|low)_noise_model\.safetensors|adapter_model\.safetensors|.*lora_weights\.safetensors")


@dataclass(frozen=True)
class _Found:
    accelerator: Accelerator
    lora: str
    token: str

    @property
    def strength(self) -> float:
        return max((abs(float(value)) for value in re.findall(r"\d+\.?\d*|\.\d+", self.token)), default=1.0)

    def on_in_phases(self, phases: int) -> set[int]:
        parts = self.token.split(";")
        if len(parts) == 1:
            return set(range(1, phases + 1))
        return {phase for phase, part in enumerate(parts, start=1) if not is_off(part)}


def accelerator_of(lora: str) -> Accelerator | None:
    """The row that a file name, path or URL belongs to."""
    path = PurePosixPath(unquote(lora.split("?")[0]).replace("\\", "/"))
    name = f"{path.parent.name}_{path.name}" if _GENERIC.fullmatch(path.name.lower()) else path.name
    reduced = re.sub(r"[^a-z0-9]+", "", name.lower().removesuffix(".safetensors"))
    return next((row for row in ACCELERATORS if re.search(row.pattern, reduced)), None)


def recognised(loras: Sequence[str], multipliers: str = "") -> Accelerator | None:
    """The strongest accelerator among the LoRAs; of equal ones the first. A LoRA that is off throughout is none."""
    found = _strongest(loras, multipliers)
    return found[0].accelerator if found else None


def settings_for(loras: Sequence[str], multipliers: str = "") -> tuple[dict[str, Any], str | None]:
    """The settings that apply where the caller wrote nothing, and a line for the log; ({}, None) without accelerator.

    An accelerator that is off in a phase (other than the first of three, which may be guided) is a set-up of the
    caller's own: nothing is set, and the line says so.
    """
    found = _strongest(loras, multipliers)
    if not found:
        return {}, None
    row = found[0].accelerator
    phases = max(one.token.count(";") + 1 for one in found)
    off = set(range(1, phases + 1)) - set().union(*(one.on_in_phases(phases) for one in found))
    if off and not (phases == 3 and off == {1} and 3 in row.by_phases):
        listed = ", ".join(map(str, sorted(off)))
        return (
            {},
            f"{found[0].lora} recognised as {row.name}, but it is off in phase {listed}: its settings are left out",
        )
    settings = {**row.settings, **row.by_phases.get(phases, {})}
    for least, steps in row.steps_by_strength:
        if found[0].strength >= least:
            settings["num_inference_steps"] = steps
            break
    return settings, f"{found[0].lora} recognised as {row.name}: {_spoken(settings)} (values you set are kept)"


def _strongest(loras: Sequence[str], multipliers: str) -> list[_Found]:
    """Every LoRA of the strongest accelerator, the strongest first."""
    found = list(_active(loras, multipliers))
    if not found:
        return []
    best = max(found, key=lambda one: one.strength)
    same = [one for one in found if one.accelerator is best.accelerator and one is not best]
    return [best, *same]


def _active(loras: Sequence[str], multipliers: str) -> Iterator[_Found]:
    tokens = split_tokens(multipliers)
    for position, lora in enumerate(loras):
        token = tokens[position] if position < len(tokens) else "1"
        row = accelerator_of(lora)
        if row is not None and not is_off(token):
            yield _Found(row, PurePosixPath(lora.replace("\\", "/")).name, token)


def _spoken(settings: Mapping[str, Any]) -> str:
    guidance = settings.get("guidance_phases")
    words = {
        "num_inference_steps": "{} steps",
        "guidance_scale": "guidance {:g}" if not guidance else f"{guidance} phases, guidance {{:g}} first",
        "sample_solver": "solver {}",
        "flow_shift": "shift {:g}",
        "switch_threshold": "switch at {}",
    }
    return ", ".join(text.format(settings[name]) for name, text in words.items() if name in settings)
