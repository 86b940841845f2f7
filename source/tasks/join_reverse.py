"""join_reverse: a clip played backwards, for a video that returns to where it began.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from source.params.joins import ReverseParams
from source.task_registry import Done, TaskContext, task
from source.trail import Category

if TYPE_CHECKING:
    from source.media.clips import Clip
    from Wan2GP.media import Planes, Signalling

#: bytes of decoded frames that are turned round at a time
CHUNK_BYTES = 64 << 20


@task("join_reverse", output="an MP4 video", uses_gpu=False)
def join_reverse(params: ReverseParams, context: TaskContext) -> Done:
    """Write a clip backwards, without sound, created by join_clips_orchestrator for loop_first_clip."""
    from source.joining import Footage, Harmony, located
    from Wan2GP.media import VideoWriter, probe_video

    harmony = Harmony.of(params, located(params.clip, context, field="clip"))
    footage = Footage.open(params.clip, harmony, context, field="clip")
    output = context.scratch / "reversed.mp4"
    start, stop = footage.range.start, footage.range.stop
    signalling = harmony.signalling_beside(footage.clip)
    with VideoWriter(output, fps=harmony.fps, size=harmony.size, signalling=signalling) as writer:
        for done, planes in enumerate(backwards(footage.clip, start, stop, signalling), 1):
            writer.write_planes(planes)
            context.report("reversing", done, stop - start)
    made = probe_video(output).num_frames
    context.trail.frames(Category.FRAME, "reversed clip", expected=stop - start, actual=made)
    return Done(output, {"num_frames": made})


def backwards(clip: Clip, start: int, stop: int, signalling: Signalling) -> Iterator[Planes]:
    """The frames stop-1 … start. Holds CHUNK_BYTES of them: each chunk is decoded forwards and given in reverse."""
    size = max(1, CHUNK_BYTES * 2 // (3 * clip.size[0] * clip.size[1]))
    for end in range(stop, start, -size):
        yield from reversed(list(clip.planes(max(start, end - size), end, signalling)))
