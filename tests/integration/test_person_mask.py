"""Masks of people on photos, held against outlines drawn by hand; through the engine and through create_mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from engine_runs import run_engine
from fetched import fetched
from worker_floor import Floor

from headless.orchestrator import WanOrchestrator
from source.store.types import Status
from source.task_registry import registry
from Wan2GP import wgp
from Wan2GP.errors import InvalidInput, ModelUnavailable
from Wan2GP.media import Frame, probe_video, read_frames, read_image, write_image, write_video

#: outlines of the person and what they hold, corner by corner, in pixels of samples/NAME.jpg
ASTRONAUT = [
    (155, 85), (172, 48), (212, 18), (255, 20), (290, 45), (302, 88), (285, 125), (262, 150), (256, 180), (295, 212),
    (306, 246), (342, 272), (360, 320), (363, 352), (395, 345), (440, 352), (482, 388), (497, 440), (509, 488),
    (509, 511), (20, 511), (22, 398), (28, 350), (50, 270), (112, 210), (118, 180), (148, 156), (184, 150), (182, 122),
    (160, 108),
]  # fmt: skip
CAMERA = [
    (0, 252), (60, 162), (128, 122), (160, 104), (166, 84), (200, 66), (240, 76), (268, 104), (272, 132), (262, 150),
    (322, 148), (334, 176), (328, 212), (298, 236), (286, 282), (250, 312), (206, 298), (140, 380), (150, 511),
    (0, 511),
]  # fmt: skip


@pytest.fixture
def checkpoints() -> Path:
    """Where the network is."""
    return fetched("person_mask")


@pytest.fixture
def engine(checkpoints: Path, tmp_path: Path) -> Iterator[None]:
    wgp.configure(checkpoints=checkpoints, save_path=tmp_path / "out", device="cpu", definitions=[])
    yield
    wgp.release_model()


def mask(photo: Frame, **knobs: object) -> Frame:
    size = f"{photo.shape[1]}x{photo.shape[0]}"
    asked = {"image_mode": 1, "image_guide": photo, "resolution": size} | knobs
    return read_image(run_engine(model_type="person_mask", **asked).files[0])


def overlap(found: Frame, outline: list[tuple[int, int]]) -> float:
    """Intersection over union of a mask and an outline."""
    wanted = np.zeros(found.shape[:2], np.uint8)
    cv2.fillPoly(wanted, [np.array(outline)], 1)
    selected = found[..., 0] > 127
    return float((selected & (wanted > 0)).sum() / (selected | (wanted > 0)).sum())


@pytest.mark.parametrize(("name", "outline"), [("astronaut", ASTRONAUT), ("camera", CAMERA)])
def test_a_photo_of_a_person_gets_the_outline_that_a_hand_drew(engine, root: Path, name: str, outline) -> None:
    found = mask(read_image(root / "samples" / f"{name}.jpg"))
    assert set(np.unique(found)) == {0, 255}
    assert overlap(found, outline) > 0.9


def test_a_photo_without_a_person_stays_black(engine, root: Path) -> None:
    assert not mask(read_image(root / "samples" / "rocket.jpg")).any()


def test_letter_n_selects_the_surroundings_and_a_feather_fades_the_edge(engine, root: Path) -> None:
    photo = read_image(root / "samples" / "astronaut.jpg")
    plain = mask(photo)
    assert np.array_equal(mask(photo, video_prompt_type="N"), 255 - plain)
    soft = mask(photo, mask_feather=8)
    changed = (soft != plain)[..., 0]
    near = cv2.morphologyEx(plain[..., 0], cv2.MORPH_GRADIENT, np.ones((19, 19), np.uint8)) > 0
    assert changed.any() and not (changed & ~near).any()


def test_a_bad_feather_and_missing_weights_are_named(engine, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="mask_feather"):
        mask(read_image(root / "samples" / "camera.jpg"), mask_feather=500)
    wgp.configure(checkpoints=tmp_path)
    with pytest.raises(ModelUnavailable, match="models fetch person_mask"):
        mask(read_image(root / "samples" / "camera.jpg"))


def test_create_mask_follows_a_person_through_a_video_without_clicks(checkpoints, root: Path, tmp_path: Path) -> None:
    photo = read_image(root / "samples" / "astronaut.jpg")
    frames = [np.roll(photo, 12 * number, axis=1) for number in range(4)]
    video = write_video(tmp_path / "person.mp4", frames, fps=25).path
    floor = Floor(tmp_path, WanOrchestrator(checkpoints=checkpoints, device="cpu"))
    still = write_image(tmp_path / "person.png", photo)
    tasks = [
        floor.add("create_mask", model="person_mask", video=str(video)),
        floor.add("create_mask", model="person_mask", image=str(still), invert=True),
    ]
    assert floor.worker(registry=registry()).run(until_idle=True) == 0
    rows = [floor.store.get(task) for task in tasks]
    files = [floor.output(task) for task in tasks]
    floor.close()
    assert [row.status for row in rows] == [Status.COMPLETE] * 2, rows
    info = probe_video(files[0])
    assert (info.num_frames, info.width, info.height, info.fps) == (4, 512, 512, 25)
    for number, found in enumerate(read_frames(files[0])):
        moved = [(min(511, x + 12 * number), y) for x, y in ASTRONAUT]
        assert overlap(found, moved) > 0.85
    assert overlap(255 - read_image(files[1]), ASTRONAUT) > 0.9
