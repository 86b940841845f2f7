"""edit_video_orchestrator: portions of a video are generated anew; the rest stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from source.errors import InvalidInput
from source.params.joins import DEFAULT_MODEL, EDIT_FPS_TOLERANCE, ClipRange, EditVideoParams, Portion
from source.planning.edits import keepers, plan_portions
from source.task_registry import Spawned, TaskContext, task


@task("edit_video_orchestrator", output="an MP4 video: the edited whole", default_model=DEFAULT_MODEL, uses_gpu=False)
def edit_video_orchestrator(params: EditVideoParams, context: TaskContext) -> Spawned:
    """Generate portions of a video anew and join them to what stays, which is spliced from the original."""
    from source.join_projects import ClipRow, spawn
    from source.joining import Harmony, checked_sound
    from source.planning.prompts import Picture

    path = params.source_video_url
    source = context.fetch(path, kind="video", field="source_video_url")
    harmony = Harmony.of(at_counted_rate(params), source)
    view = harmony.view(source)
    checked_sound({"source_video_url": view}, params.audio_url, context)
    total = view.num_frames
    portions = plan_portions(params.portions_to_regenerate, total, params.source_video_total_frames)
    ranges = keepers(portions, total, keep_edges=params.replace_mode)
    return spawn(
        params,
        context,
        ClipRow(
            harmony=harmony,
            clips=tuple(ClipRange(path=path, start=start, stop=stop, num_frames=total) for start, stop in ranges),
            clip_list=tuple({"url": path, "name": f"frames {start}..{stop - 1}"} for start, stop in ranges),
            overrides=_overrides(params, portions),
            picture=lambda _, frame: Picture(path, view.source_frame(frame)),
            removed=tuple(after[0] - before[1] for before, after in pairwise(ranges)),
        ),
    )


def at_counted_rate(params: EditVideoParams) -> EditVideoParams:
    """The portions are numbers of frames at `source_video_fps`, so the whole edit is at that rate."""
    changes: dict[str, Any] = {"fps_tolerance": EDIT_FPS_TOLERANCE}
    if params.source_video_fps:
        changes |= {"fps": params.source_video_fps, "use_input_video_fps": False}
    return params.model_copy(update=changes)


def _overrides(params: EditVideoParams, portions: Sequence[Portion]) -> tuple[dict[str, Any], ...]:
    """What each portion says of itself beats per_join_settings. The new frames are always inserted between keepers.

    `portions` are in the order of time, and so are the settings.
    """
    given = params.per_join_settings
    if len(given) > len(portions):
        raise InvalidInput(f"has {len(given)} entries for {len(portions)} portions", field="per_join_settings")
    settings = [*given, *({} for _ in range(len(portions) - len(given)))]
    return tuple(
        {**own, **portion.settings, "replace_mode": False} for own, portion in zip(settings, portions, strict=True)
    )
