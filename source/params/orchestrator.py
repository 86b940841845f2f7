"""What an orchestrator's parameters say for a task that is generated on their behalf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headless.options import GenerationOptions
from source.params.base import LEVELS, field_names, knob_table, strongest
from source.params.generating import GeneratingParams

_OWN = LEVELS.index(None)


def extract_orchestrator_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Field name -> value, for what only `orchestrator_details` (or its older name) says about generating.

    Names are the declared ones; a name that means nothing to a generation is left out, and so is an empty
    additional_loras. Values are as written. Raises InvalidInput when a level is not an object.
    """
    names = knob_table(GeneratingParams, GenerationOptions) | field_names(GeneratingParams)
    found = strongest(params, names)
    return {
        field: given.value
        for field, given in found.items()
        if given.level < _OWN and not (field == "additional_loras" and not given.value)
    }
