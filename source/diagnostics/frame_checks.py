"""Numbers of frames held against their plan: of the segments of a travel, the transitions of a join, and the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from source.diagnostics.views import View
from source.errors import InvalidInput
from source.params.joins import JoinPlan
from source.planning.frames import FramePlan
from source.store.types import Status, Task

_TRANSITIONS = ("join_clips_segment", "join_clips")


def frame_checks(task: Task, children: Sequence[Task]) -> list[View]:
    """What was planned against what was made: [{what, id, planned, made, agrees}], in frames.

    `made` is what the row reports of its file. A number that is not known yet is None, and `agrees` with it.
    """
    return [*_own(task), *_of_travel(children), *_of_join(children)]


def _check(what: str, row: Task, planned: int | None) -> View:
    told = (row.result_data or {}).get("num_frames") if row.status is Status.COMPLETE else None
    made = told if isinstance(told, int) else None
    agrees = None if planned is None or made is None else planned == made
    return {"what": what, "id": row.id, "planned": planned, "made": made, "agrees": agrees}


def _own(task: Task) -> Iterator[View]:
    """A transition knows its plan."""
    if task.task_type in _TRANSITIONS and (planned := _transition_length(task)) is not None:
        yield _check("transition", task, planned)


def _of_travel(children: Sequence[Task]) -> Iterator[View]:
    segments = sorted((row for row in children if row.task_type == "travel_segment"), key=_segment_index)
    stitch = next((row for row in children if row.task_type == "travel_stitch"), None)
    plan = _travel_plan(stitch) if stitch else None
    planned = {each.index: each.output for each in plan.segments} if plan else {}
    for row in segments:
        yield _check(f"segment {_segment_index(row)}", row, planned.get(_segment_index(row)))
    if stitch:
        yield _check("stitched video", stitch, plan.total_frames if plan else None)


def _of_join(children: Sequence[Task]) -> Iterator[View]:
    for row in children:
        if row.task_type in _TRANSITIONS:
            yield _check(f"transition {row.params.get('join_index', '')}".strip(), row, _transition_length(row))
        elif row.task_type == "join_final_stitch":
            total = row.params.get("total_frames")
            yield _check("joined video", row, total if isinstance(total, int) else None)


def _segment_index(row: Task) -> int:
    index = row.params.get("segment_index")
    return index if isinstance(index, int) else -1


def _transition_length(row: Task) -> int | None:
    join = row.params.get("join")
    if not isinstance(join, Mapping):
        return None
    try:
        return JoinPlan.model_validate(dict(join)).length
    except ValueError:
        return None


def _travel_plan(stitch: Task) -> FramePlan | None:
    """The plan that the stitch goes by; None for a row that it could not go by either."""
    from source.params.travel import StitchParams
    from source.planning.travel import stitch_plan
    from source.task_registry import registry

    try:
        params: Any = registry().get(stitch.task_type).parse(stitch.params).params
        assert isinstance(params, StitchParams)
        return stitch_plan(params, params.continued_frames)
    except InvalidInput:
        return None
