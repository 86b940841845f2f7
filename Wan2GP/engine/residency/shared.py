"""Parts that several models have in common, in memory once: text encoders, VAEs, transformers of the same files."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from Wan2GP.engine.residency.identity import FileState, files_in, same_content, states_of


@dataclass(frozen=True)
class PartKey:
    """What a part is loaded as, and from what."""

    cls: str
    #: numbers of the weights, and what else changes what is loaded
    form: str
    files: tuple[FileState, ...]


class SharedParts:
    """Knows every loaded part as long as a model holds it, and no longer: it is freed with its last model."""

    def __init__(self) -> None:
        self._live: weakref.WeakValueDictionary[PartKey, torch.nn.Module] = weakref.WeakValueDictionary()
        self._keys: weakref.WeakKeyDictionary[torch.nn.Module, PartKey] = weakref.WeakKeyDictionary()
        #: how often a part was read from its files, and how often it was there
        self.loaded = self.found = 0

    def part(self, cls: type, places: Sequence[Path], form: object, load: Callable[[], Any]) -> Any:
        """The part of class `cls` that the files and folders `places` hold; `load` reads it when none is in memory.

        `form` tells apart what the same files can become, such as the type of numbers. A part at another place counts
        as the same when its files hold the same bytes. Raises what `load` raises.
        """
        key = PartKey(f"{cls.__module__}.{cls.__qualname__}", str(form), states_of(places))
        part = self._live.get(key) or self._same_elsewhere(key, places)
        if part is None:
            part = load()
            self.loaded += 1
        else:
            self.found += 1
        self._live[key] = part
        self._keys.setdefault(part, key)
        return part

    def key_of(self, part: Any) -> PartKey | None:
        """What a part is, for keys of what it computes; None for one that did not come from here."""
        return self._keys.get(part) if isinstance(part, torch.nn.Module) else None

    def files_of(self, part: torch.nn.Module) -> tuple[FileState, ...]:
        """What a part was loaded from; nothing for one that did not come from here."""
        key = self._keys.get(part)
        return key.files if key is not None else ()

    def made_of(self, states: Sequence[FileState]) -> list[torch.nn.Module]:
        """The parts in memory whose files are all among these."""
        wanted = set(states)
        return [part for key, part in list(self._live.items()) if key.files and wanted.issuperset(key.files)]

    def _same_elsewhere(self, key: PartKey, places: Sequence[Path]) -> torch.nn.Module | None:
        sizes = [state[3] for state in key.files]
        for other, part in list(self._live.items()):
            if (other.cls, other.form) != (key.cls, key.form) or [state[3] for state in other.files] != sizes:
                continue
            theirs = [Path(state[0]) for state in other.files]
            if _unchanged(other) and same_content(files_in(places), theirs):
                return part
        return None


def _unchanged(key: PartKey) -> bool:
    try:
        return states_of([Path(state[0]) for state in key.files]) == key.files
    except OSError:
        return False
