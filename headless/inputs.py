"""What a task gives a model, held against what the model declares: checked before the accelerator is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headless.generation import GenerationTask, ModelInfo
from headless.options import GenerationOptions
from Wan2GP.errors import InvalidInput, InvalidMedia, Unsupported
from Wan2GP.media import check_video, probe_image, snap_size

#: option -> the input of a model (`ModelInfo.inputs`) that it feeds; an input's own option comes first
FEEDS = {
    "prompt": "text",
    "image_start": "image_start",
    "image_end": "image_end",
    "video_source": "video_source",
    "video_guide": "control_video",
    "image_guide": "control_video",
    "video_mask": "mask",
    "image_mask": "mask",
    "image_refs": "references",
    "audio_guide": "audio",
    "audio_guide2": "audio",
    "activated_loras": "loras",
}

#: inputs that a model without them may ignore: every task has a prompt
IGNORABLE = frozenset({"text"})

#: how each kind of media is proven usable. Images are decoded by the run itself, before the engine is called; a sound
#: track is left to the decoder that uses it
_PROOFS: dict[str, Callable[[Path], Any]] = {"image": probe_image, "video": check_video}


def check_inputs(task: GenerationTask, model: ModelInfo) -> None:
    """Raises Unsupported, InvalidInput or InvalidMedia, each naming the option at fault."""
    # A prompt of one space is a deliberate empty prompt: travels without any text use it.
    given = {name for name in FEEDS if getattr(task.options, name, None)}
    _refuse_unsupported(given, model, _taken(task.options, model))
    _demand_required({FEEDS[name] for name in given}, model)
    generation_size(task.options, model)
    for name, kind in task.options.media().items():
        for file in _listed(getattr(task.options, name)):
            _check_file(name, kind, Path(file))


def generation_size(options: GenerationOptions, model: ModelInfo) -> tuple[int, int] | None:
    """(width, height) that `model` generates for the resolution asked for; None when none was asked for."""
    if options.size is None:
        return None
    return snap_size(*options.size, model.pixel_block)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _taken(options: GenerationOptions, model: ModelInfo) -> frozenset[str]:
    """The inputs that a model takes for these options: with `svi2pro` an anchor too. Raises Unsupported."""
    if options.svi2pro and not model.svi:
        raise Unsupported(f"the model {model.name} cannot go on from a video by SVI 2 Pro", field="svi2pro")
    return model.inputs | {"references"} if options.svi2pro else model.inputs


def _refuse_unsupported(given: set[str], model: ModelInfo, taken: frozenset[str]) -> None:
    for name, feed in FEEDS.items():
        if name in given and feed not in taken | IGNORABLE:
            takes = ", ".join(sorted(option for option, other in FEEDS.items() if other in taken))
            raise Unsupported(f"the model {model.name} does not take it; of such options it takes {takes}", field=name)


def _demand_required(given: set[str], model: ModelInfo) -> None:
    if "mask" in given and "control_video" not in given:
        raise InvalidInput("a mask says what to keep of video_guide, which is missing", field="video_mask")
    if "video_source" in given:  # a continued video begins with its own frames
        given = given | {"image_start"}
    for name, feed in FEEDS.items():
        if feed in model.required - given:
            raise InvalidInput(f"the model {model.name} cannot work without it", field=name)


def _check_file(name: str, kind: str, file: Path) -> None:
    if not file.is_file():
        raise InvalidMedia(f"there is no file {file}", field=name)
    if kind in _PROOFS:
        try:
            _PROOFS[kind](file)
        except InvalidMedia as error:
            raise InvalidMedia(str(error), field=name) from None


def profile_of(task: GenerationTask) -> int:
    """The memory profile that was asked for; -1 for none."""
    return -1 if task.options.override_profile is None else task.options.override_profile
