"""The keyword arguments of the generation call, parsed once into typed values. No torch here."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from Wan2GP.definitions import ModelDefinition
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.media import Frame, probe_video, read_image, snap_size
from Wan2GP.parameters import CONTENT, PARAMETERS, PLUMBING, asked

#: seeds drawn at random are below this, so that they can be read and typed
MAX_RANDOM_SEED = 1_000_000_000

#: what the call itself uses, whatever the model
_USED_BY_THE_CALL = frozenset(
    {"resolution", "video_length", "force_fps", "repeat_generation", "image_mode", "image_prompt_type"}
)

#: content parameter -> the input that an architecture declares for it
_INPUT_OF = {
    "image_start": "image_start",
    "image_end": "image_end",
    "video_source": "video_source",
    "image_refs": "references",
    "video_guide": "control_video",
    "video_mask": "mask",
    "activated_loras": "loras",
}


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What one run shall make. Sizes and lengths already obey the model's rules."""

    definition: ModelDefinition
    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_frames: int
    fps: float
    #: 0 or more
    seed: int
    #: how often to run; further runs draw a new seed
    repeats: int
    num_inference_steps: int
    guidance_scale: float
    flow_shift: float
    sample_solver: str
    #: stills instead of a video, `batch_size` of them
    image_output: bool
    batch_size: int
    image_start: Frame | None
    image_end: Frame | None
    video_guide: Path | None
    video_mask: Path | None
    video_prompt_type: str
    #: every setting as it applies, for the record of the file
    settings: Mapping[str, Any]
    #: what the caller should know: values that were changed, options that are ignored
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def repeated(self) -> GenerationRequest:
        """The same request with a new random seed."""
        return replace(self, seed=_random_seed())


def parse_request(values: Mapping[str, Any], definition: ModelDefinition, reads: frozenset[str]) -> GenerationRequest:
    """Defaults < the model's settings < what the caller asked for.

    `reads` names the parameters that the model's family uses. Raises Unsupported for content that it does not, and
    InvalidInput for values that cannot be used; other unused parameters become a note.
    """
    wanted = (asked(values) | asked(definition.settings)) - PLUMBING
    _refuse_unusable(wanted, definition, reads)
    settings = _effective(values, definition)
    numbers = _Numbers(settings)
    _refuse_inpainting(numbers, reads)
    image_output = numbers.whole("image_mode", 0, 2) > 0 or definition.architecture.image_output
    width, height = _size(settings["resolution"], definition)
    num_frames, notes = (1, ()) if image_output else _num_frames(numbers.whole("video_length", 1), definition)
    ignored = _ignored(wanted, definition, reads if image_output else reads - {"batch_size"})
    return GenerationRequest(
        definition=definition,
        prompt=str(settings["prompt"]),
        negative_prompt=str(settings["negative_prompt"]),
        width=width,
        height=height,
        num_frames=num_frames,
        fps=_fps(settings, definition),
        seed=_seed(numbers.whole("seed", -1, 2**63 - 1)),
        repeats=numbers.whole("repeat_generation", 1, 25),
        num_inference_steps=numbers.whole("num_inference_steps", 1, 1000),
        guidance_scale=numbers.real("guidance_scale"),
        flow_shift=numbers.real("flow_shift"),
        sample_solver=str(settings["sample_solver"]),
        image_output=image_output,
        batch_size=numbers.whole("batch_size", 1, 64) if image_output else 1,
        image_start=_picture(settings["image_start"], "image_start"),
        image_end=_picture(settings["image_end"], "image_end"),
        video_guide=_path(settings["video_guide"], "video_guide"),
        video_mask=_path(settings["video_mask"], "video_mask"),
        video_prompt_type=str(settings["video_prompt_type"]),
        settings=settings,
        notes=(*notes, *ignored),
    )


def _refuse_unusable(wanted: frozenset[str], definition: ModelDefinition, reads: frozenset[str]) -> None:
    always_on = {"activated_loras"} if definition.model.get("loras") else set()
    for name in sorted((wanted | always_on) & CONTENT - reads):
        taken = _INPUT_OF.get(name) in definition.architecture.inputs
        reason = "cannot use it in this version" if taken else "does not take it"
        raise Unsupported(
            f"the model {definition.id} {reason}; leave it out or choose another model "
            f"(it takes: {', '.join(sorted(definition.architecture.inputs))})",
            field=name,
        )


def _refuse_inpainting(numbers: _Numbers, reads: frozenset[str]) -> None:
    if numbers.whole("image_mode", 0, 2) == 2 and "image_mask" not in reads:
        raise Unsupported("2, image inpainting, is not there in this version; use 0 or 1", field="image_mode")


def _ignored(wanted: frozenset[str], definition: ModelDefinition, reads: frozenset[str]) -> tuple[str, ...]:
    names = sorted(wanted - reads - _USED_BY_THE_CALL - CONTENT)
    return (f"ignored by {definition.id}: {', '.join(names)}",) if names else ()


def _effective(values: Mapping[str, Any], definition: ModelDefinition) -> dict[str, Any]:
    settings = {name: parameter.default for name, parameter in PARAMETERS.items() if name not in PLUMBING}
    settings |= definition.settings
    return settings | {name: value for name, value in values.items() if name in settings and value is not None}


class _Numbers:
    """Reads numbers out of settings; text that is a number will do."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def real(self, name: str) -> float:
        try:
            number = float(self._settings[name])
        except (TypeError, ValueError):
            raise InvalidInput(f"must be a number, not {self._settings[name]!r}", field=name) from None
        if not math.isfinite(number):
            raise InvalidInput(f"must be a finite number, not {number}", field=name)
        return number

    def whole(self, name: str, least: int, most: int | None = None) -> int:
        number = self.real(name)
        if number != int(number) or number < least or (most is not None and number > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise InvalidInput(f"must be a whole number, {bounds}, not {self._settings[name]!r}", field=name)
        return int(number)


def _size(resolution: Any, definition: ModelDefinition) -> tuple[int, int]:
    """ "832x480" -> (832, 480), floored to the model's pixel block."""
    width, _, height = str(resolution).lower().partition("x")
    if not (width.strip().isdigit() and height.strip().isdigit()):
        raise InvalidInput(f"{resolution!r} is not a size; write WIDTHxHEIGHT, for example 832x480", field="resolution")
    return snap_size(int(width), int(height), definition.architecture.pixel_block)


def _num_frames(asked_frames: int, definition: ModelDefinition) -> tuple[int, tuple[str, ...]]:
    """The length frame_step * k + 1 that stands for the one asked for (20 -> 21, 82 -> 81), and at least what the model
    can do; with a note when it changes."""
    step, least = definition.architecture.frame_step, definition.architecture.min_frames
    if asked_frames < least:
        return least, (f"video_length raised from {asked_frames} to {least}, the least that {definition.id} can do",)
    made = asked_frames // step * step + 1
    if made == asked_frames:
        return made, ()
    return made, (f"video_length changed from {asked_frames} to {made}: {definition.id} makes {step} * k + 1 frames",)


def _fps(settings: Mapping[str, Any], definition: ModelDefinition) -> float:
    """The model's own rate, a given one, or that of the control or source video."""
    choice = str(settings["force_fps"]).strip().lower()
    own = float(definition.architecture.fps)
    if not choice:
        return own
    orders = {"auto": ("video_guide", "video_source"), "control": ("video_guide",), "source": ("video_source",)}
    if choice in orders:
        media = next((settings[name] for name in orders[choice] if settings[name]), None)
        return float(probe_video(Path(media)).fps) if media else own
    rate = _Numbers({"force_fps": choice}).real("force_fps")
    if not 1 <= rate <= 240:
        raise InvalidInput(f"must be from 1 to 240 frames per second, not {choice}", field="force_fps")
    return rate


def _seed(seed: int) -> int:
    return _random_seed() if seed < 0 else seed


def _random_seed() -> int:
    return secrets.randbelow(MAX_RANDOM_SEED)


def _picture(value: Any, field: str) -> Frame | None:
    """A path, a PIL image, an array, or a list of one of these -> RGB uint8."""
    if isinstance(value, (list, tuple)):
        if len(value) > 1:
            raise Unsupported(f"takes one image, not {len(value)}", field=field)
        value = value[0] if value else None
    if value is None:
        return None
    if isinstance(value, (str, Path)):
        return read_image(Path(value))
    picture = np.asarray(value.convert("RGB") if hasattr(value, "convert") else value)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InvalidInput(
            f"must be a path, a PIL image or an RGB uint8 array, not {picture.dtype} {picture.shape}", field=field
        )
    return picture


def _path(value: Any, field: str) -> Path | None:
    if value is None or value == "":
        return None
    if not isinstance(value, (str, Path)):
        raise InvalidInput(f"must be the path of a video, not {type(value).__name__}", field=field)
    return Path(value)
