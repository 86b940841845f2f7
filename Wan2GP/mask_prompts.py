"""Clicks and boxes that say what a mask shall select, as they stand in the knob `mask_prompts`. No torch here.

[{"frame": 0, "object": 1, "points": [[120, 80], [300, 90]], "labels": [1, 0]},
 {"frame": 24, "object": 2, "box": [10, 20, 200, 180]}]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from Wan2GP.errors import InvalidInput, did_you_mean

FIELD = "mask_prompts"
#: what is said where a model needs prompts and has none
MISSING = 'is missing; say what to select, as in [{"frame": 0, "points": [[120, 80]]}] or [{"box": [10, 20, 200, 180]}]'
#: entries of one list; each frame with prompts stays in the model's memory for the whole video
MOST_PROMPTS = 64
MOST_POINTS = 64
#: no frame, object or pixel has a larger number; NaN and infinity have neither
_LARGEST = 2**31

Point = tuple[float, float]
Box = tuple[float, float, float, float]

_NAMES = ("frame", "object", "points", "labels", "box")


@dataclass(frozen=True, kw_only=True)
class MaskPrompt:
    """What one object is shown by on one frame. Pixels of the given video or image, from its upper left corner."""

    #: number of the frame; negative from the end
    frame: int = 0
    #: which object; those of one number are followed as one
    object: int = 1
    #: clicks (x, y)
    points: tuple[Point, ...] = ()
    #: for each click: True on the object, False beside it
    labels: tuple[bool, ...] = ()
    #: (left, top, right, bottom) around the object
    box: Box | None = None

    def as_json(self) -> dict[str, Any]:
        """The entry as it is written in the knob."""
        entry: dict[str, Any] = {"frame": self.frame, "object": self.object}
        if self.points:
            entry |= {"points": [list(point) for point in self.points], "labels": [int(each) for each in self.labels]}
        return entry | ({"box": list(self.box)} if self.box else {})


def parse_mask_prompts(value: Any) -> tuple[MaskPrompt, ...]:
    """A list of entries, or the same as JSON text. Raises InvalidInput that names the entry and what is wrong."""
    entries = _read(value)
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise InvalidInput(f"must be a list of objects with frame, object, points, labels and box, not {value!r:.80}")
    if len(entries) > MOST_PROMPTS:
        raise InvalidInput(f"has {len(entries)} entries; give {MOST_PROMPTS} at most")
    return tuple(_entry(entry, f"entry {number}") for number, entry in enumerate(entries))


def placed(prompts: Sequence[MaskPrompt], num_frames: int, width: int, height: int) -> tuple[MaskPrompt, ...]:
    """The prompts with frames counted from the first, in order, those of one object on one frame as one.

    Raises InvalidInput for a frame or a pixel that is not there, or for two boxes around one object on one frame.
    """
    found: dict[tuple[int, int], MaskPrompt] = {}
    for number, prompt in enumerate(prompts):
        where = f"entry {number}"
        if not -num_frames <= prompt.frame < num_frames:
            raise InvalidInput(f"{where}: there is no frame {prompt.frame}; there are {num_frames}", field=FIELD)
        _check_inside(prompt, width, height, where)
        counted = replace(prompt, frame=prompt.frame % num_frames)
        key = (counted.object, counted.frame)
        found[key] = _joined(found[key], counted, where) if key in found else counted
    return tuple(found[key] for key in sorted(found))


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise InvalidInput(f"is no JSON: {error}") from None
    except RecursionError:
        raise InvalidInput("is nested too deeply") from None


def _entry(entry: Any, where: str) -> MaskPrompt:
    if not isinstance(entry, Mapping):
        raise InvalidInput(f"{where} must be an object with frame, object, points, labels and box")
    for name in entry:
        if name not in _NAMES:
            raise InvalidInput(f"{where} has {name!r}, which is not known.{did_you_mean(str(name), _NAMES)}")
    points = tuple(_numbers(point, 2, f"{where}: a point") for point in _listed(entry, "points", where))
    box = entry.get("box")
    prompt = MaskPrompt(
        frame=_whole(entry.get("frame", 0), f"{where}: frame"),
        object=_whole(entry.get("object", 1), f"{where}: object"),
        points=tuple((point[0], point[1]) for point in points),
        labels=_labels(entry, len(points), where),
        box=None if box is None else _box(box, where),
    )
    _check_selects(prompt, where)
    return prompt


def _check_selects(prompt: MaskPrompt, where: str) -> None:
    if len(prompt.points) > MOST_POINTS:
        raise InvalidInput(f"{where} has {len(prompt.points)} points; give {MOST_POINTS} at most")
    if prompt.box is None and not any(prompt.labels):
        raise InvalidInput(f"{where} selects nothing: give a point with label 1, or a box")


def _labels(entry: Mapping[str, Any], count: int, where: str) -> tuple[bool, ...]:
    if entry.get("labels") is None:
        return (True,) * count
    labels = _listed(entry, "labels", where)
    if len(labels) != count:
        raise InvalidInput(f"{where} has {count} points and {len(labels)} labels; give one for each point")
    if any(label not in (0, 1) for label in labels):
        raise InvalidInput(f"{where}: a label is 1 (on the object) or 0 (beside it)")
    return tuple(bool(label) for label in labels)


def _box(value: Any, where: str) -> Box:
    left, top, right, bottom = _numbers(value, 4, f"{where}: box")
    if right <= left or bottom <= top:
        raise InvalidInput(f"{where}: box is [left, top, right, bottom]; {list(value)} has no inside")
    return left, top, right, bottom


def _listed(entry: Mapping[str, Any], name: str, where: str) -> Sequence[Any]:
    value = entry.get(name)
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(f"{where}: {name} must be a list, not {value!r:.40}")
    return value


def _numbers(value: Any, count: int, where: str) -> tuple[float, ...]:
    if isinstance(value, (list, tuple)) and len(value) == count:
        numbers = [each for each in value if isinstance(each, (int, float)) and not isinstance(each, bool)]
        if len(numbers) == count and all(abs(each) <= _LARGEST for each in numbers):
            return tuple(float(each) for each in numbers)
    raise InvalidInput(f"{where} must be {count} numbers, not {value!r:.60}")


def _whole(value: Any, where: str) -> int:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not abs(value) <= _LARGEST or value != int(value):
        raise InvalidInput(f"{where} must be a whole number, not {value!r:.40}")
    return int(value)


def _check_inside(prompt: MaskPrompt, width: int, height: int, where: str) -> None:
    corners = (prompt.box[:2], prompt.box[2:]) if prompt.box else ()
    for x, y in (*prompt.points, *corners):
        if not (0 <= x <= width and 0 <= y <= height):
            raise InvalidInput(f"{where}: ({x:g}, {y:g}) lies outside the picture of {width}x{height}", field=FIELD)


def _joined(first: MaskPrompt, second: MaskPrompt, where: str) -> MaskPrompt:
    if first.box and second.box:
        raise InvalidInput(f"{where} is a second box around object {second.object} on one frame", field=FIELD)
    return replace(
        first,
        points=first.points + second.points,
        labels=first.labels + second.labels,
        box=first.box or second.box,
    )
