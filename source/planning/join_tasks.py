"""The rows of a join project's children. Pure: no files, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headless.options import GenerationOptions
from source.errors import InvalidInput
from source.params.base import flatten_params, parse_params
from source.params.joins import ClipRange, JoinPlan, JoinSegmentParams, ProjectParams
from source.planning.joins import total_frames
from source.store.types import NewTask, Task, child_id

#: a join has this prompt when nobody gave one
DEFAULT_PROMPT = "smooth transition"
#: settings that all joins of a project share, because their frames stand in one video
COMMON = ("aspect_ratio", "fps", "fps_tolerance", "use_input_video_resolution", "use_input_video_fps", "audio_url")

REVERSE_KEY = "join_reverse:0"
FINAL_KEY = "join_final_stitch:0"


def join_key(index: int) -> str:
    return f"join_clips_segment:{index}"


def details_of(row: Task, kind: type[ProjectParams]) -> dict[str, Any]:
    """The project's own parameters, from all levels of its row."""
    return flatten_params(row.params, kind)


def join_settings(
    details: Mapping[str, Any],
    overrides: Sequence[Mapping[str, Any]],
    project: ProjectParams,
    options_class: type[GenerationOptions],
) -> list[JoinSegmentParams]:
    """What each join is made with: the project's settings, and over them its own. Raises InvalidInput."""
    made = []
    for index, override in enumerate(overrides):
        parsed = parse_params(JoinSegmentParams, {"full_orchestrator_payload": details, **override}, options_class)
        settings = parsed.params
        common = {name: (getattr(settings, name), getattr(project, name)) for name in COMMON}
        common["resolution"] = (settings.options.resolution, project.options.resolution)
        for name, (own, shared) in common.items():
            if own != shared:
                raise InvalidInput(
                    f"{name} is {own} for join {index} and {shared} for the project; all joins share it, so give it "
                    "once, beside per_join_settings",
                    field="per_join_settings",
                )
        made.append(settings.model_copy(update={"model": settings.model or project.model}))
    return made


@dataclass(frozen=True)
class JoinProject:
    """Everything that the children of one project are made of."""

    row: Task
    details: Mapping[str, Any]
    #: size, rate and shape of all frames, as parameters
    harmony: Mapping[str, Any]
    clips: tuple[ClipRange, ...]
    #: for people and front ends
    clip_list: tuple[Mapping[str, Any], ...]
    joins: tuple[JoinPlan, ...]
    settings: tuple[JoinSegmentParams, ...]
    overrides: tuple[Mapping[str, Any], ...]

    @property
    def total_frames(self) -> int:
        return total_frames(self.clips, self.joins)

    @property
    def shared(self) -> dict[str, Any]:
        """What every child carries, with the names that servers and front ends read."""
        run_id = str(self.details.get("run_id") or self.row.id)
        return {
            "orchestrator_task_id_ref": self.row.id,
            "orchestrator_run_id": run_id,
            "run_id": run_id,
            "project_id": self.row.project_id,
            "parent_generation_id": self.details.get("parent_generation_id"),
            "clip_list": [dict(clip) for clip in self.clip_list],
            "num_joins": len(self.joins),
            "full_orchestrator_payload": dict(self.details),
        }

    def children(self, *, prompts: NewTask | None = None) -> tuple[NewTask, ...]:
        """The rows, the final stitch last. Transitions wait for no other transition."""
        reverse = self._reverse()
        before = tuple(task for task in (prompts, reverse) if task is not None)
        joins = [self._join(index, before) for index in range(len(self.joins))]
        return (*before, *joins, self._final(reverse))

    def _reverse(self) -> NewTask | None:
        """The first clip played backwards, where a clip of the project is that task's output."""
        if all(clip.task_id is None for clip in self.clips):
            return None
        first = self.clips[0]
        payload = {**self.shared, **self.harmony, "clip": first.model_dump(exclude_none=True)}
        return NewTask.child(self.row, REVERSE_KEY, "join_reverse", payload)

    def _join(self, index: int, before: Sequence[NewTask]) -> NewTask:
        settings, first, second = self.settings[index], self.clips[index], self.clips[index + 1]
        payload = {
            **self.overrides[index],
            **self.shared,
            **self.harmony,
            "join_index": index,
            "is_first_join": index == 0,
            "is_last_join": index == len(self.joins) - 1,
            "starting_video_path": first.path,
            "ending_video_path": second.path,
            "prompt": (settings.options.prompt or "").strip() or DEFAULT_PROMPT,
            "negative_prompt": settings.options.negative_prompt or " ",
            "model": settings.model,
            "seed": -1 if settings.options.seed is None else settings.options.seed,
            "context_frame_count": settings.context_frame_count,
            "gap_frame_count": settings.gap_frame_count,
            "replace_mode": settings.replace_mode,
            "join": self.joins[index].model_dump(),
            "before": first.model_dump(exclude_none=True),
            "after": second.model_dump(exclude_none=True),
        }
        return NewTask.child(
            self.row, join_key(index), "join_clips_segment", payload, tuple(task.id for task in before)
        )

    def _final(self, reverse: NewTask | None) -> NewTask:
        """It depends on every transition in order, so that it never runs with one missing."""
        payload = {
            **self.shared,
            **self.harmony,
            "clips": [clip.model_dump(exclude_none=True) for clip in self.clips],
            "joins": [join.model_dump() for join in self.joins],
            "total_frames": self.total_frames,
        }
        transitions = [child_id(self.row.id, join_key(index)) for index in range(len(self.joins))]
        needed = (*transitions, *((reverse.id,) if reverse else ()))
        return NewTask.child(self.row, FINAL_KEY, "join_final_stitch", payload, needed)
