"""Easing curves: their ends, their slopes, their names."""

from __future__ import annotations

import pytest

from source.errors import InvalidInput
from source.planning.easing import EASINGS, easing

TIMES = [n / 50 for n in range(51)]


@pytest.mark.parametrize("name", EASINGS)
def test_every_curve_goes_from_nothing_to_all_without_turning_back(name: str) -> None:
    values = [easing(name)(time) for time in TIMES]
    assert values[0] == pytest.approx(0, abs=1e-3) and values[-1] == pytest.approx(1, abs=1e-3)
    assert values == sorted(values)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in values)


def test_there_are_three_of_each_curve_and_linear() -> None:
    assert len(EASINGS) == 1 + 3 * 6


@pytest.mark.parametrize(
    ("name", "time", "value"),
    [
        ("linear", 0.3, 0.3),
        ("in_quad", 0.5, 0.25),
        ("out_quad", 0.5, 0.75),
        ("in_cubic", 0.5, 0.125),
        ("in_quart", 0.5, 0.0625),
        ("out_quint", 0.5, 1 - 0.5**5),
        ("in_sine", 1 / 3, 1 - 3**0.5 / 2),
        ("in_expo", 0.9, 0.5),
        ("in_out_quad", 0.25, 0.125),
        ("in_out_cubic", 0.75, 1 - 4 * 0.25**3),
    ],
)
def test_values(name: str, time: float, value: float) -> None:
    assert easing(name)(time) == pytest.approx(value)


@pytest.mark.parametrize("name", [name for name in EASINGS if name.startswith("in_out")])
def test_both_ways_is_the_same_forwards_and_backwards(name: str) -> None:
    curve = easing(name)
    assert all(curve(time) + curve(1 - time) == pytest.approx(1, abs=1e-3) for time in TIMES)


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("ease-in", "in_quad"),
        ("ease_out", "out_quad"),
        ("ease-in-out", "in_out_quad"),
        ("ease_in_out", "in_out_quad"),
        (" Ease_In_Out_Cubic ", "in_out_cubic"),
        ("in-out-sine", "in_out_sine"),
    ],
)
def test_other_spellings(name: str, means: str) -> None:
    assert easing(name) is EASINGS[means]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match=r"easing: there is no 'ease_in_cubik'.*'in_cubic'"):
        easing("ease_in_cubik")
