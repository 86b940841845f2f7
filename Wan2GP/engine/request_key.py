"""When two runs would make the same frames. No torch here."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from Wan2GP.engine.ahead import Ahead
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.media.digest import content_digest

#: what decides the frames beside the request: another version of one of these may compute another way
_LIBRARIES = ("torch", "diffusers", "transformers")

#: settings that name a file or hold a picture; what is in them counts, not where it is
_MEDIA = frozenset(
    {
        "image_start",
        "image_end",
        "image_refs",
        "video_source",
        "video_guide",
        "video_mask",
        "image_guide",
        "image_mask",
        "vid2vid_init_video",
        "audio_guide",
        "activated_loras",
    }
)

#: settings that say where the model lies while it computes, not what
_PLACING = frozenset({"override_profile"})


def request_key(request: GenerationRequest, form: int = 0) -> str:
    """A hash of the model, the seed, every setting, the content of all media, and the version of what computes.

    `form` is the number of the form in which the caller keeps what it made. LoRA files are told apart by name, size and
    time of change. Raises OSError when a file cannot be read.
    """
    control = request.control_media  # what is drawn from it lies somewhere else in each run
    told = {
        "form": form,
        "libraries": _versions(),
        "model": [request.definition.id, request.definition.model],
        "seed": request.seed,
        "settings": {name: value for name, value in request.settings.items() if name not in _MEDIA | _PLACING},
        "pictures": [request.image_start, *request.image_ends, "references", *request.references],
        "guides": [request.video_source, control.video_guide, control.video_mask],
        "image_guides": [control.image_guide, control.image_mask],
        "drawn_by": list(control.drawn_by),
        "begin": [request.initial_video, request.audio_guide],
        "loras": [_identity(file) for file in request.loras.files],
    }
    text = json.dumps(told, sort_keys=True, default=lambda value: _known(request, value) or _fingerprint(value))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _versions() -> dict[str, str]:
    """Read once: it takes ten times as long as the rest of a key."""
    return {name: version(name) for name in _LIBRARIES}


def remember_digests(request: GenerationRequest, ahead: Ahead) -> None:
    """Note what takes long in the key of a request, so that it is not hashed once more. Raises OSError."""
    control = request.control_media
    files = (request.video_source, control.video_guide, control.video_mask, request.initial_video, request.audio_guide)
    ahead.remember((*request.pictures, *files), _fingerprint)


def _known(request: GenerationRequest, value: Any) -> str | None:
    return request.ahead.digest(value) if request.ahead is not None else None


def _identity(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return file.name, status.st_size, status.st_mtime_ns


def _fingerprint(value: Any) -> Any:
    """What stands for a picture, a file or another value in the key."""
    if isinstance(value, Path):
        return content_digest(value)
    if hasattr(value, "tobytes"):
        return f"{getattr(value, 'shape', '')} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "items"):
        return dict(value)
    return f"{type(value).__name__} {value}"
