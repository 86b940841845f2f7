"""What tells the weights of one model, or of one part of it, from others. No torch here.

A file is the same while its path, its node, its size and both of its times are; one that was written again, or replaced
by another, is never taken for what it was. Two files at different places are the same when their bytes are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from Wan2GP.definitions import ModelDefinition
from Wan2GP.layout import unneeded_parts, where
from Wan2GP.media.digest import FileDigests

#: path, device and node, bytes, times of change of content and of node in nanoseconds
FileState = tuple[str, int, int, int, int, int]

_digests = FileDigests()


def state_of(path: Path) -> FileState:
    """Raises OSError when there is no such file."""
    real = path.resolve()
    status = real.stat()
    return str(real), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def files_in(places: Iterable[Path]) -> tuple[Path, ...]:
    """Every file of these files and folders, in order."""
    found: set[Path] = set()
    for place in places:
        found |= {path for path in place.rglob("*") if path.is_file()} if place.is_dir() else {place}
    return tuple(sorted(path for path in found if path.is_file()))


def states_of(places: Iterable[Path]) -> tuple[FileState, ...]:
    """The state of every file of these files and folders."""
    return tuple(state_of(path) for path in files_in(places))


def same_content(ours: Iterable[Path], theirs: Iterable[Path]) -> bool:
    """Whether two lists of files hold the same bytes in the same order. They are read only when their sizes agree, and
    each once while it stays the same. Raises OSError."""
    one, other = list(ours), list(theirs)
    if [path.stat().st_size for path in one] != [path.stat().st_size for path in other]:
        return False
    return all(_digests.of(a) == _digests.of(b) for a, b in zip(one, other, strict=True))


def model_identity(definition: ModelDefinition, checkpoints: Path) -> str:
    """The definition and the state of every file that the model is loaded from. A changed one gives another."""
    return json.dumps([_told(definition), *map(list, states_of(model_places(definition, checkpoints)))], default=str)


def _told(definition: ModelDefinition) -> list[object]:
    parts = {name: _told(part) for name, part in definition.parts.items()}
    return [definition.id, definition.architecture_name, dict(definition.model), parts]


def model_places(definition: ModelDefinition, checkpoints: Path) -> list[Path]:
    """The files and folders that a model is loaded from, those of the models in it first."""
    found = [place for part in definition.parts.values() for place in model_places(part, checkpoints)]
    layout = where(definition, checkpoints)
    if layout is None:
        return found
    skipped = unneeded_parts(definition)
    if layout.folder.is_dir():
        found += [path for path in layout.folder.iterdir() if path.name not in skipped]
    found += [weight.path for weight in layout.files]
    return found + [place for place in (layout.audio_encoder, layout.upsampler) if place is not None]
