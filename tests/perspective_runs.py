"""What tests of perspectives share: checkpoints with the pose model alone, and a depth model of a few weights."""

from __future__ import annotations

import json
from pathlib import Path

from control_runs import pose_checkpoints
from tiny_vision import tiny_depth

from Wan2GP.definitions import load_definitions


def checkpoints_with_pose(folder: Path) -> Path:
    """A folder of checkpoints; without RIFE's weights, so that it is quick. Skips the test where pose is not here."""
    pose = load_definitions()["pose"].folder(pose_checkpoints())
    assert pose is not None
    folder.mkdir()
    (folder / pose.name).symlink_to(pose, target_is_directory=True)
    return folder


def rows_with_depth(folder: Path) -> Path:
    """A folder of definitions that puts tiny random weights in the place of the depth model's."""
    tiny_depth(folder / "depth")
    rows = folder / "rows"
    rows.mkdir()
    model = {"source": str(folder / "depth"), "devices": []}
    (rows / "depth_anything_v2_vitl.json").write_text(json.dumps({"model": model}))
    return rows
