"""The task types of the chaos: no other worker knows them, and its workers know no other.

chaos_clip      {"misfortune": "out_of_memory", "times": 1}   a picture by the shipped fake engine
chaos_parent    {"children": 3}                               as many clips in a chain, the last is its result
"""

from __future__ import annotations

from pydantic import Field

from headless.options import GenerationOptions
from source.params.base import TaskParams
from source.store.types import NewTask
from source.task_registry import Done, Spawned, TaskContext, TaskRegistry, TaskType

CLIP, PARENT = "chaos_clip", "chaos_parent"
MODELS = ("fake_image", "fake_t2v")
#: what stands before the name of a misfortune in a prompt, where the engine finds it
MISFORTUNE = "misfortune:"
FRAMES = 5


class ClipParams(TaskParams):
    """A run of the fake."""

    misfortune: str = Field("", description="one of source.chaos.engine.MISFORTUNES")
    times: int = Field(1, ge=1, description="claims that meet it")


class ParentParams(TaskParams):
    """An orchestrator."""

    children: int = Field(3, ge=1, le=20)


def clip(params: ClipParams, context: TaskContext) -> Done:
    """Generate; the first claims may be told to go wrong."""
    unlucky = params.misfortune and context.task.claim_number <= params.times
    prompt = f"{MISFORTUNE}{params.misfortune}" if unlucky else f"task {context.task.id}"
    options = GenerationOptions(prompt=prompt, video_length=FRAMES, seed=context.task.claim_number)
    return Done(context.generate(params.model or MODELS[0], options).output)


def parent(params: ParentParams, context: TaskContext) -> Spawned:
    """Fan out into a chain."""
    children: list[NewTask] = []
    for number in range(params.children):
        before = (children[-1].id,) if children else ()
        children.append(NewTask.child(context.task, f"clip:{number}", CLIP, {"model": MODELS[number % 2]}, before))
    return Spawned(tuple(children), final_child=children[-1].id)


def chaos_registry() -> TaskRegistry:
    """Both, and nothing else."""
    known = TaskRegistry()
    known.register(TaskType(CLIP, ClipParams, clip, "A picture by the fake engine.", "a PNG image"))
    known.register(TaskType(PARENT, ParentParams, parent, "A chain of clips.", "a PNG image", uses_gpu=False))
    return known
