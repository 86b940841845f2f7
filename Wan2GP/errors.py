"""The error tree. This is the lowest layer: everything above subclasses what is here.

    WanError                        something in this project failed
    ├── InvalidInput                the caller must change something; never retried
    │   ├── InvalidMedia            a file is missing, empty, damaged or not what it should be
    │   ├── UnknownModel            no model definition of that name
    │   └── Unsupported             asked for something this model or version cannot do
    ├── ModelUnavailable            the weights or the device of a model are missing here; never retried
    ├── GenerationCancelled         stopped on request
    ├── OutOfMemory                 the device or the host ran out of memory
    ├── DeviceLost                  the accelerator is unusable until the process is replaced
    └── EngineError                 the engine failed for another reason
        ├── NoOutput                the engine returned without a new file
        └── EmptyAnswer             a model that writes text gave none

What each class means for a task (fail, retry, release, exit) is decided in one table: `source/errors.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WanError(Exception):
    """Something failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


class InvalidInput(WanError):
    """The input cannot be used. `field` names the parameter at fault, when there is one; `faults` says of each
    parameter at fault, such as "phase_config.phases.0.guidance_scale", what is wrong with it."""

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        super().__init__(f"{field}: {message}" if field and message else message)
        self.field = field
        self.faults: dict[str, str] = {field: message} if field and message else {}


class InvalidMedia(InvalidInput):
    """A media file is missing, empty, damaged, or not of the expected kind."""


class UnknownModel(InvalidInput):
    """There is no model definition of that name."""


class Unsupported(InvalidInput):
    """This model or version cannot do what was asked."""


class ModelUnavailable(WanError):
    """The weights or the device that a model needs are missing on this machine."""


class GenerationCancelled(WanError):
    """The generation was stopped on request."""


class OutOfMemory(WanError):
    """The device or the host ran out of memory."""


class DeviceLost(WanError):
    """The accelerator stopped working; this process cannot use it any more."""


class EngineError(WanError):
    """The engine failed."""


class NoOutput(EngineError):
    """The engine returned without producing a new file."""


class EmptyAnswer(EngineError):
    """A model that writes text gave an answer without a word."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names closest to `name`, best first; empty when nothing is close."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known names, or the empty string."""
    close = nearest(name, known)
    return f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
