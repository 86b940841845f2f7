"""Film grain, measured: its spread, its colour, its mean, and that a seed always gives the same."""

from __future__ import annotations

import numpy as np
import pytest

from Wan2GP.engine.grain import STRENGTH, Grain


def grey(level: int, width: int = 160, height: int = 120) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def moved(level: int, number: int = 0, **values: float) -> np.ndarray:
    """How far each channel of a plain grey was moved, (H, W, 3)."""
    grain = Grain(**{"intensity": 0.5, "saturation": 0.5, "seed": 7} | values)
    return grain.on(grey(level), number).astype(int) - level


@pytest.mark.parametrize("saturation", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("level", "share"), [(128, 1.0), (64, 0.75), (32, 0.44), (220, 0.475)])
def test_it_is_as_strong_as_it_says_whatever_its_colour(saturation: float, level: int, share: float) -> None:
    noise = moved(level, saturation=saturation)
    assert noise.std(axis=(0, 1)) == pytest.approx(0.5 * STRENGTH * share, rel=0.05)


@pytest.mark.parametrize("level", [16, 64, 128, 192, 240])
def test_the_mean_is_kept(level: int) -> None:
    assert abs(moved(level, intensity=0.3).mean()) < 0.3


def test_black_stays_black_and_white_white() -> None:
    assert not moved(0, intensity=1.0).any()
    assert not moved(255, intensity=1.0).any()


def test_saturation_is_how_far_the_channels_differ() -> None:
    def alike(saturation: float) -> float:
        noise = moved(128, saturation=saturation)
        return float(np.corrcoef(noise[..., 0].ravel(), noise[..., 2].ravel())[0, 1])

    assert alike(0.0) == pytest.approx(1)
    assert alike(0.5) == pytest.approx(0.5, abs=0.03)
    assert alike(1.0) == pytest.approx(0, abs=0.03)


def test_a_seed_always_gives_the_same_and_every_frame_another() -> None:
    assert np.array_equal(moved(128, 3), moved(128, 3))
    others = [moved(128, 4), moved(128, 3, seed=8)]
    for other in others:
        assert abs(np.corrcoef(moved(128, 3).ravel(), other.ravel())[0, 1]) < 0.03


def test_none_is_none() -> None:
    frame = grey(128)
    assert Grain(0.0, 1.0, 7).on(frame, 0) is frame
