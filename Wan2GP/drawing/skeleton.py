"""People as joints: the 18 of OpenPose's COCO model, drawn in its colours, moved from one pose to another, and as JSON.

What is drawn is what control models were trained on: limbs as flat ellipses at 60 % of their colours, joints as full
discs over them, on black (Cao et al. 2019, in the form that DWPose made common).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from Wan2GP.errors import InvalidInput
from Wan2GP.media.images import Frame

#: in OpenPose's order; right and left are the person's own
JOINTS = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip

#: joint -> its colour (RGB), around the colour circle in the joints' order
COLOURS: Mapping[str, tuple[int, int, int]] = dict(
    zip(
        JOINTS,
        (
            (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
            (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
            (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
        ),
        strict=True,
    )
)  # fmt: skip

#: limbs in the order in which they are drawn; limb k has the k-th colour
LIMBS = (
    ("neck", "right_shoulder"), ("neck", "left_shoulder"),
    ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("neck", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
    ("neck", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
    ("neck", "nose"),
    ("nose", "right_eye"), ("right_eye", "right_ear"), ("nose", "left_eye"), ("left_eye", "left_ear"),
)  # fmt: skip

#: joints of a lower confidence are not drawn
DRAWN_FROM = 0.5
#: joints of a lower confidence count as not seen when poses are interpolated
SEEN_FROM = 0.05
#: brightness of limbs beside that of joints
LIMB_SHADE = 0.6
#: radius of a joint and half width of a limb, in pixels, on pictures whose shorter side is at least …
_RADIUS = 4
#: … this; on smaller ones in proportion
_FULL_SIDE = 512
_DIGITS = 3


@dataclass(frozen=True)
class Joint:
    """Where a joint is, in pixels to the right and down; and how sure that is, 0-1."""

    x: float
    y: float
    confidence: float = 1.0


@dataclass(frozen=True)
class Skeleton:
    """The joints of one person: name (of JOINTS) -> joint. Those that were not found are left out."""

    joints: Mapping[str, Joint]

    def scaled(self, across: float, down: float) -> Skeleton:
        """The same person in a picture whose width and height are multiplied."""
        return Skeleton(
            {name: Joint(each.x * across, each.y * down, each.confidence) for name, each in self.joints.items()}
        )


def limb_colour(number: int) -> tuple[int, int, int]:
    """The colour (RGB) in which limb `number` of LIMBS is drawn."""
    red, green, blue = COLOURS[JOINTS[number]]
    return int(red * LIMB_SHADE), int(green * LIMB_SHADE), int(blue * LIMB_SHADE)


def draw_skeletons(skeletons: Iterable[Skeleton], size: tuple[int, int], drawn_from: float = DRAWN_FROM) -> Frame:
    """People on black, at `size` = (width, height): all limbs, then all joints over them.

    A joint is drawn when its confidence is at least `drawn_from` and it lies in the picture; a limb when both its
    joints are.
    """
    width, height = size
    canvas = np.zeros((height, width, 3), np.uint8)
    shown = [_shown(each, size, drawn_from) for each in skeletons]
    radius = max(1, round(_RADIUS * min(1, min(size) / _FULL_SIDE)))
    for places in shown:
        for number, (first, second) in enumerate(LIMBS):
            if first in places and second in places:
                cv2.fillConvexPoly(canvas, _limb(places[first], places[second], radius), limb_colour(number))
    for places in shown:
        for name, (x, y) in places.items():
            cv2.circle(canvas, (int(x), int(y)), radius, COLOURS[name], thickness=-1)
    return canvas


def interpolated(first: Skeleton, second: Skeleton, share: float) -> Skeleton:
    """The pose at `share` (0-1) of the way from one to the other, along straight lines.

    A joint that only one of them has seen stays where it is; its confidence fades in or out.
    """
    found: dict[str, Joint] = {}
    for name in JOINTS:
        a, b = (_seen(each.joints.get(name)) for each in (first, second))
        if a is not None and b is not None:
            found[name] = Joint(*(_between(getattr(a, f), getattr(b, f), share) for f in ("x", "y", "confidence")))
        elif a is not None:
            found[name] = Joint(a.x, a.y, a.confidence * (1 - share))
        elif b is not None:
            found[name] = Joint(b.x, b.y, b.confidence * share)
    return Skeleton(found)


def interpolated_people(first: Sequence[Skeleton], second: Sequence[Skeleton], share: float) -> tuple[Skeleton, ...]:
    """The same for several people: each is led to the nearest of the other picture; who has none fades where they are.

    Nearest first, by the distance between the middles of their joints. Both pictures have the same size.
    """
    nobody = Skeleton({})
    distances = sorted(
        (float(np.hypot(*(_middle(a) - _middle(b)))), i, j) for i, a in enumerate(first) for j, b in enumerate(second)
    )
    partner: dict[int, int] = {}
    for _, i, j in distances:
        if i not in partner and j not in partner.values():
            partner[i] = j
    pairs = [(each, second[partner[i]] if i in partner else nobody) for i, each in enumerate(first)]
    pairs += [(nobody, each) for j, each in enumerate(second) if j not in partner.values()]
    return tuple(interpolated(a, b, share) for a, b in pairs)


def to_json(people: Iterable[Skeleton], size: tuple[int, int]) -> dict[str, Any]:
    """{"width", "height", "people": [{"joints": {name: [x, y, confidence]}}]}: pixels of a picture of `size`."""
    return {
        "width": size[0],
        "height": size[1],
        "people": [
            {
                "joints": {
                    name: [round(value, _DIGITS) for value in (joint.x, joint.y, joint.confidence)]
                    for name, joint in each.joints.items()
                }
            }
            for each in people
        ],
    }


def from_json(told: Mapping[str, Any]) -> tuple[tuple[Skeleton, ...], tuple[int, int]]:
    """The people and the (width, height) that `to_json` wrote. Raises InvalidInput for anything else."""
    try:
        people = [
            Skeleton({name: Joint(*map(float, joint)) for name, joint in each["joints"].items()})
            for each in told["people"]
        ]
        size = int(told["width"]), int(told["height"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"these are no joints: {error!r}", field="joints") from None
    if unknown := sorted({name for each in people for name in each.joints} - set(JOINTS)):
        raise InvalidInput(f"there is no joint {unknown[0]!r}; there are: {', '.join(JOINTS)}", field="joints")
    return tuple(people), size


def _shown(skeleton: Skeleton, size: tuple[int, int], drawn_from: float) -> dict[str, tuple[float, float]]:
    width, height = size
    return {
        name: (joint.x, joint.y)
        for name in JOINTS
        if (joint := skeleton.joints.get(name)) is not None
        and joint.confidence >= drawn_from
        and 0 <= joint.x < width
        and 0 <= joint.y < height
    }


def _limb(first: tuple[float, float], second: tuple[float, float], half_width: int) -> np.ndarray:
    """The outline of a flat ellipse whose ends are two joints."""
    (x1, y1), (x2, y2) = first, second
    middle = int((x1 + x2) / 2), int((y1 + y2) / 2)
    half_length = int(np.hypot(x2 - x1, y2 - y1) / 2)
    angle = int(np.degrees(np.arctan2(y2 - y1, x2 - x1)))
    return cv2.ellipse2Poly(middle, (half_length, half_width), angle, 0, 360, 1)


def _seen(joint: Joint | None) -> Joint | None:
    return joint if joint is not None and joint.confidence > SEEN_FROM else None


def _between(first: float, second: float, share: float) -> float:
    return first + (second - first) * share


def _middle(skeleton: Skeleton) -> np.ndarray:
    places = [(joint.x, joint.y) for joint in skeleton.joints.values() if _seen(joint)]
    return np.mean(places, axis=0) if places else np.zeros(2)
