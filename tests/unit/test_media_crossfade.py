"""Cross-fade weights and blending."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from source.media.crossfade import Crossfade, blend, sharpen, sharpen_planes, weights
from Wan2GP.errors import InvalidInput


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_ease_follows_the_cosine() -> None:
    expected = [(1 - math.cos(math.pi * (k + 1) / 12)) / 2 for k in range(12)]
    assert weights(12, "ease") == pytest.approx(expected)


def test_linear_follows_the_line() -> None:
    assert weights(4, "linear") == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert weights(4, "linear_sharp") == pytest.approx(weights(4, "linear"))


@pytest.mark.parametrize("mode", ["ease", "linear"])
@pytest.mark.parametrize("count", [1, 2, 5, 16, 80])
def test_weights_rise_to_exactly_one(mode: str, count: int) -> None:
    alphas = weights(count, mode)  # type: ignore[arg-type]
    assert len(alphas) == count
    assert (np.diff(alphas) > 0).all() and alphas[0] > 0
    assert alphas[-1] == 1.0


def test_no_frames_have_no_weights() -> None:
    assert len(weights(0)) == 0


def test_blend_is_the_rounded_mean() -> None:
    a, b = noise((48, 64, 3), 1), noise((48, 64, 3), 2)
    exact = 0.3 * a.astype(float) + 0.7 * b
    assert np.abs(blend(a, b, 0.7) - exact).max() <= 0.5 + 1e-4
    assert np.array_equal(blend(a, b, 1.0), b)
    assert np.array_equal(blend(a, b, 0.0), a)


def test_blending_planes_equals_blending_rgb() -> None:
    a, b = cv2.blur(noise((64, 64, 3), 3), (9, 9)), cv2.blur(noise((64, 64, 3), 4), (9, 9))
    planes = [cv2.cvtColor(x, cv2.COLOR_RGB2YUV_I420) for x in (a, b)]
    by_planes = cv2.cvtColor(blend(planes[0], planes[1], 0.4), cv2.COLOR_YUV2RGB_I420)
    by_rgb = cv2.cvtColor(cv2.cvtColor(blend(a, b, 0.4), cv2.COLOR_RGB2YUV_I420), cv2.COLOR_YUV2RGB_I420)
    assert np.abs(by_planes.astype(int) - by_rgb).max() <= 4


def test_sharpen_is_the_unsharp_formula() -> None:
    frame = cv2.blur(noise((48, 64, 3), 5), (5, 5))
    soft = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 3)
    expected = np.clip(1.3 * frame - 0.3 * soft, 0, 255)
    assert np.abs(sharpen(frame, 0.3) - expected).max() <= 1


def test_sharpening_keeps_flat_areas() -> None:
    flat = np.full((48, 64), 93, np.uint8)
    assert np.array_equal(sharpen(flat, 0.5), flat)
    assert np.array_equal(sharpen_planes(flat, 0.5), flat)


def test_sharp_mode_sharpens_more_as_the_second_clip_comes_in() -> None:
    picture = cv2.blur(noise((96, 64), 6), (5, 5))
    out = list(Crossfade("linear_sharp", 0.5).planes([picture] * 4, [picture] * 4, 4))
    changes = [np.abs(frame.astype(int) - picture).mean() for frame in out]
    assert changes == sorted(changes) and changes[0] > 0


@pytest.mark.parametrize("fade", [Crossfade("ease"), Crossfade("linear"), Crossfade("linear_sharp", 0.0)])
def test_a_fade_ends_on_the_second_clip(fade: Crossfade) -> None:
    a, b = [noise((96, 64), i) for i in range(5)], [noise((96, 64), 10 + i) for i in range(5)]
    alphas = weights(5, fade.mode)
    assert np.array_equal(blend(a[4], b[4], float(alphas[4])), b[4]), "so the last frame needs no mixing"
    out = list(fade.planes(a[:4], b[:4], 5))
    assert (len(out), fade.mixed_frames(5)) == (4, 4)
    assert all(np.array_equal(out[k], blend(a[k], b[k], float(alphas[k]))) for k in range(4))


def test_an_unknown_mode_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'linear'"):
        Crossfade("liner")  # type: ignore[arg-type]
