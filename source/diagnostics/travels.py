"""How a finished travel came about, as a video."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from source.errors import InvalidInput, InvalidMedia
from source.params.travel import StitchParams
from source.planning.frames import FramePlan
from source.planning.guidance import GUIDANCE_TYPE
from source.planning.timeline import Layout, timeline_of
from source.planning.travel import stitch_plan
from source.prompting import enhanced_prompt
from source.settings import Settings
from source.store.base import TaskStore
from source.store.types import Status, Task
from source.task_registry import Dependency, registry

if TYPE_CHECKING:
    from source.media.fetch import MediaFetcher
    from source.media.visualization import Visualization


def visualize_travel(
    store: TaskStore, settings: Settings, task_id: str, output: Path | None = None, layout: Layout = "triple"
) -> dict[str, Any]:
    """Draw a stitched travel: its guide, its result, its segments with their prompts and input images.

    `output` is an mp4, `TASK_visualization.mp4` in the working directory when None. Returns what was written.
    Raises TaskNotFound; InvalidInput when the task is no travel that was joined and is done; InvalidMedia when a file
    of it is gone.
    """
    from source.media.fetch import MediaFetcher
    from source.media.visualization import visualize
    from source.storage import task_name
    from source.supabase_storage import storage_for

    row = _finished_travel(store, task_id)
    target = output or Path(f"{task_name(row)}_visualization.mp4")
    with tempfile.TemporaryDirectory() as folder:
        fetcher = MediaFetcher(settings, Path(folder), storage=storage_for(settings, store))
        made = visualize(described(row, store.children(row.id), fetcher, layout), target)
    return {"id": row.id, "output": str(target), "num_frames": made.num_frames, "size": [made.width, made.height]}


def described(row: Task, children: Sequence[Task], fetcher: MediaFetcher, layout: Layout) -> Visualization:
    """What is to be drawn of a travel. Raises InvalidInput when it was not joined, InvalidMedia for files."""
    from source.media.visualization import Panel, Visualization
    from Wan2GP.media import probe_video

    params, plan = _stitched(row, children)
    video = _output(row, fetcher)
    timeline = timeline_of(plan, probe_video(video).num_frames)
    guides = [child for child in children if child.task_type == GUIDANCE_TYPE]
    images = params.input_image_paths_resolved[: len(timeline.anchors)]
    return Visualization(
        video,
        timeline,
        tuple(Panel("guide", _output(guide, fetcher)) for guide in guides),
        tuple(fetcher.fetch(image, kind="image", field=f"input image {index}") for index, image in enumerate(images)),
        _prompts(plan, children, fetcher),
        layout,
    )


def _finished_travel(store: TaskStore, task_id: str) -> Task:
    row = store.get(task_id)
    if row.task_type != "travel_orchestrator":
        hint = f"; its parent is {row.parent_id}" if row.parent_id else ""
        raise InvalidInput(f"only a travel_orchestrator can be visualized, {task_id} is a {row.task_type}{hint}")
    if row.status is not Status.COMPLETE:
        raise InvalidInput(f"the travel {task_id} is {row.status}; a finished one can be visualized")
    return row


def _stitched(row: Task, children: Sequence[Task]) -> tuple[StitchParams, FramePlan]:
    """What the segments were joined by, and their plan."""
    kind = registry().get("travel_stitch")
    stitch = next((child for child in children if child.task_type == kind.name), None)
    if stitch is None:
        raise InvalidInput(f"the segments of travel {row.id} were not joined; visualize one that has a stitch")
    params = kind.parse(stitch.params).params
    assert isinstance(params, StitchParams)
    return params, stitch_plan(params, params.continued_frames)


def _output(row: Task, fetcher: MediaFetcher) -> Path:
    try:
        return fetcher.fetch(row.output_location or "", kind="video", field="output")
    except InvalidMedia as error:
        raise InvalidMedia(f"the result of {row.task_type} {row.id} cannot be shown: {error}") from error


def _prompts(plan: FramePlan, children: Sequence[Task], fetcher: MediaFetcher) -> tuple[str, ...]:
    """One for each segment as it was asked for: those that share a generation share its prompt."""
    finished = [Dependency(child, partial(_output, child, fetcher)) for child in children]
    own: Mapping[int, str] = {
        int(child.params.get("segment_index", 0)): str(child.params.get("base_prompt", ""))
        for child in children
        if child.task_type == "travel_segment"
    }
    return tuple(
        enhanced_prompt(finished, segment.index) or own.get(segment.index, "")
        for segment in plan.segments
        for _ in segment.sources
    )
