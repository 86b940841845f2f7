"""What is done to frames after the model: names, counts, rates and sizes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.post_processing import PostProcessing, round_half_up


def of(**settings: object) -> PostProcessing:
    return PostProcessing.of(settings)


@pytest.mark.parametrize(("name", "times"), [("", 1), ("rife2", 2), ("rife4", 4)])
@pytest.mark.parametrize("made", [1, 2, 5, 17, 81])
def test_every_frame_of_the_model_stays_at_its_moment(name: str, times: int, made: int) -> None:
    done = of(temporal_upsampling=name)
    places = range(0, done.num_frames(made), times)
    assert len(places) == made
    assert [Fraction(place) / Fraction(done.fps(16)) for place in places] == [Fraction(n, 16) for n in range(made)]
    assert 0 <= made / 16 - done.num_frames(made) / done.fps(16) < 1 / 16


def test_lengths_of_the_wan_family_stay_lengths_of_the_wan_family() -> None:
    assert all(of(temporal_upsampling="rife2").num_frames(4 * k + 1) % 4 == 1 for k in range(30))


@pytest.mark.parametrize(
    ("name", "size", "made"),
    [
        ("", (100, 52), (100, 52)),
        ("lanczos1.5", (832, 480), (1248, 720)),
        ("lanczos1.5", (848, 480), (1280, 720)),  # 1272 lies halfway between 1264 and 1280
        ("lanczos2", (832, 480), (1664, 960)),
        ("lanczos2.0", (832, 480), (1664, 960)),
        ("lanczos3", (64, 48), (192, 144)),
        ("lanczos4", (64, 48), (256, 192)),
        ("lanczos1", (100, 52), (96, 48)),
        ("lanczos1.25", (64, 48), (80, 64)),
    ],
)
def test_sizes_are_rounded_to_sixteen(name: str, size: tuple[int, int], made: tuple[int, int]) -> None:
    assert of(spatial_upsampling=name).size(size) == made


def test_a_size_beyond_what_can_be_written_is_refused() -> None:
    with pytest.raises(InvalidInput, match="16384x4096") as caught:
        of(spatial_upsampling="lanczos4").size((4096, 1024))
    assert caught.value.field == "spatial_upsampling"


@pytest.mark.parametrize("name", ["vae2", "flashvsr2", "flashvsr2pass2", "seedvr2", "ltx232"])
def test_models_that_are_not_there_are_refused_as_such(name: str) -> None:
    with pytest.raises(Unsupported, match=rf"spatial_upsampling: '{name}' needs a model.*lanczos2"):
        of(spatial_upsampling=name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spatial_upsampling", "lanczos"),
        ("spatial_upsampling", "lanczos5"),
        ("spatial_upsampling", "lanczos0.5"),
        ("spatial_upsampling", "bicubic2"),
        ("temporal_upsampling", "rife3"),
        ("temporal_upsampling", "2"),
        ("film_grain_intensity", 1.5),
        ("film_grain_intensity", float("nan")),
        ("film_grain_saturation", -0.1),
        ("film_grain_saturation", "much"),
    ],
)
def test_what_means_nothing_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        of(**{name: value})
    assert caught.value.field == name


def test_nothing_asked_is_nothing_done() -> None:
    assert of().changes_nothing
    assert of(film_grain_saturation=1.0, film_grain_intensity=0, temporal_upsampling=None).changes_nothing
    assert not of(spatial_upsampling="lanczos1").changes_nothing
    assert not of(film_grain_intensity=0.1).changes_nothing


def test_halves_are_rounded_up() -> None:
    assert [round_half_up(Fraction(n, 2)) for n in range(6)] == [0, 1, 1, 2, 2, 3]
