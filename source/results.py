"""What a task hands in of one run of the engine."""

from __future__ import annotations

from headless.generation import GenerationResult
from source.task_registry import Done


def finished(result: GenerationResult, *remarks: str) -> Done:
    """The run's file is the output; what it was made with stands in result_data, `remarks` among its notes.

    Of several images, or of several runs (`repeat_generation`), the first is the output and none is lost.
    """
    first, *rest = result.files
    said = [*result.notes, *remarks]
    notes = {"notes": said} if said else {}
    made_with = {"model": result.model, "generation_seconds": round(result.seconds, 3)}
    return Done(first, made_with | notes, extra=tuple(rest))
