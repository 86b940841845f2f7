"""How strong each LoRA is at each denoising step: the text of `loras_multipliers` becomes numbers. No torch here.

One token stands for one LoRA, in the order of the LoRAs; tokens are separated by spaces or lines. In a token `;`
separates guidance phases and `,` separates values that are spread evenly over the steps (of the phase, or of the whole
run when there is no `;`): "1;0" is on in phase 1 alone, "1,0.8,0.4" falls over the run. Lines that begin with `#` are
comments. One `|` separates the multipliers of a preset, which come first, from the user's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from Wan2GP.errors import InvalidInput, Unsupported

FIELD = "loras_multipliers"

#: larger multipliers are slips of the keyboard: no LoRA is made for them
MOST = 10.0

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def split_tokens(text: str) -> list[str]:
    """The tokens of a text, one a LoRA. Raises InvalidInput when more than one `|` is there."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = " ".join(lines)
    if joined.count("|") > 1:
        raise InvalidInput("has more than one '|'; one separates a preset's multipliers from yours", field=FIELD)
    return joined.replace("|", " ").split()


def step_multipliers(
    token: str, phase_of_step: Sequence[int], *, phases: int, model_switch_phase: int = 1, lora: str = "the LoRA"
) -> tuple[float, ...]:
    """One multiplier per denoising step.

    `phase_of_step` says in which guidance phase (from 1) each step is. A token with fewer phases than `phases` is
    padded: its first value is repeated when the model switches after phase 2 (both first phases run the first model),
    else its last. An empty token is 1.0 throughout. `lora` names the LoRA in messages. Raises InvalidInput for more
    phases than there are, and for anything that is not a number between -10 and 10.
    """
    parts = token.split(";") if token else ["1"]
    if len(parts) > phases:
        raise InvalidInput(
            f"{lora}: {_shown(token)} has {len(parts)} phases, the run has {phases}; "
            "leave some out or raise guidance_phases",
            field=FIELD,
        )
    values = [[_number(value, token, lora) for value in part.split(",")] for part in parts]
    if len(parts) == 1:
        return _spread(values[0], len(phase_of_step))
    return _by_phase(_padded(values, phases, model_switch_phase), phase_of_step)


def plan_multipliers(
    names: Sequence[str], text: str, phase_of_step: Sequence[int], phases: int, model_switch_phase: int = 1
) -> list[tuple[float, ...]]:
    """The multipliers of every LoRA, one per step each; a LoRA without a token is at 1.0.

    Text without any LoRA has no effect. Raises InvalidInput when there are more tokens than LoRAs, or a token is wrong;
    the message names the LoRA's position, its name and the token.
    """
    tokens = split_tokens(text)
    if names and len(tokens) > len(names):
        raise InvalidInput(
            f"has {len(tokens)} multipliers for {len(names)} LoRA(s); {_shown(tokens[len(names)])} belongs to none. "
            "Separate LoRAs by spaces, phases by ';' and steps by ','",
            field=FIELD,
        )
    padded = [*tokens, *[""] * (len(names) - len(tokens))]
    return [
        step_multipliers(
            token,
            phase_of_step,
            phases=phases,
            model_switch_phase=model_switch_phase,
            lora=f"LoRA {position} ({name})",
        )
        for position, (name, token) in enumerate(zip(names, padded, strict=False), start=1)
    ]


def is_off(token: str) -> bool:
    """Whether a token is well formed and zero in every phase and step."""
    values = re.split("[;,]", token)
    return all(_NUMBER.fullmatch(value) and float(value) == 0 for value in values)


def _number(text: str, token: str, lora: str) -> float:
    if ":" in text:
        raise Unsupported(
            f"{lora}: {_shown(token)} gives values per guidance branch (':'), which no model here takes", field=FIELD
        )
    if not _NUMBER.fullmatch(text):
        raise InvalidInput(f"{lora}: {_shown(token)}: {_shown(text)} is not a number", field=FIELD)
    value = float(text)
    if abs(value) > MOST:
        raise InvalidInput(
            f"{lora}: {_shown(token)}: {_shown(text)} is not between -{MOST:g} and {MOST:g}", field=FIELD
        )
    return value


def _padded(values: list[list[float]], phases: int, model_switch_phase: int) -> list[list[float]]:
    missing = phases - len(values)
    if model_switch_phase == 2:
        return [values[0]] * missing + values
    return values + [values[-1]] * missing


def _by_phase(values: list[list[float]], phase_of_step: Sequence[int]) -> tuple[float, ...]:
    spread = [iter(_spread(part, phase_of_step.count(phase))) for phase, part in enumerate(values, start=1)]
    return tuple(next(spread[phase - 1]) for phase in phase_of_step)


def _spread(values: Sequence[float], steps: int) -> tuple[float, ...]:
    """`values` stretched evenly over `steps`; of more values than steps, evenly chosen ones."""
    return tuple(values[step * len(values) // steps] for step in range(steps))


def _shown(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else f"{text[:most]}…")
