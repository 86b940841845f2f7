"""What each segment of a travel is asked for, and the rows of its children. Pure: no files, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from source.errors import InvalidInput
from source.params.base import flatten_params
from source.params.travel import LAST_SEED, SegmentSettings, StitchParams, TravelParams
from source.planning import svi
from source.planning.frames import FramePlan, SegmentPlan, plan_frames
from source.planning.guidance import guidance_task
from source.planning.prompts import Picture, Shot, prompts_task
from source.planning.upscale import upscale_task
from source.store.types import NewTask, Task, child_id

Entry = TypeVar("Entry")

LORA_KNOBS = frozenset({"activated_loras", "loras_multipliers"})


@dataclass(frozen=True)
class TravelPlan:
    """The children of a travel: what is prepared for all, the segments in order, the stitch, the upscaling."""

    frames: FramePlan
    children: tuple[NewTask, ...]

    @property
    def final_child(self) -> str:
        """The upscaling, else the stitch, without one the last segment."""
        return self.children[-1].id


def plan_frame_numbers(params: TravelParams, *, min_frames: int, step: int, continued: int = 0) -> FramePlan:
    """The frame plan of a travel. Raises InvalidInput for lengths and overlaps that no plan can honour.

    min_frames, step    the lengths that the model makes
    continued           frames of the video that the travel continues, at the travel's own rate
    """
    if params.mode == "svi" and params.svi_predecessor_video_url and not continued:
        continued = svi.OVERLAP  # of the predecessor, the result holds what segment 0 shares with it
    if params.mode == "svi" and 0 < continued < svi.LEAST_FRAMES and params.continue_from_video_resolved_path:
        raise InvalidInput(
            f"has {continued} frames, but SVI continues at least {svi.LEAST_FRAMES}",
            field="continue_from_video_resolved_path",
        )
    frames = plan_frames(
        params.segment_frames_expanded,
        overlaps_of(params),
        chained=params.chained,
        min_frames=min_frames,
        step=step,
        continued=continued,
        packed=params.consolidate_segments,
        borders=borders(params),
    )
    return replace(frames, ends_in_image=not params.continue_from_video_resolved_path)


def stitch_plan(params: StitchParams, continued: int) -> FramePlan:
    """The plan of a travel, made anew from the numbers in the row of its stitch. `continued`: frames before it."""
    frames = plan_frames(
        params.segment_frames_expanded,
        params.frame_overlap_settings_expanded,
        chained=params.chained,
        continued=continued,
        packed=bool(params.generation_starts),
        borders=params.generation_starts,
    )
    return replace(frames, ends_in_image=params.initial_continued_video_path is None)


def overlaps_of(params: TravelParams) -> list[int]:
    """The overlap of each join as it was asked for; of a single segment, that with a continued video."""
    given = svi.OVERLAP if params.mode == "svi" else params.frame_overlap_expanded
    joins = max(1, params.num_segments - 1)
    return [given] * joins if isinstance(given, int) else given[:joins]


def plan_travel(
    params: TravelParams,
    row: Task,
    *,
    min_frames: int,
    step: int,
    continued: int = 0,
    size: tuple[int, int] | None = None,
) -> TravelPlan:
    """The rows of a travel's children. `size` is what the model generates: (width, height) in pixels.

    Raises InvalidInput for lengths and overlaps that no plan can honour, Unsupported for guidance of another kind.
    """
    frames = plan_frame_numbers(params, min_frames=min_frames, step=step, continued=continued)
    shared = shared_params(params, row)
    asked = [segment for segment in frames.segments if needs_prompt(params, segment)]
    prompts = _prompts(params, row, shared, asked)
    guidance = _guidance(params, row, shared, frames, size or params.options.size or (0, 0))
    segments = [
        segment_task(
            params, row, frames, segment,
            after=_ids(guidance, prompts if segment in asked else None),
        )
        for segment in frames.segments
    ]  # fmt: skip
    children = [each for each in (guidance, prompts) if each] + segments
    if params.stitched:
        children.append(stitch_task(params, row, frames))
    if params.upscaled:
        children.append(_upscaling(params, row, frames, children[-1].id, size or params.options.size or (0, 0)))
    return TravelPlan(frames, tuple(children))


def _ids(*tasks: NewTask | None) -> tuple[str, ...]:
    return tuple(task.id for task in tasks if task)


def segment_key(index: int) -> str:
    return f"travel_segment:{index}"


def segment_task(
    params: TravelParams, row: Task, frames: FramePlan, segment: SegmentPlan, after: tuple[str, ...] = ()
) -> NewTask:
    """The row of one segment, with the names that servers and front ends read. `after`: what else it waits for."""
    index, first = segment.index, segment.sources[0]
    payload = _knobs(params) | {
        **shared_params(params, row),
        "segment_index": index,
        "is_first_segment": index == 0,
        "is_last_segment": index == len(frames.segments) - 1,
        "base_prompt": prompt_for(params, first),
        "negative_prompt": negative_prompt_for(params, first),
        # SVI adds its context itself, as it does for a segment on its own.
        "segment_frames_target": segment.new_frames if params.mode == "svi" else segment.generated,
        "frame_overlap_from_previous": segment.overlap_previous,
        "frame_overlap_with_next": segment.overlap_next,
        "seed_to_use": seed_for(params, first),
        "model_name": params.model,
        "total_frames": frames.total_frames,
        "vace_image_refs_to_prepare_by_worker": _references(params, segment),
        "segment_image_download_dir": None,
        **{name: getattr(params, name) for name in HANDED_DOWN},
        **_continuing(params, frames, segment),
        **_consolidated(params, segment),
        **guidance_of(params, segment),
    }
    before = (child_id(row.id, segment_key(index - 1)),) if params.chained and index else ()
    phases = entry(params.phase_configs_expanded, first)
    decided = phases.knobs() if phases else {}  # by the segment's own phases: these knobs are not the travel's
    values = {name: value for name, value in payload.items() if name not in decided} | _own_settings(params, first)
    return NewTask.child(row, segment_key(index), "travel_segment", values, before + after)


#: parameters of the travel that its segments carry under the same names
HANDED_DOWN = (
    "subsequent_starting_strength_adjustment",
    "desaturate_subsequent_starting_frames",
    "adjust_brightness_subsequent_starting_frames",
    "after_first_post_generation_saturation",
    "after_first_post_generation_brightness",
)


def _knobs(params: TravelParams) -> dict[str, Any]:
    """The engine's knobs but the LoRAs. These a segment reads from the travel's own parameters, so that a phase_config
    of its own can still replace the travel's."""
    return {name: value for name, value in params.options.to_engine().items() if name not in LORA_KNOBS}


def _own_settings(params: TravelParams, source: int) -> dict[str, Any]:
    """phase_config and LoRAs that were given for one segment."""
    own: dict[str, Any] = {}
    if phases := entry(params.phase_configs_expanded, source):
        own["phase_config"] = phases.model_dump(exclude_unset=True)
    if loras := entry(params.loras_per_segment_expanded, source):
        own["loras"] = [each.model_dump() for each in (*params.loras, *loras)]
    return own


def _references(params: TravelParams, segment: SegmentPlan) -> list[dict[str, Any]]:
    given = params.vace_image_refs_to_prepare_by_worker
    own = (each for each in given if each.segment_idx_for_naming in segment.sources)
    return [each.model_dump() | {"segment_idx_for_naming": segment.index} for each in own]


def _continuing(params: TravelParams, frames: FramePlan, segment: SegmentPlan) -> dict[str, Any]:
    """How a segment goes on from what is before it. The first of an SVI travel is generated as any other."""
    video = params.continue_from_video_resolved_path if segment.index == 0 else None
    if params.mode != "svi":
        return {"use_svi": False, "continue_from_video_resolved_path_for_guide": video}
    follows = bool(segment.index or frames.continued)
    return {"use_svi": follows, "model_type": "i2v", "continue_from_video_resolved_path_for_guide": video}


def _consolidated(params: TravelParams, segment: SegmentPlan) -> dict[str, Any]:
    """Which images a generation passes, where its index does not say it."""
    if segment.sources == (segment.index,):
        return {"consolidated_end_anchor_idx": None, "consolidated_keyframe_positions": None}
    return {
        "consolidated_end_anchor_idx": end_image_index(params, segment),
        "consolidated_keyframe_positions": list(segment.end_positions),
    }


def end_image_index(params: TravelParams, segment: SegmentPlan) -> int:
    """Place of the image that ends a generation; a continued video stands for the first image."""
    return segment.sources[-1] + (0 if params.continue_from_video_resolved_path else 1)


def guidance_of(params: TravelParams, segment: SegmentPlan) -> dict[str, Any]:
    """The structure guidance of one segment: the travel's, and where in it the generation begins.

    An offset of the travel's own is one into its guidance video; videos lie at their positions in the result.
    """
    config = params.guidance
    if not config.enabled:
        return {"structure_guidance": None}
    first = config.frame_offset if config.guidance_video_url else 0
    begins = {"_frame_offset": first + segment.offset, "_guidance_video_url": config.guidance_video_url}
    return {"structure_guidance": config.to_row() | begins}


def _guidance(
    params: TravelParams, row: Task, shared: Mapping[str, Any], frames: FramePlan, size: tuple[int, int]
) -> NewTask | None:
    if not params.guidance.enabled:
        return None
    return guidance_task(row, shared, params.guidance, frames, size, params.fps_helpers)


def needs_prompt(params: TravelParams, segment: SegmentPlan) -> bool:
    """Whether a model writes its prompt: when that is asked for and none was written before."""
    return params.enhance_prompt and not _text(params.enhanced_prompts_expanded, segment.sources[0])


def _prompts(
    params: TravelParams, row: Task, shared: Mapping[str, Any], segments: Sequence[SegmentPlan]
) -> NewTask | None:
    if not segments:
        return None
    shots = [_shot(params, segment) for segment in segments]
    return prompts_task(row, shared, kind="travel", shots=shots, model=params.enhance_prompt_model)


def _shot(params: TravelParams, segment: SegmentPlan) -> Shot:
    """What a prompt is wanted for: the user's words, the picture it starts from and the one it ends with."""
    images, end = params.input_image_paths_resolved, end_image_index(params, segment)
    start = end - len(segment.sources)
    pictures = [Picture(images[index], None) for index in (start, end) if 0 <= index < len(images)]
    if start < 0 and params.continue_from_video_resolved_path:
        pictures.insert(0, Picture(params.continue_from_video_resolved_path, -1))
    prompt = _text(params.base_prompts_expanded, segment.sources[0]) or params.base_prompt
    return Shot(prompt, segment.new_frames, float(params.fps_helpers), tuple(pictures), segment.index)


def stitch_task(params: TravelParams, row: Task, frames: FramePlan) -> NewTask:
    """The row of the stitch. It depends on every segment, so that it never runs with one missing."""
    payload = shared_params(params, row) | {
        # As planned: the stitch does not know the model that decided what lengths there are.
        "segment_frames_expanded": planned_lengths(frames),
        "num_total_segments_generated": len(frames.segments),
        "frame_overlap_settings_expanded": overlaps_of(params),
        "generation_starts": list(frames.generation_starts),
        "continued_frames": frames.continued,
        "initial_continued_video_path": params.continue_from_video_resolved_path,
        "use_svi": params.mode == "svi",
        "fps_final_video": params.fps_helpers,
        "crossfade_sharp_amt": params.crossfade_sharp_amt,
        "upscale_factor": params.upscale_factor,
        "upscale_model_name": params.upscale_model_name,
        "seed_for_upscale": upscale_seed(params),
        "final_stitched_output_path": f"travel_final_stitched_{run_id(row)}.mp4",
    }
    segments = tuple(child_id(row.id, segment_key(segment.index)) for segment in frames.segments)
    return NewTask.child(row, "travel_stitch:0", "travel_stitch", payload, segments)


def planned_lengths(frames: FramePlan) -> list[int]:
    """New frames of each segment of the travel, also of those that share a generation."""
    ends = [(0, *segment.ends) for segment in frames.segments]
    return [stop - start for each in ends for start, stop in pairwise(each)]


def _upscaling(params: TravelParams, row: Task, frames: FramePlan, after: str, size: tuple[int, int]) -> NewTask:
    return upscale_task(
        row, shared_params(params, row), after=after, factor=params.upscale_factor,
        model=params.upscale_model_name or "", size=size, seed=upscale_seed(params), frames=frames.total_frames,
    )  # fmt: skip


def upscale_seed(params: TravelParams) -> int:
    return -1 if params.seed_base < 0 else (params.seed_base + 5000) % (LAST_SEED + 1)


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


def borders(params: TravelParams) -> tuple[int, ...]:
    """The segments that ask for something else than the one before them: these do not share a generation."""
    asked = [_asked(params, index) for index in range(params.num_segments)]
    return tuple(index for index in range(1, len(asked)) if asked[index] != asked[index - 1])


def _asked(params: TravelParams, index: int) -> tuple[Any, ...]:
    """Everything that was given for one segment, but its length and its images."""
    references = params.vace_image_refs_to_prepare_by_worker
    return (
        prompt_for(params, index),
        negative_prompt_for(params, index),
        entry(params.seeds_expanded, index),
        entry(params.phase_configs_expanded, index),
        entry(params.loras_per_segment_expanded, index) or [],
        [(each.original_path, each.strength_to_apply) for each in references if each.segment_idx_for_naming == index],
    )


def prompt_for(params: TravelParams, index: int) -> str:
    """Enhanced prompt, then the segment's, then the common one; wrapped by the common texts. Never empty."""
    own = _text(params.enhanced_prompts_expanded, index) or _text(params.base_prompts_expanded, index)
    return wrapped(own or params.base_prompt, params)


def wrapped(prompt: str, params: SegmentSettings) -> str:
    """A prompt between the travel's common texts. Never empty."""
    parts = (params.text_before_prompts, prompt, params.text_after_prompts)
    return " ".join(part.strip() for part in parts if part.strip()) or " "


def negative_prompt_for(params: TravelParams, index: int) -> str:
    return _text(params.negative_prompts_expanded, index) or params.negative_prompt or " "


def _text(texts: Sequence[str], index: int) -> str:
    return (entry(texts, index) or "").strip()


def entry(entries: Sequence[Entry], index: int) -> Entry | None:
    """What a list that may be too short says about one segment."""
    return entries[index] if index < len(entries) else None


def seed_for(params: TravelParams, index: int) -> int:
    """The segment's own seed, 0 and -1 included, else one of its own from seed_base; -1 stays random."""
    own = entry(params.seeds_expanded, index)
    if own is not None:
        return own
    return -1 if params.seed_base < 0 else (params.seed_base + index) % (LAST_SEED + 1)
