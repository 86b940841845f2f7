"""BlazePose (Bazarevsky et al. 2020): people in a picture and where their joints are. No torch here.

Two networks: one finds people in the whole picture; the other finds the 33 landmarks of one person in a square cut out
around them, turned upright. Both are run by LiteRT on the CPU, on one thread, so that equal pictures give equal joints.
The numbers below are those of the published networks (MediaPipe's graphs).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from Wan2GP.drawing.skeleton import DRAWN_FROM, Joint, Skeleton
from Wan2GP.engine.litert import Network, Values
from Wan2GP.media.images import Frame

#: left, top, width and height in pixels
Box = tuple[int, int, int, int]

#: OpenPose's joint -> its landmark; the neck is the middle between the shoulders
LANDMARKS = {
    "nose": 0,
    "right_shoulder": 12,
    "right_elbow": 14,
    "right_wrist": 16,
    "left_shoulder": 11,
    "left_elbow": 13,
    "left_wrist": 15,
    "right_hip": 24,
    "right_knee": 26,
    "right_ankle": 28,
    "left_hip": 23,
    "left_knee": 25,
    "left_ankle": 27,
    "right_eye": 5,
    "left_eye": 2,
    "right_ear": 8,
    "left_ear": 7,
}

_HEAD = ("nose", "right_eye", "left_eye", "right_ear", "left_ear")
_HEAD_AND_SHOULDERS = [LANDMARKS[name] for name in (*_HEAD, "right_shoulder", "left_shoulder")]
_TRUNK = [LANDMARKS[name] for name in ("nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip")]

#: side of the picture that the detector looks at, and how far apart its anchors are: anchors a cell -> stride
_DETECTOR_SIDE = 224
_GRIDS = ((8, 2), (16, 2), (32, 6))
#: boxes that overlap more than this are one person
_SAME_PERSON = 0.3
#: most people looked for in one picture
MOST_PEOPLE = 16

#: side of the parts of a picture that are looked at too, by its longer side
_PART = 0.6

_LANDMARK_SIDE = 256
_NUM_LANDMARKS, _NUM_JOINTS, _VALUES_EACH = 39, 33, 5
#: who was found is painted over with this share of their size around their joints
_PAINTED_AROUND = 0.15
#: the square around a person is this much larger than the circle through the whole body
_MARGIN = 1.25
#: landmarks that give the next square: the middle of the hips, and a point on the circle above the head
_CENTRE, _ABOVE = 33, 34
#: samples in a row for one pixel of a picture that is shrunk, at most
_MOST_SAMPLES = 8


@dataclass(frozen=True)
class Demand:
    """How sure it must be that somebody is there. Values are 0-1 but for the last one."""

    #: of the detector
    score: float
    #: of the second network: that a person is in the square
    presence: float
    #: of head and shoulders, in the mean
    certainty: float
    #: how far the trunks of its first and second answer may be apart, by the length of the trunk
    wavering: float


#: somebody in the whole picture; and in a part of it, where rocks and cups look like people more often. Measured on
#: photos without anybody at seven sizes: no part of them meets this; each of two people beside one another does
IN_THE_WHOLE = Demand(score=0.5, presence=0.5, certainty=0.6, wavering=np.inf)
IN_A_PART = Demand(score=0.65, presence=0.7, certainty=0.9, wavering=0.1)


@dataclass(frozen=True)
class Square:
    """Where a person is: centre and side in pixels, and by which angle (radians) they are turned from upright."""

    x: float
    y: float
    side: float
    angle: float

    @classmethod
    def around(cls, centre: Values, above: Values) -> Square:
        """From the middle of the hips, and a point of the circle around the body in the direction of the head."""
        across, up = float(above[0] - centre[0]), float(centre[1] - above[1])
        side = 2 * float(np.hypot(across, up)) * _MARGIN
        return cls(float(centre[0]), float(centre[1]), side, float(np.pi / 2 - np.arctan2(up, across)))

    def to_picture(self) -> NDArray[np.float64]:
        """(2, 3): what takes a point of the cut-out (in shares of its side, from its corner) into the picture."""
        cos, sin = np.cos(self.angle) * self.side, np.sin(self.angle) * self.side
        turn = np.array([[cos, -sin], [sin, cos]])
        shift = np.array([self.x, self.y]) - turn @ np.array([0.5, 0.5])
        return np.column_stack([turn, shift])


class BlazePose:
    """The two networks. `detector` and `landmarks` are their files."""

    def __init__(self, detector: Path, landmarks: Path) -> None:
        """Raises ValueError for a file that is no network."""
        self._detector, self._landmarks = Network(detector), Network(landmarks)

    def people(self, frame: Frame) -> tuple[Skeleton, ...]:
        """Everyone in a picture (H, W, 3), the most prominent first; joints in its pixels.

        The detector sees one person beside whom others fade, so who was found is painted over and it looks again: at
        the whole picture, then at parts of it, where people are larger.
        """
        found: list[Values] = []
        rest = frame.copy()
        for number, view in enumerate(views(frame.shape[1], frame.shape[0])):
            demand = IN_A_PART if number else IN_THE_WHOLE
            while len(found) < MOST_PEOPLE:
                placed = [self._placed(frame, square, demand) for square in self._detected(rest, view, demand)]
                new = _different([each for each in placed if each is not None], found)
                if not new:
                    break
                for places in new:
                    _paint_over(rest, places)
                found += new
        return tuple(skeleton_of(places) for places in found[:MOST_PEOPLE])

    def _placed(self, frame: Frame, square: Square, demand: Demand) -> Values | None:
        """The landmarks of the person in a square; None when it is not sure enough that somebody is there.

        Looked for twice: the first answer says better where they are.
        """
        first, _ = self._read(frame, square)
        second, presence = self._read(frame, Square.around(first[_CENTRE], first[_ABOVE]))
        certainty = float(second[_HEAD_AND_SHOULDERS, 2].mean())
        sure = presence >= demand.presence and certainty >= demand.certainty
        return second if sure and _apart(first, second) <= demand.wavering else None

    def _detected(self, frame: Frame, view: Box, demand: Demand) -> list[Square]:
        """The people in a part of the picture; squares in pixels of the whole."""
        left, top, width, height = view
        scale = _DETECTOR_SIDE / max(height, width)
        shift = np.array([_DETECTOR_SIDE - width * scale, _DETECTOR_SIDE - height * scale]) / 2
        fit = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        part = frame[top : top + height, left : left + width]
        small = _cut(part, fit, _DETECTOR_SIDE).astype(np.float32) / 127.5 - 1
        boxes, scores = self._detector(small)
        squares = []
        for person in merged(*decoded(boxes[0], scores[0, :, 0], demand.score)):
            points = (person[4:8].reshape(2, 2) * _DETECTOR_SIDE - shift) / scale + (left, top)
            squares.append(Square.around(*points))
        return squares

    def _read(self, frame: Frame, square: Square) -> tuple[Values, float]:
        """(39, 3): x and y in pixels of the picture, and confidence; and how sure it is that somebody is there."""
        to_picture = square.to_picture()
        into = cv2.invertAffineTransform(to_picture / np.array([_LANDMARK_SIDE, _LANDMARK_SIDE, 1]))
        values = _cut(frame, into, _LANDMARK_SIDE).astype(np.float32) / 255
        answer, presence, *_ = self._landmarks(values)
        places = answer.reshape(_NUM_LANDMARKS, _VALUES_EACH)
        inside = np.column_stack([places[:, :2] / _LANDMARK_SIDE, np.ones(_NUM_LANDMARKS)])
        confidence = np.minimum(_sigmoid(places[:, 3]), _sigmoid(places[:, 4]))
        return np.column_stack([inside @ to_picture.T, confidence]).astype(np.float32), float(presence[0, 0])


def views(width: int, height: int) -> list[Box]:
    """Where to look: at the whole picture, then at squares that cover it and overlap."""
    side = min(round(max(width, height) * _PART), width, height)
    across, down = (_steps(length, side) for length in (width, height))
    return [(0, 0, width, height), *((left, top, side, side) for top in down for left in across)]


def _steps(length: int, side: int) -> list[int]:
    """Where squares of a side begin so that they cover a length."""
    count = -(-(length - side) // side) + 1 if length > side else 1
    return [round(number * (length - side) / max(count - 1, 1)) for number in range(count)]


def skeleton_of(places: Values) -> Skeleton:
    """The joints of OpenPose out of landmarks (N, 3) of x, y and confidence."""
    joints = {name: Joint(*map(float, places[number])) for name, number in LANDMARKS.items()}
    left, right = joints["left_shoulder"], joints["right_shoulder"]
    confidence = min(left.confidence, right.confidence)
    return Skeleton({**joints, "neck": Joint((left.x + right.x) / 2, (left.y + right.y) / 2, confidence)})


def decoded(boxes: Values, scores: Values, least_score: float) -> tuple[Values, Values]:
    """The detector's answer as people (N, 8): a box (left, top, right, bottom), the middle of the hips and the point
    above; in shares of the picture's side. And their scores (N,). Only those that are sure enough."""
    sure = _sigmoid(scores)
    kept = np.flatnonzero(sure >= least_score)
    raw, anchors = boxes[kept] / _DETECTOR_SIDE, _anchors()[kept]
    middle, half = raw[:, :2] + anchors, raw[:, 2:4] / 2
    points = raw[:, 4:8] + np.tile(anchors, 2)
    return np.hstack([middle - half, middle + half, points]).astype(np.float32), sure[kept]


def merged(people: Values, scores: Values) -> list[Values]:
    """One for each person, the surest first: the mean of all boxes that overlap the surest one, weighted by scores."""
    waiting = list(np.argsort(-scores, kind="stable"))
    found = []
    while waiting:
        overlap = _overlap(people[waiting[0]], people[waiting])
        group = [each for each, share in zip(waiting, overlap, strict=True) if share > _SAME_PERSON]
        found.append(np.average(people[group], axis=0, weights=scores[group]).astype(np.float32))
        waiting = [each for each in waiting if each not in group]
    return found


def _different(answers: list[Values], known: list[Values]) -> list[Values]:
    """Those answers that are of somebody new."""
    new: list[Values] = []
    for each in answers:
        if not any(_is_same(each, other) for other in (*known, *new)):
            new.append(each)
    return new


def _is_same(places: Values, other: Values) -> bool:
    """Whether two answers are of one person: their trunks are nearer to each other than half of its length."""
    return _apart(other, places) < 0.5


def _apart(first: Values, second: Values) -> float:
    """How far the trunks of two answers are apart, by the length of the second one's."""
    distance = np.hypot(*(first[_TRUNK, :2] - second[_TRUNK, :2]).T).mean()
    length = np.hypot(*(second[_TRUNK[0], :2] - second[_TRUNK[3:], :2].mean(axis=0)))
    return float(distance / max(length, 1e-6))


def _paint_over(picture: Frame, places: Values) -> None:
    """Make a person's place in the picture as grey as the rest of it is in the mean."""
    seen = places[:_NUM_JOINTS][places[:_NUM_JOINTS, 2] >= DRAWN_FROM]
    if not len(seen):
        seen = places[:_NUM_JOINTS]
    low, high = seen[:, :2].min(axis=0), seen[:, :2].max(axis=0)
    margin = _PAINTED_AROUND * float((high - low).max())
    left, top = np.maximum(low - margin, 0).astype(int)
    right, bottom = np.maximum(high + margin, 0).astype(int)
    picture[top:bottom, left:right] = picture.mean(axis=(0, 1)).astype(np.uint8)


def _overlap(box: Values, others: Values) -> Values:
    """Intersection over union with each of (N, 4+)."""
    sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2])
    common = np.prod(np.clip(sides, 0, None), axis=1)
    areas = np.prod(others[:, 2:4] - others[:, :2], axis=1)
    return np.asarray(common / (np.prod(box[2:4] - box[:2]) + areas - common), np.float32)


@cache
def _anchors() -> Values:
    """(2254, 2): the middles of the cells, in shares of the side."""
    grids = []
    for stride, each in _GRIDS:
        cells = _DETECTOR_SIDE // stride
        down, across = np.mgrid[:cells, :cells]
        middles = (np.stack([across, down], axis=-1).reshape(-1, 2) + 0.5) / cells
        grids.append(np.repeat(middles, each, axis=0))
    return np.concatenate(grids).astype(np.float32)


def _cut(frame: Frame, into: NDArray[np.float64], side: int) -> Frame:
    """A square of the picture; `into` takes its pixels there. Black outside the picture.

    Where it shrinks, several samples are averaged for each pixel.
    """
    shrinking = 1 / max(float(np.sqrt(abs(np.linalg.det(into[:, :2])))), 1e-6)
    samples = min(max(1, round(shrinking)), _MOST_SAMPLES)
    large = into * samples
    large[:, 2] += (samples - 1) / 2
    cut = cv2.warpAffine(frame, large, (side * samples, side * samples), flags=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA) if samples > 1 else cut, np.uint8)


def _sigmoid(values: Any) -> Values:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), np.float32)
