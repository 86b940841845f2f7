"""Still images: what is read, what is refused, and how sizes change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from source.media.images import load_fitted
from Wan2GP.errors import InvalidInput, InvalidMedia
from Wan2GP.media import probe_image, read_image, resize, snap_size, write_image

SAMPLES = Path(__file__).parents[2] / "samples"


def gradient(width: int = 64, height: int = 48) -> np.ndarray:
    """Red rises to the right, green downwards; blue is constant: any swap or turn shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 40)], axis=-1).astype(np.uint8)


def test_png_round_trip_is_exact_rgb(tmp_path: Path) -> None:
    frame = gradient()
    write_image(tmp_path / "a.png", frame)
    assert np.array_equal(read_image(tmp_path / "a.png"), frame)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_jpeg_round_trip_is_close(tmp_path: Path) -> None:
    frame = gradient()
    write_image(tmp_path / "a.jpg", frame)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - frame).mean() < 3


def test_write_refuses_an_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\.png"):
        write_image(tmp_path / "a.xyz", gradient())
    assert not list(tmp_path.iterdir())


def test_probe_describes_a_photo_without_decoding_it() -> None:
    info = probe_image(SAMPLES / "astronaut.jpg")
    assert info.format == "jpeg"
    assert (info.width, info.height) == read_image(SAMPLES / "astronaut.jpg").shape[1::-1]


def test_camera_orientation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated 90 degrees clockwise
    Image.fromarray(gradient(64, 48)).save(tmp_path / "a.png", exif=exif)
    info = probe_image(tmp_path / "a.png")
    assert (info.width, info.height) == (48, 64)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(gradient(64, 48), -1))


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    rgba = np.dstack([gradient(), np.zeros((48, 64), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 128).all()


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(gradient()).convert("RGB").convert(mode).save(path)
    assert read_image(path).shape == (48, 64, 3)


def test_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match=r"nowhere\.png does not exist"):
        probe_image(tmp_path / "nowhere.png")


def test_empty_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(InvalidMedia, match=r"a\.png is empty \(0 bytes\)"):
        probe_image(tmp_path / "a.png")


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMedia, match="is a directory"):
        probe_image(tmp_path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"just some words\n" * 20, "text"),
        (b"<!DOCTYPE html><html>not found</html>", "an HTML page"),
        (b"\x00\x00\x00\x20ftypheic\x00\x00\x00\x00", "an HEIC photo"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x00\x00", "an MP4 or MOV file"),
        (bytes(range(256)), "unknown data"),
    ],
)
def test_a_file_that_is_no_image_says_what_it_is(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(InvalidMedia, match=rf"photo\.png is not an image: it holds {kind}"):
        probe_image(path)


def test_truncated_image_is_refused(tmp_path: Path) -> None:
    data = (SAMPLES / "coffee.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidMedia, match=r"a\.jpg is damaged"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("side", [8100, 10_000, 20_000])
def test_huge_images_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(InvalidMedia, match=r"bomb\.png is .*scale it down"):
        read_image(path)


def test_resize_stretches_without_letterbox() -> None:
    out = resize(gradient(64, 48), (32, 16))
    assert out.shape == (16, 32, 3)
    assert out[0, -1, 0] > 245 and out[-1, 0, 1] > 235


def test_shrinking_averages_areas_so_fine_stripes_become_grey() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, (16, 16)).astype(int) - 128).max() <= 1


def test_resize_to_the_same_size_changes_nothing() -> None:
    frame = gradient()
    assert resize(frame, (64, 48)) is frame


def test_enlarging_keeps_the_picture() -> None:
    big = resize(gradient(64, 48), (256, 192))
    assert np.abs(resize(big, (64, 48)).astype(int) - gradient(64, 48)).mean() < 1.5


def test_resize_refuses_nothing_sized() -> None:
    with pytest.raises(InvalidInput, match="0x5"):
        resize(gradient(), (0, 5))


def test_sizes_snap_down_to_the_block() -> None:
    assert snap_size(902, 508) == (896, 496)
    assert snap_size(832, 480) == (832, 480)
    assert snap_size(33, 35, block=8) == (32, 32)
    with pytest.raises(InvalidInput, match="15x480"):
        snap_size(15, 480)


def test_load_fitted_gives_the_photo_at_the_size() -> None:
    assert load_fitted(SAMPLES / "chelsea.jpg", (208, 112)).shape == (112, 208, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_truncated_images_of_any_kind_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(gradient()).save(path, format=kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InvalidMedia, match=path.name):
        read_image(path)


def test_a_damaged_orientation_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path, exif=b"no such header")
    assert read_image(path).shape == (48, 64, 3)
    assert probe_image(path).width == 64
