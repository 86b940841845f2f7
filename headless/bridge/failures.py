"""What a checkout's failure is for us: its exceptions come as a class name, a message and a trace."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from headless.engine_run import typed_error
from Wan2GP.errors import EngineError, InvalidInput, ModelUnavailable, OutOfMemory, WanError

logger = logging.getLogger(__name__)

#: how a checkout words a shortage of memory for people
_SHORTAGE = re.compile(r"\b(?:in|un)sufficient\s+(?:V?RAM|memory)\b", re.IGNORECASE)
_OUT_OF_MEMORY = ("OutOfMemoryError", "MemoryError")
#: raised by a checkout for what its user has to change: a LoRA that is not there, multipliers that it cannot read
_FOR_PEOPLE = re.compile(r"^gradio\.(?:.*\.)?Error$")
_NO_GPU = re.compile(r"no nvidia driver|not compiled with cuda|no cuda gpus are available", re.IGNORECASE)


class EndedUnasked(EngineError):
    """The process of the checkout ended, or broke the agreement on messages; it is of no use any more."""


class Stuck(EngineError):
    """The process of the checkout stands still; it is of no use any more."""


def failure(told: Mapping[str, Any], *, final: bool) -> WanError:
    """The error of ours for an exception of the checkout. `final`: another try would end the same."""
    kind, text = str(told.get("type", "")), str(told.get("text", ""))
    logger.warning("the checkout failed: %s: %s\n%s", kind, text, told.get("trace", ""))
    if kind.endswith(_OUT_OF_MEMORY):
        return OutOfMemory(f"out of memory: {text}" if text else None)
    if final:
        return ModelUnavailable(f"the checkout cannot be used: {text or kind}")
    if _NO_GPU.search(text):
        return ModelUnavailable(f"the checkout needs a GPU that its torch can use: {text}")
    if (known := _known(text)) is not None:
        return known
    if _FOR_PEOPLE.search(kind):
        return InvalidInput(f"the checkout refuses it: {text}")
    return EngineError(f"the checkout failed: {kind.rpartition('.')[2]}: {text}")


def reported(text: str) -> WanError:
    """The error of ours for a message that the checkout reported instead of raising it."""
    return _known(text) or EngineError(f"the checkout failed: {text}")


def _known(text: str) -> WanError | None:
    """Out of memory, or the device lost."""
    return OutOfMemory(f"out of memory: {text}") if _SHORTAGE.search(text) else typed_error(text)
