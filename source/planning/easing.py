"""Easing: how far a movement has come after a share of its time. Pure.

`linear`, and of each curve below one that begins slowly (`in_quad`), one that ends slowly (`out_quad`) and one that
does both (`in_out_quad`); Penner, "Motion, Tweening, and Easing", 2002. All go from 0 to 1 without turning back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from source.errors import InvalidInput
from Wan2GP.errors import did_you_mean

Curve: TypeAlias = Callable[[float], float]


def _power(exponent: int) -> Curve:
    return lambda time: float(time**exponent)


def _sine(time: float) -> float:
    return 1 - math.cos(time * math.pi / 2)


def _expo(time: float) -> float:
    return 0.0 if time <= 0 else float(2 ** (10 * (time - 1)))


#: curve -> its slow beginning
_IN: Mapping[str, Curve] = {
    "quad": _power(2), "cubic": _power(3), "quart": _power(4), "quint": _power(5), "sine": _sine, "expo": _expo,
}  # fmt: skip


def _out(curve: Curve) -> Curve:
    return lambda time: 1 - curve(1 - time)


def _in_out(curve: Curve) -> Curve:
    return lambda time: curve(2 * time) / 2 if time < 0.5 else 1 - curve(2 * (1 - time)) / 2


EASINGS: Mapping[str, Curve] = {
    "linear": lambda time: time,
    **{f"in_{name}": curve for name, curve in _IN.items()},
    **{f"out_{name}": _out(curve) for name, curve in _IN.items()},
    **{f"in_out_{name}": _in_out(curve) for name, curve in _IN.items()},
}

#: names without a curve mean the mildest one
_SHORT = {"in": "in_quad", "out": "out_quad", "in_out": "in_out_quad"}


def easing(name: str, field: str = "easing") -> Curve:
    """The curve of a name: `linear`, `in_out_cubic`, `ease-in`, `ease_in_out` … Raises InvalidInput for others."""
    wanted = name.strip().lower().replace("-", "_").removeprefix("ease_")
    found = EASINGS.get(_SHORT.get(wanted, wanted))
    if found is None:
        raise InvalidInput(
            f"there is no {name!r}.{did_you_mean(wanted, EASINGS)} Use linear, ease_in, ease_out, ease_in_out, or one "
            f"of {', '.join(_IN)} with in_, out_ or in_out_ before it",
            field=field,
        )
    return found
