"""Memory profiles 1 to 5: where the parts of a model rest and compute, as data. No torch here.

The numbers are those that users of such engines know. docs/memory.md says who should choose which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: begins the names of the parts that denoise
_TRANSFORMER = "transformer"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What one profile does on an accelerator. On a CPU, where everything is in host memory anyway, only
    `kept_share` counts."""

    #: -1 is the automatic one
    number: int
    meaning: str
    #: large parts stay in host memory and go through the accelerator layer by layer, also where they would fit
    streamed: bool
    #: the next layer is copied while one computes; takes page-locked memory
    overlapped: bool
    #: what rests in page-locked host memory: "all", "transformers" or "nothing"
    pinned: str
    #: share (0-1) of the host budget that models which are not at work may keep
    kept_share: float

    def pins(self, part: str) -> bool:
        """Whether the part of that name rests in page-locked memory."""
        return self.pinned == "all" or (self.pinned == "transformers" and part.startswith(_TRANSFORMER))


def _row(number: int, meaning: str, *, streamed: bool, pinned: str, kept_share: float) -> Profile:
    return Profile(
        number=number, meaning=meaning, streamed=streamed, overlapped=streamed and pinned != "nothing",
        pinned=pinned, kept_share=kept_share,
    )  # fmt: skip


#: used where none is asked for
AUTOMATIC = _row(-1, "on the GPU as far as it fits", streamed=False, pinned="all", kept_share=1.0)

PROFILES: Mapping[int, Profile] = MappingProxyType(
    {
        1: _row(1, "much RAM, much GPU memory", streamed=False, pinned="all", kept_share=1.0),
        2: _row(2, "much RAM, little GPU memory", streamed=True, pinned="all", kept_share=1.0),
        3: _row(3, "little RAM, much GPU memory", streamed=False, pinned="transformers", kept_share=0.5),
        4: _row(4, "little RAM, little GPU memory", streamed=True, pinned="transformers", kept_share=0.5),
        5: _row(5, "very little of both; slowest", streamed=True, pinned="nothing", kept_share=0.0),
    }
)


def profile_of(number: int) -> Profile:
    """The profile of a number; the automatic one for -1 and 0."""
    return PROFILES.get(number, AUTOMATIC)
