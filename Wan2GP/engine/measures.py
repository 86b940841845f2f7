"""Size, length and rate of what a call asks for, by the rules of its model. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.numbers import Numbers
from Wan2GP.errors import InvalidInput
from Wan2GP.media import probe_video, snap_size


def size_of(resolution: Any, definition: ModelDefinition, image_output: bool) -> tuple[int, int]:
    """ "832x480" -> (832, 480), floored to the model's pixel block; of a video to even sides at least."""
    width, _, height = str(resolution).lower().partition("x")
    if not (width.strip().isdigit() and height.strip().isdigit()):
        raise InvalidInput(f"{resolution!r} is not a size; write WIDTHxHEIGHT, for example 832x480", field="resolution")
    block = definition.architecture.pixel_block
    return snap_size(int(width), int(height), block if image_output else math.lcm(block, 2))


def enlarged_size(size: tuple[int, int], scale: float, definition: ModelDefinition) -> tuple[int, int]:
    """(width, height) of a still's second pass: the first one's times the scale, floored to the model's pixel block."""
    block = definition.architecture.pixel_block
    width, height = (int(side * scale) // block * block for side in size)
    return width, height


def length_of(asked_frames: int, definition: ModelDefinition) -> tuple[int, tuple[str, ...]]:
    """The length frame_step * k + 1 that stands for the one asked for (20 -> 21, 82 -> 81), and at least what the model
    can do; with a note when it changes."""
    step, least = definition.architecture.frame_step, definition.architecture.min_frames
    if asked_frames < least:
        return least, (f"video_length raised from {asked_frames} to {least}, the least that {definition.id} can do",)
    made = asked_frames // step * step + 1 if step > 1 else asked_frames
    if made == asked_frames:
        return made, ()
    return made, (f"video_length changed from {asked_frames} to {made}: {definition.id} makes {step} * k + 1 frames",)


def rate_of(settings: Mapping[str, Any], definition: ModelDefinition) -> float:
    """The model's own rate, a given one, or that of the control or source video."""
    choice = str(settings["force_fps"]).strip().lower()
    own = float(definition.architecture.fps)
    if not choice:
        return own
    orders = {"auto": ("video_guide", "video_source"), "control": ("video_guide",), "source": ("video_source",)}
    if choice in orders:
        media = next((settings[name] for name in orders[choice] if settings[name]), None)
        return float(probe_video(Path(media)).fps) if media else own
    rate = Numbers({"force_fps": choice}).real("force_fps")
    if not 1 <= rate <= 240:
        raise InvalidInput(f"must be from 1 to 240 frames per second, not {choice}", field="force_fps")
    return rate


def frames_of_a_still(numbers: Numbers, letters: str, definition: ModelDefinition) -> int:
    """Frames that a model of videos draws for one still. 1000 and more: always that many less 1000; else that many when
    references or a control image steer it."""
    wanted = numbers.whole("min_frames_if_references", 1)
    step = definition.architecture.frame_step
    frames = wanted - 1000 if wanted >= 1000 else wanted if set("IV") & set(letters) else 1
    return max(frames, 1) // step * step + 1 if frames > 1 else 1
