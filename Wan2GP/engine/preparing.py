"""What is done to a request before its model sees it. No torch here.

The steps run other models beside the resident one, so that each is one model whether it is asked for alone, by a task
of its own, or by a letter of another generation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from Wan2GP.engine.beside import Beside
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.request import GenerationRequest


@contextmanager
def prepared(request: GenerationRequest, beside: Beside, cancel: Cancel) -> Iterator[GenerationRequest]:
    """The request as its model takes it; what was made for it goes with the block."""
    cancel.raise_if_requested()
    yield request
