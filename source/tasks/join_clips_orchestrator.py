"""join_clips_orchestrator: plan the joins of several clips and fan out their transitions and the final stitch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from source.errors import InvalidInput
from source.params.joins import DEFAULT_MODEL, ClipRange, JoinClipsParams
from source.planning.join_tasks import REVERSE_KEY
from source.store.types import child_id
from source.task_registry import Spawned, TaskContext, task

if TYPE_CHECKING:
    from source.media.clips import Clip
    from source.planning.prompts import Picture


@task(
    "join_clips_orchestrator",
    output="an MP4 video: all clips with their transitions",
    default_model=DEFAULT_MODEL,
    uses_gpu=False,
)
def join_clips_orchestrator(params: JoinClipsParams, context: TaskContext) -> Spawned:
    """Join clips to one video: a generated transition between each two, spliced from the originals once."""
    from source.join_projects import ClipRow, spawn
    from source.joining import Harmony, checked_sound

    listed = params.clip_list[:1] if params.loop_first_clip else params.clip_list
    files = [context.fetch(clip.url, kind="video", field=f"clip_list[{i}].url") for i, clip in enumerate(listed)]
    harmony = Harmony.of(params, files[0])
    views = [harmony.view(file) for file in files]
    checked_sound({f"clip_list[{i}].url": view for i, view in enumerate(views)}, params.audio_url, context)
    clips = [
        ClipRange(path=clip.url, stop=view.num_frames, num_frames=view.num_frames)
        for clip, view in zip(listed, views, strict=True)
    ]
    if params.loop_first_clip:
        frames = clips[0].num_frames
        clips.append(ClipRange(task_id=child_id(context.task.id, REVERSE_KEY), stop=frames, num_frames=frames))
    return spawn(
        params,
        context,
        ClipRow(
            harmony=harmony,
            clips=tuple(clips),
            clip_list=tuple(clip.model_dump(exclude_none=True) for clip in params.clip_list),
            overrides=_overrides(params, len(clips) - 1),
            picture=lambda clip, frame: _picture(clips, views, clip, frame),
        ),
    )


def _overrides(params: JoinClipsParams, count: int) -> tuple[dict[str, Any], ...]:
    given = params.per_join_settings
    if len(given) > count:
        raise InvalidInput(f"has {len(given)} entries for {count} joins", field="per_join_settings")
    return tuple(given) + ({},) * (count - len(given))


def _picture(clips: list[ClipRange], views: list[Clip], clip: int, frame: int) -> Picture:
    """A frame in an original file. A clip played backwards shows those of the first clip."""
    from source.planning.prompts import Picture

    if clips[clip].path is None:
        clip, frame = 0, views[0].num_frames - 1 - frame
    return Picture(clips[clip].path or "", views[clip].source_frame(frame))
