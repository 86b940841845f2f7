"""The edges of masks: hard, or fading over some pixels. No torch here."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from Wan2GP.engine.request import Frame

#: most pixels on either side of an edge over which a mask fades
MOST_FEATHER = 200.0


def drawn(selected: npt.NDArray[np.bool_], feather: float = 0.0) -> Frame:
    """A selection (H, W) as a picture (H, W, 3) uint8, white where selected.

    With `feather` > 0 the edge becomes a smooth ramp: `feather` pixels inside it is white, as far outside it is black,
    on it grey; farther pixels keep 255 and 0 exactly. The ramp is 3t² - 2t³ over the distance to the edge (Euclidean).
    """
    mask = selected.astype(np.uint8)
    shade = mask * np.uint8(255) if feather <= 0 else _faded(mask, feather)
    return np.repeat(shade[..., None], 3, axis=2)


def _faded(mask: npt.NDArray[np.uint8], feather: float) -> npt.NDArray[np.uint8]:
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Distances are those to the nearest pixel of the other kind: the edge lies half a pixel before it.
    distance = np.where(mask > 0, inside - 0.5, 0.5 - outside)
    share = np.clip(0.5 + distance / (2 * feather), 0, 1)
    return np.rint(255 * share * share * (3 - 2 * share)).astype(np.uint8)
