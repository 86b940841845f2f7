"""What a pipeline of diffusers makes of prompts, and of pictures, computed once for the same content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from Wan2GP.engine.residency.identity import states_of
from Wan2GP.engine.residency.memory import Memory

Value = TypeVar("Value")

#: beginnings of the names of parts that read prompts, and of those that prepare what they read
_READERS = ("text_encoder", "image_encoder")
_PREPARING = ("tokenizer", "processor", "image_processor", "feature_extractor")


class Remembering:
    """Beside one pipeline: its memory, and what its readers are told apart by beyond their weights."""

    def __init__(self, pipeline: Any, memory: Memory, folder: Path) -> None:
        self._pipeline, self._memory = pipeline, memory
        names = [name for name in pipeline.components if name.startswith(_PREPARING)]
        self._prepared_by = str(states_of(folder / name for name in names))

    def prompts(self, pipeline: Any) -> Callable[..., Any]:
        """What stands in for `encode_prompt` of the pipeline, or of another one over the same parts."""
        encode, name = pipeline.encode_prompt, type(pipeline).__name__

        def encode_prompt(*args: Any, **named: Any) -> Any:
            asked = [name, self._prepared_by, list(args), named]
            return self.of("text", _READERS, asked, lambda: encode(*args, **named))

        return encode_prompt

    def of(self, kind: str, parts: Sequence[str], content: Sequence[Any], compute: Callable[[], Value]) -> Value:
        """What `compute` makes of `content` with the parts whose names begin so."""
        components = self._pipeline.components
        used = [part for name, part in components.items() if name.startswith(tuple(parts)) and _computes(part)]
        about = [*content, str(self._pipeline._execution_device)]
        return self._memory.remembered(kind, used, about, compute)


def remembering(pipeline: Any) -> Remembering:
    """That of a pipeline which `load_pipeline` made."""
    found: Remembering = pipeline.remembering
    return found


def _computes(part: Any) -> bool:
    return isinstance(part, torch.nn.Module)
