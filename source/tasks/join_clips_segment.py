"""join_clips_segment and join_clips: one transition between two clips.

The steps import the media libraries themselves: add_task only needs the declarations, and should start at once.
"""

from __future__ import annotations

from pathlib import Path

from source.errors import InvalidInput
from source.params.joins import DEFAULT_MODEL, JoinPlan, JoinSegmentParams
from source.task_registry import Done, TaskContext, task
from source.trail import Category

#: types whose output may be clip A of a join that depends on it
_BEFORE = ("join_clips_segment", "join_clips")


@task(
    "join_clips_segment",
    output="an MP4 video: both clips joined, or as a child the transition alone",
    default_model=DEFAULT_MODEL,
)
def join_clips_segment(params: JoinSegmentParams, context: TaskContext) -> Done:
    """Join two clips by a generated transition; as a child of an orchestrator, the transition alone."""
    return _transition_alone(params, context) if params.join else _joined(params, context)


@task("join_clips", output="an MP4 video: both clips joined", default_model=DEFAULT_MODEL)
def join_clips(params: JoinSegmentParams, context: TaskContext) -> Done:
    """The older name of join_clips_segment."""
    return join_clips_segment(params, context)


def _transition_alone(params: JoinSegmentParams, context: TaskContext) -> Done:
    """What an orchestrator planned. The final stitch lays it between the originals."""
    from source.joining import Footage, Harmony, Transition, located

    if params.join is None or params.before is None or params.after is None:
        raise InvalidInput("is planned by an orchestrator, together with before and after", field="join")
    harmony = Harmony.of(params, located(params.before, context, field="starting_video_path"))
    before = Footage.open(params.before, harmony, context, field="starting_video_path")
    after = Footage.open(params.after, harmony, context, field="ending_video_path")
    transition = Transition.of(params, params.join, before, after, harmony, _enhanced(params, context))
    output, said = transition.make(context)
    named = output.rename(output.with_name(f"transition_{params.join_index}.mp4"))
    return Done(named, said | {"join_index": params.join_index, "join": params.join.model_dump()})


def _joined(params: JoinSegmentParams, context: TaskContext) -> Done:
    """A join of its own: planned, generated and spliced here."""
    from source.joining import Footage, Harmony, Transition, check_joining_model, checked_sound, splice_project
    from source.media.poster import poster
    from source.planning.joins import Wanted, plan_joins

    step, min_frames = check_joining_model(context, params.model, params.options)
    if not params.ending_video_path:
        raise InvalidInput("is missing; give the clip that the transition leads to", field="ending_video_path")
    first = _starting_clip(params, context)
    second = context.fetch(params.ending_video_path, kind="video", field="ending_video_path")
    harmony = Harmony.of(params, first)
    before = Footage.whole(harmony.view(first), str(first))
    after = Footage.whole(harmony.view(second), str(second))
    audio_url = params.audio_url if params.is_last_join or not _orchestrated(context) else None
    clips = {"starting_video_path": before.clip, "ending_video_path": after.clip}
    song = checked_sound(clips, audio_url, context)
    lengths = (before.range.length, after.range.length)
    join: JoinPlan = plan_joins(lengths, [Wanted.of(params, step=step, min_frames=min_frames)])[0]
    transition, said = Transition.of(params, join, before, after, harmony, _enhanced(params, context)).make(context)
    output, data = splice_project(
        [before, after],
        [transition],
        [join],
        harmony,
        context,
        output=context.scratch / "joined.mp4",
        song=song,
    )
    picture = poster(output, context.scratch / "joined.jpg")
    return Done(output, {"model": said["model"], "notes": said["notes"]} | data, picture)


def _orchestrated(context: TaskContext) -> bool:
    return bool(context.task.params.get("orchestrator_task_id_ref"))


def _starting_clip(params: JoinSegmentParams, context: TaskContext) -> Path:
    """Clip A: as named, or else what the join that this one depends on made."""
    if params.starting_video_path:
        return context.fetch(params.starting_video_path, kind="video", field="starting_video_path")
    for dependency in context.dependencies():
        if dependency.task.task_type in _BEFORE:
            return dependency.output
    raise InvalidInput(
        "is missing; give the clip that the transition leads away from, or depend on the join that makes it",
        field="starting_video_path",
    )


def _enhanced(params: JoinSegmentParams, context: TaskContext) -> str | None:
    """The prompt that a vision-language model wrote for this join; None keeps the row's."""
    from source.prompting import enhanced_prompt

    if not params.enhance_prompt:
        return None
    prompt = enhanced_prompt(context.dependencies(), params.join_index)
    if prompt is None:
        context.trail.warn(
            Category.CHAIN, "the prompt is not enhanced: no enhance_prompts task was made for this join; it is as given"
        )
    return prompt
