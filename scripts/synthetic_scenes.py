"""Rows to try a worker with, and the pictures that they need: drawn here, so that they are the same everywhere.

The four travels: from one image, through three, and from the end of a video to one and to two images. The others are
single rows whose names front ends of this kind of worker know.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from source.media.lettering import font
from source.planning.frames import quantise
from Wan2GP.media import write_video

FPS = 16
Params = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large a scene is."""

    model: str = "vace_14B"
    #: frames of each segment, and those that neighbours share
    frames: int = 81
    overlap: int = 12
    #: (width, height) in pixels
    size: tuple[int, int] = (500, 500)
    seed: int = 11111

    @property
    def resolution(self) -> str:
        return f"{self.size[0]}x{self.size[1]}"


@dataclass(frozen=True)
class Scene:
    """A row with what it needs."""

    name: str
    help: str
    task_type: str
    #: from the scene's folder, its pictures and its scale
    params: Callable[[Path, Scale], Params]
    #: frames of the result, where it is a video
    frames: Callable[[Scale], int] | None = None


def picture(path: Path, number: int, size: tuple[int, int]) -> str:
    """Draw a big number before a gradient of its own colour; the absolute path."""
    width, height = size
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(0.15 + 0.27 * number, 0.6, 0.9))
    board = Image.new("RGB", size, (red, green, blue))
    pen = ImageDraw.Draw(board)
    for row in range(height):
        share = 0.4 + 0.6 * row / height
        pen.line([(0, row), (width, row)], fill=(round(red * share), round(green * share), round(blue * share)))
    pen.text((width / 2, height / 2), str(number), fill="white", font=font(max(min(size) // 2, 8)), anchor="mm")
    board.save(path)
    return str(path.resolve())


def moving_square(path: Path, frames: int, size: tuple[int, int]) -> str:
    """Write a video in which a square goes from left to right; the absolute path. Its sides are even."""
    width, height = size[0] // 2 * 2, size[1] // 2 * 2
    side = max(min(width, height) // 4, 2)

    def drawn() -> Iterator[NDArray[np.uint8]]:
        for index in range(frames):
            frame = np.full((height, width, 3), (40, 60, 110), np.uint8)
            left = round((width - side) * index / max(frames - 1, 1))
            frame[(height - side) // 2 : (height + side) // 2, left : left + side] = (240, 200, 60)
            yield frame

    write_video(path, drawn(), fps=FPS)
    return str(path.resolve())


def _travel(images: int, *, continued: bool = False, **more: Any) -> Callable[[Path, Scale], Params]:
    """A travel to `images` pictures: from one to the next, or from the end of a video to each."""

    def params(folder: Path, scale: Scale) -> Params:
        segments = _segments(images, continued)
        details = {
            "run_id": folder.name,
            "model_name": scale.model,
            "model_type": "vace",
            "num_new_segments_to_generate": segments,
            "input_image_paths_resolved": [
                picture(folder / f"image_{number}.png", number, scale.size) for number in range(1, images + 1)
            ],
            "base_prompts_expanded": ["the number gives way to the next one"] * segments,
            "negative_prompts_expanded": [""] * segments,
            "segment_frames_expanded": [scale.frames] * segments,
            "frame_overlap_expanded": [scale.overlap] * (segments - 1),
            "parsed_resolution_wh": scale.resolution,
            "fps_helpers": FPS,
            "seed_base": scale.seed,
            **more,
        }
        if continued:
            video = moving_square(folder / "before.mp4", scale.frames, scale.size)
            details["continue_from_video_resolved_path"] = video
        return {"orchestrator_details": details}

    return params


def _segments(images: int, continued: bool) -> int:
    return images if continued else max(images - 1, 1)


def _travelled(images: int, *, continued: bool = False) -> Callable[[Scale], int]:
    """Frames of such a travel: of each segment, and of the video before them."""

    def frames(scale: Scale) -> int:
        made = _segments(images, continued) * quantise(scale.frames)
        return made + (scale.frames if continued else 0)

    return frames


#: a row as front ends write it: six steps in two phases
_SEGMENT: Mapping[str, Any] = {
    "model_name": "wan_2_2_i2v_lightning_baseline_2_2_2",
    "model_type": "i2v",
    "base_prompt": "the number gives way to the next one",
    "num_frames": 29,
    "parsed_resolution_wh": "902x508",
    "fps_helpers": FPS,
    "seed_to_use": 42,
    "phase_config": {
        "num_phases": 2, "steps_per_phase": [3, 3], "flow_shift": 5.0, "model_switch_phase": 1,
        "phases": [{"phase": 1, "guidance_scale": 1.0, "loras": []}, {"phase": 2, "guidance_scale": 1.0, "loras": []}],
    },
}  # fmt: skip


def _segment(guided: float | None = None) -> Callable[[Path, Scale], Params]:
    """One segment between two pictures; `guided`: the strength of Uni3C with a video of a camera's way."""

    def params(folder: Path, scale: Scale) -> Params:
        size = (902, 508)
        images = [picture(folder / f"image_{number}.png", number, size) for number in (1, 2)]
        return {**_SEGMENT, "input_image_paths_resolved": images, **_uni3c(folder, guided, size)}

    return params


def _uni3c(folder: Path, strength: float | None, size: tuple[int, int]) -> Params:
    if strength is None:
        return {}
    guide = moving_square(folder / "camera.mp4", 29, size)
    return {"use_uni3c": True, "uni3c_guide_video": guide, "uni3c_strength": strength}


def _guided_travel(folder: Path, scale: Scale) -> Params:
    params = _travel(3, model_type="i2v", model_name=_SEGMENT["model_name"])(folder, scale)
    params["orchestrator_details"] |= _uni3c(folder, 1.0, scale.size)
    return params


def _styled(folder: Path, scale: Scale) -> Params:
    return {
        "style_reference_image": picture(folder / "style.png", 1, scale.size),
        "style_reference_strength": 1.1,
        "prompt": "a number on a wooden table",
        "resolution": scale.resolution,
        "seed": scale.seed,
    }


SCENES: Sequence[Scene] = (
    Scene("one_image", "a travel from one image", "travel_orchestrator", _travel(1), _travelled(1)),
    Scene("three_images", "a travel through three images", "travel_orchestrator", _travel(3), _travelled(3)),
    Scene("continue_to_one", "a travel from the end of a video to an image", "travel_orchestrator",
          _travel(1, continued=True), _travelled(1, continued=True)),
    Scene("continue_to_two", "the same to two images", "travel_orchestrator",
          _travel(2, continued=True), _travelled(2, continued=True)),
    Scene("travel_orchestrator", "a travel between two images", "travel_orchestrator", _travel(2), _travelled(2)),
    Scene("uni3c_baseline", "one segment of Wan 2.2 Lightning, without Uni3C", "individual_travel_segment", _segment(),
          lambda _: 29),
    Scene("uni3c_basic", "the same, with Uni3C", "individual_travel_segment", _segment(1.0), lambda _: 29),
    Scene("uni3c_strength_test", "the same, with weak Uni3C", "individual_travel_segment", _segment(0.5), lambda _: 29),
    Scene("travel_orchestrator_uni3c", "a travel with Uni3C", "travel_orchestrator", _guided_travel, _travelled(3)),
    Scene("qwen_image_style", "an image in the style of another", "qwen_image_style", _styled),
)  # fmt: skip
#: those that are made when none is named
TRAVELS = tuple(scene.name for scene in SCENES[:4])
