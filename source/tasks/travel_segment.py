"""travel_segment and individual_travel_segment: generate the frames from one image to the next."""

from __future__ import annotations

from source.params.travel import IndividualSegmentParams, SegmentParams
from source.segments import TravelSegmentProcessor, run_segment
from source.task_registry import Done, TaskContext, task

__all__ = ["TravelSegmentProcessor", "individual_travel_segment", "travel_segment"]


@task("travel_segment", output="an MP4 video")
def travel_segment(params: SegmentParams, context: TaskContext) -> Done:
    """One segment of a travel, created by travel_orchestrator."""
    return run_segment(params, context)


@task("individual_travel_segment", output="an MP4 video")
def individual_travel_segment(params: IndividualSegmentParams, context: TaskContext) -> Done:
    """One segment on its own, from a start image to an end image."""
    return run_segment(params, context)
