"""What is done to a request before its model sees it. No torch here.

The steps run other models beside the resident one, so that each is one model whether it is asked for alone, by a task
of its own, or by a letter of another generation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from Wan2GP.definitions import Definitions
from Wan2GP.engine.ahead import Ahead
from Wan2GP.engine.beside import Beside
from Wan2GP.engine.control.drawing import with_drawn_control
from Wan2GP.engine.control.letters import check_letters, check_models, processing_of
from Wan2GP.engine.families import Cancel, Family
from Wan2GP.engine.language.enhancing import check_enhancing, enhanced
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.request_key import remember_digests


def check_preparing(
    request: GenerationRequest, definitions: Definitions, unavailable: Callable[[str], str | None]
) -> None:
    """Raises InvalidInput or Unsupported for what cannot be prepared, ModelUnavailable where a model for it is missing.

    `unavailable` says why a model cannot run here; None when it can. Nothing is loaded.
    """
    check_letters(request)
    check_models(request, unavailable)
    check_enhancing(request, definitions, unavailable)


def read_ahead(request: GenerationRequest, kind: Family) -> GenerationRequest:
    """The request with what its run will read of its media, as far as that is known before other models had their turn.

    For any thread. Raises InvalidMedia.
    """
    read = getattr(kind, "read_ahead", None)
    if read is None:
        return request
    ahead = Ahead()
    if request.checkpoint is not None:
        remember_digests(request, ahead)
    if processing_of(request) is None:
        read(request, ahead)
    return replace(request, ahead=ahead)


@contextmanager
def prepared(request: GenerationRequest, beside: Beside, cancel: Cancel, folder: Path) -> Iterator[GenerationRequest]:
    """The request as its model takes it; what was made for it, in `folder`, goes with the block."""
    cancel.raise_if_requested()
    written = enhanced(request, beside, cancel)
    with with_drawn_control(written, beside, cancel, folder) as ready:
        yield ready
