"""Structure guidance of a row: every older name, the way into a child's row and back, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from source.errors import InvalidInput, Unsupported
from source.params.base import SETTINGS_OF_UNSUPPORTED, UNSUPPORTED
from source.params.structure_guidance import LEGACY, OLDER_NAMES, StructureGuidanceConfig
from source.task_registry import registry


def config(**row: Any) -> StructureGuidanceConfig:
    return StructureGuidanceConfig.from_params({"orchestrator_details": row})


def test_the_list_of_older_names_is_whole() -> None:
    known = {*UNSUPPORTED, *SETTINGS_OF_UNSUPPORTED, *LEGACY}
    older = {name for name in known if name.startswith(("structure_", "uni3c_", "use_uni3c"))} - {"structure_guidance"}
    assert older <= OLDER_NAMES


ROWS: list[dict[str, Any]] = [
    {},
    {"structure_guidance": {"videos": [{"path": "v.mp4", "start_frame": 3}], "preprocessing": "canny"}},
    {"structure_guidance": {"_guidance_video_url": "g.mp4", "_frame_offset": 12, "strength": 0.5}},
    {"structure_videos": [{"path": "v.mp4", "type": "depth", "treatment": "clip"}], "structure_depth_contrast": 2},
    {"structure_video_path": "v.mp4", "structure_type": "raw", "uni3c_end_percent": 0.5},
]


@pytest.mark.parametrize("row", ROWS)
def test_a_configuration_goes_through_a_childs_row_unchanged(row: dict[str, Any]) -> None:
    """Also beside the older names that it came from: a child carries its travel's payload."""
    made = config(**row)
    child = StructureGuidanceConfig.from_params({"structure_guidance": made.to_row(), "orchestrator_details": row})
    assert child.model_dump() == made.model_dump()
    child.check()


def test_a_childs_row_says_where_its_segment_begins() -> None:
    row = config(structure_guidance={"_guidance_video_url": "g.mp4"}).to_row(frame_offset=17)
    assert (row["_guidance_video_url"], row["_frame_offset"]) == ("g.mp4", 17)


def test_names_that_nothing_knows_are_found_inside() -> None:
    kind = registry().get("travel_guidance")
    row = {"structure_guidance": {"strenght": 1, "videos": [{"path": "v.mp4", "speed": 2}]}, "total_frames": 9}
    found = kind.parse(row).unknown
    assert set(found) == {"structure_guidance.strenght", "structure_guidance.videos.0.speed"}
    with pytest.raises(InvalidInput):
        kind.parse(row, strict=True)


VIDEO = {"structure_video_path": "v.mp4"}


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"use_uni3c": True}, "use_uni3c"),
        ({"use_uni3c": True, "uni3c_guide_video": "g.mp4"}, "use_uni3c"),
        (VIDEO | {"structure_type": "uni3c"}, "structure_type"),
        (VIDEO | {"structure_video_type": "uni3c"}, "structure_video_type"),
        ({"structure_videos": [{"path": "v.mp4", "type": "uni3c"}]}, "structure_videos"),
        ({"structure_guidance": {"target": "uni3c", "videos": [{"path": "v.mp4"}]}}, "structure_guidance.target"),
        (
            {"structure_guidance": {"step_window": [0.2, 1], "videos": [{"path": "v.mp4"}]}},
            "structure_guidance.step_window",
        ),
    ],
)
def test_guidance_that_could_not_act_is_refused_by_the_name_that_asked_for_it(row: dict[str, Any], field: str) -> None:
    with pytest.raises(Unsupported) as caught:
        config(**row).check()
    assert caught.value.field == field


@pytest.mark.parametrize(
    "row",
    [
        {"structure_guidance": {"target": "uni3c", "videos": []}, "use_uni3c": False},
        VIDEO | {"structure_type": "flow", "uni3c_start_percent": 0.1, "uni3c_end_percent": 0.9},
        VIDEO | {"structure_guidance": {"step_window": [0, 1], "frame_policy": "loop"}},
    ],
)
def test_settings_of_what_nobody_asked_for_are_no_reason_to_refuse(row: dict[str, Any]) -> None:
    config(**row).check()


def test_a_video_is_named_as_the_row_named_it() -> None:
    assert config(**VIDEO).name_of_video(0) == "structure_video_path"
    assert config(structure_videos=[{"path": "v.mp4"}]).name_of_video(0) == "structure_videos[0].path"
    unified = config(structure_guidance={"videos": [{"path": "v.mp4"}]})
    assert unified.name_of_video(0) == "structure_guidance.videos[0].path"


@pytest.mark.parametrize("off", [False, 0, "false", "", None])
def test_uni3c_that_is_switched_off_is_off(off: object) -> None:
    row = {"use_uni3c": off, "structure_video_path": "a.mp4", "structure_type": "canny"}
    config = StructureGuidanceConfig.from_params(row)
    assert (config.target, config.preprocessing) == ("vace", "canny")
