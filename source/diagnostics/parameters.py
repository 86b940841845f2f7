"""A task's parameters for people: the LoRAs they name, and what is long cut short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from source.diagnostics.views import View
from source.logs import redact_values

_LISTS = frozenset({"activated_loras", "lora_names", "loras", "additional_loras"})


def loras_in(params: Mapping[str, Any]) -> list[View]:
    """The LoRAs that parameters name anywhere (also in a phase_config): [{reference, multiplier}], each once."""
    found = {(name, str(strength)): strength for name, strength in _loras(params)}
    named = [{"reference": redact_values(name), "multiplier": each} for (name, _), each in found.items()]
    told = {lora["reference"] for lora in named if lora["multiplier"] is not None}
    return [lora for lora in named if lora["multiplier"] is not None or lora["reference"] not in told]


def _loras(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _listed(inner) if name in _LISTS else _loras(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _loras(inner)


def _listed(value: Any) -> Iterator[tuple[str, Any]]:
    """LoRAs as rows write them: names, {name: multiplier}, or [{url, multiplier}]."""
    if isinstance(value, str):
        yield from ((name.strip(), None) for name in value.split(",") if name.strip())
    elif isinstance(value, Mapping):
        yield from ((str(name), strength) for name, strength in value.items())
    elif isinstance(value, Sequence):
        for each in value:
            if isinstance(each, str):
                yield each, None
            elif isinstance(each, Mapping):
                name = next((each[key] for key in ("url", "path", "name", "filename") if each.get(key)), None)
                strength = next((each[key] for key in ("multiplier", "strength", "scale") if key in each), None)
                if isinstance(name, str):
                    yield name, strength
