"""The ten camera movements of ReCamMaster (`model_mode` 1 to 10). No torch here.

The numbers are those of the trajectories that its authors publish with their program (81 frames, centimetres there):
at a constant speed, a pan of 20 degrees, a tilt of 10, a zoom of 2 m, a rise of 1 m, or an arc of 30 degrees, where the
rise and the arc keep the camera on a point 4 m ahead of its start. The arc runs along its chord. Frame i of 81 is
i / 80.5 of the way; a video of another length goes the whole way too, but the model was trained with 81 frames alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import atan2, cos, hypot, radians, sin
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

#: metres from where the camera starts to what it stays on
SUBJECT_M = 4.0

_ARC = radians(30)


@dataclass(frozen=True, kw_only=True)
class Movement:
    """What the whole way changes, in the axes of the camera's first position: right, down, forward."""

    name: str
    #: degrees to the right and upwards
    pan: float = 0.0
    tilt: float = 0.0
    #: metres
    travel: tuple[float, float, float] = (0.0, 0.0, 0.0)
    #: whether the camera turns so that it stays on the subject; `pan` and `tilt` are then of no use
    follows: bool = False


def _arc(name: str, side: float) -> Movement:
    return Movement(name=name, travel=(side * SUBJECT_M * sin(_ARC), 0, SUBJECT_M * (1 - cos(_ARC))), follows=True)


MOVEMENTS: Mapping[int, Movement] = MappingProxyType(
    {
        1: Movement(name="pan right", pan=20),
        2: Movement(name="pan left", pan=-20),
        3: Movement(name="tilt up", tilt=10),
        4: Movement(name="tilt down", tilt=-10),
        5: Movement(name="zoom in", travel=(0, 0, 2)),
        6: Movement(name="zoom out", travel=(0, 0, -2)),
        7: Movement(name="rise", travel=(0, -1, 0), follows=True),
        8: Movement(name="sink", travel=(0, 1, 0), follows=True),
        9: _arc("arc left", -1),
        10: _arc("arc right", 1),
    }
)


def camera_path(mode: int, num_frames: int, temporal: int) -> npt.NDArray[np.float32]:
    """(F', 12): the camera's pose at the first frame of each latent frame of `num_frames` frames.

    A pose is a matrix of 3 x 4, row by row, from the axes of that moment to those of the first (right, down, forward),
    with the position in metres in its last column.
    """
    shares = np.arange(0, num_frames, temporal) / (num_frames - 0.5)
    return np.stack([_pose(MOVEMENTS[mode], float(share)) for share in shares]).astype(np.float32).reshape(-1, 12)


def _pose(movement: Movement, share: float) -> npt.NDArray[np.float64]:
    right, down, forward = position = np.array(movement.travel) * share
    pan, tilt = radians(movement.pan * share), radians(movement.tilt * share)
    if movement.follows:
        ahead = SUBJECT_M - forward
        pan, tilt = atan2(-right, ahead), atan2(down, hypot(right, ahead))
    turn = np.array([[cos(pan), 0, sin(pan)], [0, 1, 0], [-sin(pan), 0, cos(pan)]])
    nod = np.array([[1, 0, 0], [0, cos(tilt), -sin(tilt)], [0, sin(tilt), cos(tilt)]])
    return np.column_stack([turn @ nod, position])
