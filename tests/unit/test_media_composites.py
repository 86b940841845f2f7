"""Masks and composites, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from source.errors import InvalidMedia
from source.media.composites import at_size, drawn_within, mask_at, painted_green
from Wan2GP.media import read_mask

RANDOM = np.random.default_rng(3)
PHOTO = RANDOM.integers(0, 256, (40, 60, 3), np.uint8)


def test_white_is_painted_green_and_nothing_else_changes() -> None:
    brightness = RANDOM.integers(0, 256, (40, 60), np.uint8)
    made = painted_green(PHOTO, mask_at(brightness, (60, 40)))
    white = brightness >= 128
    assert 0 < white.sum() < white.size
    assert (made[white] == (0, 255, 0)).all()
    assert np.array_equal(made[~white], PHOTO[~white])


@pytest.mark.parametrize(("value", "white"), [(0, False), (127, False), (128, True), (255, True)])
def test_a_mask_is_white_from_128(value: int, white: bool) -> None:
    assert mask_at(np.full((4, 4), value, np.uint8), (4, 4)).all() == white


def test_a_mask_is_brought_to_the_images_size() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 10:20] = 255
    larger = mask_at(mask, (60, 40))
    assert larger.shape == (40, 60)
    assert larger[12:28, 22:38].all() and larger.sum() == pytest.approx(20 * 20, rel=0.1)
    assert np.array_equal(mask_at(np.repeat(np.repeat(mask, 2, 0), 2, 1), (30, 20)), mask > 0)


def test_a_picture_is_shrunk_by_lanczos_and_left_alone_at_its_own_size() -> None:
    assert at_size(PHOTO, (60, 40)) is PHOTO
    wanted = np.asarray(Image.fromarray(PHOTO).resize((30, 20), Image.Resampling.LANCZOS))
    assert np.array_equal(at_size(PHOTO, (30, 20)), wanted)


def test_what_the_mask_spares_is_the_source_pixel_for_pixel() -> None:
    drawn = RANDOM.integers(0, 256, PHOTO.shape, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:50] = 255
    made = drawn_within(drawn, PHOTO, mask)
    assert np.array_equal(made[mask > 0], drawn[mask > 0])
    assert np.array_equal(made[mask == 0], PHOTO[mask == 0])


def test_a_source_of_another_size_is_brought_to_the_results() -> None:
    drawn, mask = np.zeros((20, 30, 3), np.uint8), np.zeros((40, 60), np.uint8)
    assert np.array_equal(drawn_within(drawn, PHOTO, mask), at_size(PHOTO, (30, 20)))


@pytest.mark.parametrize(
    ("mode", "colour", "brightness"),
    [
        ("L", 200, 200),
        ("RGB", (255, 0, 0), 76),
        ("RGBA", (255, 255, 255, 255), 255),
        ("RGBA", (255, 255, 255, 0), 0),
        ("RGBA", (0, 0, 0, 0), 0),
        ("RGBA", (255, 255, 255, 128), 128),
        ("LA", (255, 0), 0),
        ("1", 1, 255),
        ("I;16", 65535, 255),
    ],
)
def test_the_transparent_parts_of_a_mask_are_black(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], brightness: int
) -> None:
    Image.new(mode, (3, 2), colour).save(tmp_path / "mask.png")
    read = read_mask(tmp_path / "mask.png")
    assert (read.shape, read.dtype) == ((2, 3), np.uint8)
    assert (read == brightness).all()


def test_a_mask_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    picture, marks = Image.new("L", (4, 2)), Image.Exif()
    marks[0x0112] = 6
    picture.save(tmp_path / "mask.jpg", exif=marks)
    assert read_mask(tmp_path / "mask.jpg").shape == (4, 2)


def test_a_mask_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("no picture")
    with pytest.raises(InvalidMedia, match="not an image"):
        read_mask(tmp_path / "mask.png")
