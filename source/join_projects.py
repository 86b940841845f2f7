"""From clips to the rows of a join project: everything is planned, and refused, before anything is generated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from source.joining import Harmony, check_joining_model
from source.params.joins import ClipRange, JoinPlan, JoinSegmentParams, ProjectParams
from source.planning.edits import with_running_sound
from source.planning.join_tasks import DEFAULT_PROMPT, JoinProject, details_of, join_settings
from source.planning.joins import Wanted, kept, plan_joins
from source.planning.prompts import Picture, Shot, prompts_task
from source.store.types import NewTask
from source.task_registry import Spawned, TaskContext
from source.trail import Category


@dataclass(frozen=True)
class ClipRow:
    """The clips of a project, in order.

    overrides   for each join: the settings that differ from the project's
    picture     (clip, frame) -> that frame in a file that every worker can read
    removed     for each join within one video: the frames that were taken out there; its sound runs on
    """

    harmony: Harmony
    clips: tuple[ClipRange, ...]
    clip_list: tuple[Mapping[str, Any], ...]
    overrides: tuple[Mapping[str, Any], ...]
    picture: Callable[[int, int], Picture]
    removed: tuple[int, ...] | None = None


def spawn(params: ProjectParams, context: TaskContext, row: ClipRow) -> Spawned:
    """The children of a project. Raises InvalidInput, Unsupported, ModelUnavailable."""
    details = details_of(context.task, type(params))
    settings = join_settings(details, row.overrides, params, type(params.options))
    joins = _planned(settings, context, row)
    project = JoinProject(
        row=context.task,
        details=details,
        harmony=row.harmony.as_params,
        clips=row.clips,
        clip_list=row.clip_list,
        joins=joins,
        settings=tuple(settings),
        overrides=row.overrides,
    )
    for index, join in enumerate(joins):
        context.trail.note(Category.CHAIN, f"join {index}", **join.model_dump())
    context.trail.note(Category.STITCH, "joined video", expected=project.total_frames)
    children = project.children(prompts=_prompts(project, row))
    return Spawned(children, children[-1].id)


def _planned(settings: Sequence[JoinSegmentParams], context: TaskContext, row: ClipRow) -> tuple[JoinPlan, ...]:
    wanted = []
    for each in settings:
        step, min_frames = check_joining_model(context, each.model, each.options)
        wanted.append(Wanted.of(each, step=step, min_frames=min_frames))
    joins = plan_joins([clip.length for clip in row.clips], wanted)
    if row.removed is None:
        return joins
    return tuple(with_running_sound(join, removed) for join, removed in zip(joins, row.removed, strict=True))


def _prompts(project: JoinProject, row: ClipRow) -> NewTask | None:
    """The task that asks a vision-language model about the joins that want it."""
    shots = [_shot(project, row, index) for index, each in enumerate(project.settings) if each.enhance_prompt]
    if not shots:
        return None
    model = next(each.enhance_prompt_model for each in project.settings if each.enhance_prompt)
    return prompts_task(project.row, project.shared, kind="join", shots=shots, model=model)


def _shot(project: JoinProject, row: ClipRow, index: int) -> Shot:
    """Four frames in the order of time: first and last kept frame of the clip before, and of the clip after."""
    ranges = kept(project.clips, project.joins)
    settings, join = project.settings[index], project.joins[index]
    frames = (
        (index, project.clips[index].start),
        (index, ranges[index][1] - 1),
        (index + 1, ranges[index + 1][0]),
        (index + 1, project.clips[index + 1].stop - 1),
    )
    return Shot(
        prompt=(settings.options.prompt or "").strip() or DEFAULT_PROMPT,
        num_frames=join.gap,
        fps=float(row.harmony.fps),
        pictures=tuple(row.picture(clip, frame) for clip, frame in frames),
        index=index,
    )
