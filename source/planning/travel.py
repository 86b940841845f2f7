"""What each segment of a travel is asked for, and the rows of its children. Pure: no files, no database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from source.params.base import flatten_params
from source.params.travel import TravelParams
from source.planning.frames import FramePlan, SegmentPlan, plan_frames
from source.store.types import NewTask, Task, child_id

LAST_SEED = 2**32 - 1
LORA_KNOBS = frozenset({"activated_loras", "loras_multipliers"})


@dataclass(frozen=True)
class TravelPlan:
    """The children of a travel: its segments in order and, when they are to be joined, the stitch."""

    frames: FramePlan
    children: tuple[NewTask, ...]

    @property
    def final_child(self) -> str:
        """The stitch, or without one the last segment."""
        return self.children[-1].id


def plan_travel(params: TravelParams, row: Task, *, min_frames: int, step: int) -> TravelPlan:
    """Raises InvalidInput for lengths and overlaps that no plan can honour."""
    frames = plan_frames(
        params.segment_frames_expanded,
        params.frame_overlap_expanded,
        chained=params.chained,
        min_frames=min_frames,
        step=step,
    )
    segments = [segment_task(params, row, frames, segment) for segment in frames.segments]
    if params.stitched:
        return TravelPlan(frames, (*segments, stitch_task(params, row, frames)))
    return TravelPlan(frames, tuple(segments))


def segment_key(index: int) -> str:
    return f"travel_segment:{index}"


def segment_task(params: TravelParams, row: Task, frames: FramePlan, segment: SegmentPlan) -> NewTask:
    """The row of one segment, with the names that servers and front ends read."""
    index = segment.index
    payload = _knobs(params) | {
        **shared_params(params, row),
        "segment_index": index,
        "is_first_segment": index == 0,
        "is_last_segment": index == len(frames.segments) - 1,
        "base_prompt": prompt_for(params, index),
        "negative_prompt": negative_prompt_for(params, index),
        "segment_frames_target": segment.generated,
        "frame_overlap_from_previous": segment.overlap_previous,
        "frame_overlap_with_next": segment.overlap_next,
        "seed_to_use": seed_for(params.seed_base, index),
        "model_name": params.model,
        "subsequent_starting_strength_adjustment": params.subsequent_starting_strength_adjustment,
        "desaturate_subsequent_starting_frames": params.desaturate_subsequent_starting_frames,
        "adjust_brightness_subsequent_starting_frames": params.adjust_brightness_subsequent_starting_frames,
    }
    before = (child_id(row.id, segment_key(index - 1)),) if params.chained and index else ()
    return NewTask.child(row, segment_key(index), "travel_segment", payload, before)


def _knobs(params: TravelParams) -> dict[str, Any]:
    """The engine's knobs but the LoRAs. These a segment reads from the travel's own parameters, so that a phase_config
    of its own can still replace the travel's."""
    return {name: value for name, value in params.options.to_engine().items() if name not in LORA_KNOBS}


def stitch_task(params: TravelParams, row: Task, frames: FramePlan) -> NewTask:
    """The row of the stitch. It depends on every segment, so that it never runs with one missing."""
    payload = shared_params(params, row) | {
        # As planned: the stitch does not know the model that decided what lengths there are.
        "segment_frames_expanded": [segment.new_frames for segment in frames.segments],
        "num_total_segments_generated": len(frames.segments),
        "frame_overlap_settings_expanded": list(frames.overlaps),
        "fps_final_video": params.fps_helpers,
        "crossfade_sharp_amt": params.crossfade_sharp_amt,
        "final_stitched_output_path": f"travel_final_stitched_{run_id(row)}.mp4",
    }
    segments = tuple(child_id(row.id, segment_key(segment.index)) for segment in frames.segments)
    return NewTask.child(row, "travel_stitch:0", "travel_stitch", payload, segments)


def shared_params(params: TravelParams, row: Task) -> dict[str, Any]:
    """What every child carries."""
    return {
        "orchestrator_task_id_ref": row.id,
        "orchestrator_run_id": run_id(row),
        "project_id": row.project_id,
        "parent_generation_id": details(row).get("parent_generation_id"),
        "parsed_resolution_wh": params.options.resolution,
        "fps_helpers": params.fps_helpers,
        "orchestrator_details": details(row),
    }


def details(row: Task) -> dict[str, Any]:
    """The travel's own parameters, from all levels of the row: what it was planned with is what its children read."""
    return flatten_params(row.params, TravelParams)


def run_id(row: Task) -> str:
    return str(details(row).get("run_id") or row.id)


def prompt_for(params: TravelParams, index: int) -> str:
    """Enhanced prompt, then the segment's, then the common one; wrapped by the common texts. Never empty."""
    own = _entry(params.enhanced_prompts_expanded, index) or _entry(params.base_prompts_expanded, index)
    parts = (params.text_before_prompts, own or params.base_prompt, params.text_after_prompts)
    return " ".join(part.strip() for part in parts if part.strip()) or " "


def negative_prompt_for(params: TravelParams, index: int) -> str:
    return _entry(params.negative_prompts_expanded, index) or params.negative_prompt or " "


def _entry(entries: list[str], index: int) -> str:
    return entries[index].strip() if index < len(entries) else ""


def seed_for(seed_base: int, index: int) -> int:
    """A seed of its own for each segment; -1 stays random."""
    return -1 if seed_base < 0 else (seed_base + index) % (LAST_SEED + 1)
