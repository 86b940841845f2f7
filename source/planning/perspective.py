"""The rows that make a picture in a different perspective. Pure: no files, no database.

user_persp    the pose (depth) of the picture
t2i           a picture from the words alone
extract       its first frame, whatever the model made it as
t2i_persp     the pose (depth) of that
final_gen     a video from one to the other; its last frame is the result
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from source.params.perspective import PerspectiveParams
from source.store.types import NewTask, Task, child_id

LAST_SEED = 2**32 - 1
#: name in the rows -> key of the child
ROLES = {name: f"{name}:0" for name in ("user_persp", "t2i", "extract", "t2i_persp", "final_gen")}
#: task type that draws a perspective
DRAWN_BY = {"pose": "generate_openpose", "depth": "generate_depth"}


def perspective_tasks(row: Task, params: PerspectiveParams, image_model: str) -> tuple[NewTask, ...]:
    """The children of `row`, the final one last; the same ones however often they are asked for."""
    ids = {name: child_id(row.id, key) for name, key in ROLES.items()}
    shared = _shared(row, params, ids)
    drawing, seed = DRAWN_BY[params.perspective_type], first_seed(row, params)

    def child(name: str, task_type: str, payload: Mapping[str, Any], *after: str) -> NewTask:
        needed = tuple(ids[each] for each in after)
        return NewTask.child(row, ROLES[name], task_type, {**payload, **shared}, needed)

    return (
        child("user_persp", drawing, {"input_image_path": params.input_image_path}),
        child("t2i", "wgp", _still(params, image_model, seed)),
        child("extract", "extract_frame", {"input_video_task_id": ids["t2i"], "frame_index": 0}, "t2i"),
        child("t2i_persp", drawing, {"input_image_task_id": ids["extract"]}, "extract"),
        child("final_gen", "dp_final_gen", _final(params, ids, seed), "user_persp", "extract", "t2i_persp"),
    )


def first_seed(row: Task, params: PerspectiveParams) -> int:
    """The seed of the picture; where none is asked for one by chance, which stays the same for this row."""
    seed = params.options.seed
    if seed is None or seed < 0:
        return int.from_bytes(hashlib.sha256(row.id.encode()).digest()[:4], "big")
    return seed


def _shared(row: Task, params: PerspectiveParams, ids: Mapping[str, str]) -> dict[str, Any]:
    run_id = str(row.params.get("run_id") or row.id)
    shared: dict[str, Any] = {
        "orchestrator_task_id_ref": row.id,
        "orchestrator_run_id": run_id,
        "dp_orchestrator_payload": {
            "run_id": run_id,
            "orchestrator_task_id": row.id,
            "perspective_type": params.perspective_type,
            "task_ids": dict(ids),
        },
    }
    return shared | ({"skip_cleanup_enabled": True} if params.debug_mode or params.skip_cleanup else {})


def _still(params: PerspectiveParams, model: str, seed: int) -> dict[str, Any]:
    """One frame from the words alone: steps, guidance and LoRAs are for the model of the video."""
    options = params.options
    words = {"prompt": options.prompt, "negative_prompt": options.negative_prompt}
    given = {name: text for name, text in words.items() if text is not None}
    return given | {"model": model, "resolution": options.resolution, "seed": seed, "video_length": 1}


def _final(params: PerspectiveParams, ids: Mapping[str, str], seed: int) -> dict[str, Any]:
    own = ("perspective_type", "input_image_path", "output_video_frames", "fps_helpers", "use_mask_for_first_frame")
    pictures = (
        {"target_image_task_id": ids["extract"]}
        if params.perspective_type == "pose"
        else {"start_depth_task_id": ids["user_persp"], "end_depth_task_id": ids["t2i_persp"]}
    )
    eased = {"easing": params.easing} if params.perspective_type == "pose" else {}
    return {
        **params.options.to_engine(),
        **{name: getattr(params, name) for name in own},
        **pictures,
        **eased,
        "model": params.model,
        "seed": (seed + 1) % (LAST_SEED + 1),
    }
