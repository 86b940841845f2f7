"""What is done to the frames that a model made, by which names it is asked for, and what becomes of counts and sizes.

In this order: frames between the frames, larger pictures, film grain. Pure arithmetic: the frames themselves are
drawn in `engine/finishing.py`.

    temporal_upsampling   rife2, rife4     n frames become m (n - 1) + 1 at m times the rate
    spatial_upsampling    lanczos1.5 …     both sides times 1 to 4, rounded to multiples of 16
    film_grain_intensity, film_grain_saturation
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from Wan2GP.errors import InvalidInput, Unsupported

#: name -> steps of the result for each step of the model
TEMPORAL = {"": 1, "rife2": 2, "rife4": 4}
#: least and greatest factor of a side
FACTORS = (Fraction(1), Fraction(4))
#: sides of an enlarged picture are multiples of this, in pixels
BLOCK = 16
#: limits of an enlarged picture
MAX_SIDE = 8192
MAX_PIXELS = 64_000_000
#: the settings that are read here
SETTINGS = ("temporal_upsampling", "spatial_upsampling", "film_grain_intensity", "film_grain_saturation")

_LANCZOS = re.compile(r"lanczos(\d(?:\.\d{1,3})?)")
#: spatial upsamplers of other engines: they are models, none of which is here
_MODELS = ("vae", "flashvsr", "seedvr", "ltx", "coz", "flux", "qwen")


@dataclass(frozen=True, kw_only=True)
class PostProcessing:
    """What is done to the frames of a run. The defaults change nothing."""

    #: steps of the result for each step of the model
    times: int = 1
    #: factor of width and height; None leaves the size as it is
    factor: Fraction | None = None
    #: 0 none … 1 strong
    grain: float = 0.0
    #: 0 grey … 1 each colour for itself
    grain_saturation: float = 0.5

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """What a call's settings ask for; names that are absent or None ask for nothing.

        Raises Unsupported for a method that is not there, InvalidInput for a value that means nothing.
        """
        return cls(
            times=_times(str(settings.get("temporal_upsampling") or "")),
            factor=_factor(str(settings.get("spatial_upsampling") or "")),
            grain=_share(settings, "film_grain_intensity", 0.0),
            grain_saturation=_share(settings, "film_grain_saturation", 0.5),
        )

    @property
    def changes_nothing(self) -> bool:
        return self == PostProcessing(grain_saturation=self.grain_saturation)

    def num_frames(self, made: int) -> int:
        """Frames of the result, of `made` by the model. Every frame of the model stays, at the moment it was; the last
        one is shown for the shorter time that a frame has now."""
        return self.times * (made - 1) + 1

    def fps(self, made: float) -> float:
        """Frames per second of the result."""
        return made * self.times

    def size(self, made: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the result in pixels. Raises InvalidInput when that is too large."""
        if self.factor is None:
            return made
        width, height = (max(round_half_up(side * self.factor / BLOCK), 1) * BLOCK for side in made)
        if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
            raise InvalidInput(
                f"would make {width}x{height} of {made[0]}x{made[1]}; at most {MAX_SIDE} pixels a side and "
                f"{MAX_PIXELS // 1_000_000} megapixels; use a smaller factor",
                field="spatial_upsampling",
            )
        return width, height


def round_half_up(number: Fraction) -> int:
    """The nearest whole number; of two the larger."""
    return (2 * number.numerator + number.denominator) // (2 * number.denominator)


def _times(name: str) -> int:
    if name not in TEMPORAL:
        raise Unsupported(
            f"there is no {name!r}; use {' or '.join(each for each in TEMPORAL if each)}, or leave it out",
            field="temporal_upsampling",
        )
    return TEMPORAL[name]


def _factor(name: str) -> Fraction | None:
    if not name:
        return None
    found = _LANCZOS.fullmatch(name)
    if found is None:
        what = f"{name!r} needs a model that is not there" if name.startswith(_MODELS) else f"there is no {name!r}"
        raise Unsupported(f"{what}; use lanczos1.5, lanczos2 … lanczos4, or leave it out", field="spatial_upsampling")
    factor = Fraction(found[1])
    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise InvalidInput(f"enlarges 1 to 4 times, not {found[1]} times", field="spatial_upsampling")
    return factor


def _share(settings: Mapping[str, Any], name: str, default: float) -> float:
    value = settings.get(name)
    try:
        share = default if value is None else float(value)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 1:
        raise InvalidInput(f"must be a number from 0 to 1, not {value!r:.80}", field=name)
    return share
