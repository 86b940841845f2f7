"""join_final_stitch: the clips of a project and the transitions between them become one video.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from source.errors import InvalidInput
from source.params.joins import FinalStitchParams
from source.task_registry import Dependency, Done, TaskContext, task


@task("join_final_stitch", output="an MP4 video", uses_gpu=False)
def join_final_stitch(params: FinalStitchParams, context: TaskContext) -> Done:
    """Splice clips and transitions to one video, created by an orchestrator of joins or edits."""
    from source.joining import Footage, Harmony, checked_sound, located, splice_project
    from source.media.poster import poster

    transitions = ordered_transitions(context.dependencies(), len(params.joins))
    harmony = Harmony.of(params, located(params.clips[0], context, field="clips[0]"))
    footage = [Footage.open(clip, harmony, context, field=f"clips[{index}]") for index, clip in enumerate(params.clips)]
    output, data = splice_project(
        footage,
        [transition.output for transition in transitions],
        params.joins,
        harmony,
        context,
        output=context.scratch / "joined.mp4",
        song=checked_sound({f"clips[{i}]": each.clip for i, each in enumerate(footage)}, params.audio_url, context),
    )
    if params.total_frames not in (None, data["num_frames"]):
        raise InvalidInput(f"is {params.total_frames}, but the plan makes {data['num_frames']}", field="total_frames")
    return Done(output, data, poster(output, context.scratch / "joined.jpg"))


def ordered_transitions(dependencies: Sequence[Dependency], count: int) -> list[Dependency]:
    """One transition for each join 0 … count-1; of several for one join the newest. Raises InvalidInput for gaps."""
    joins = [each for each in dependencies if each.task.task_type == "join_clips_segment"]
    newest: dict[int, Dependency] = {}
    for each in sorted(joins, key=lambda dependency: dependency.task.created_at):
        index = each.task.params.get("join_index")
        newest[index if isinstance(index, int) else -1] = each
    if sorted(newest) != list(range(count)):
        raise InvalidInput(
            f"{count} transitions are to be laid between the clips, but those of the joins {sorted(newest)} were found",
            field="dependant_on",
        )
    return [newest[index] for index in range(count)]
