"""What is removed from the LoRA folders, and what is only set aside."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from source.loras.folders import AMBIGUOUS
from source.loras.index import BOOKKEEPING, DownloadIndex, Entry
from source.loras.inspection import GB
from source.loras.locks import exclusive, remove_unpinned

log = logging.getLogger(__name__)

#: a download that nobody has continued for so long is dropped
FORGOTTEN_S = 7 * 24 * 3600.0
#: the names under which older versions saved files of different repositories, each over the one before
LEGACY_NAMES = ("high_noise_model.safetensors", "low_noise_model.safetensors")


@dataclass(frozen=True)
class _Cached:
    folder: Path
    name: str
    entry: Entry

    @property
    def path(self) -> Path:
        return self.folder / self.name


def make_room(root: Path, limit_gb: float, to_come: int = 0) -> None:
    """Remove downloads, the least recently used first, until `to_come` further bytes fit into the limit.

    Files that a running task has pinned stay, and the user's own files neither count nor go. A limit of 0 is none.
    """
    if not limit_gb:
        return
    cached = sorted(_downloads(root), key=lambda each: each.entry.last_used_at)
    total = to_come + sum(each.entry.size_bytes for each in cached)
    for each in cached:
        if total <= limit_gb * GB:
            return
        if _removed(each):
            total -= each.entry.size_bytes
            log.info(
                "removed the LoRA %s (%.2f GB): LORA_CACHE_GB is %g", each.path, each.entry.size_bytes / GB, limit_gb
            )
    if total > limit_gb * GB:
        log.warning("downloaded LoRAs need %.2f GB, more than LORA_CACHE_GB (%g): tasks use them", total / GB, limit_gb)


def set_ambiguous_aside(root: Path) -> None:
    """Rename `high_noise_model.safetensors` and `low_noise_model.safetensors` to `….ambiguous`.

    Older versions saved every repository's file of these names over the last one, so nobody can say which LoRA such a
    file is. This version never saves under them. A user may have put one there all the same, so nothing is deleted;
    only LORAS_DIR and the family folders directly in it are looked at, not deeper folders and not LORA_DIRS.
    """
    for folder in (root, *(path for path in _listed(root) if path.is_dir())):
        for name in LEGACY_NAMES:
            if (folder / name).is_file() and name not in DownloadIndex(folder).entries():
                aside = _free(folder / f"{name}{AMBIGUOUS}")
                os.rename(folder / name, aside)
                log.warning(
                    "%s was renamed to %s: many repositories have a file of that name, and nobody can say whose this "
                    "is; give it a name of its own to use it by name", folder / name, aside.name,
                )  # fmt: skip


def drop_forgotten_parts(root: Path) -> None:
    """Remove parts of downloads that were given up. One that somebody works on is never so old."""
    oldest = time.time() - FORGOTTEN_S
    for bookkeeping in _bookkeepings(root):
        for part in [part for part in bookkeeping.glob("*.part") if part.stat().st_mtime < oldest]:
            with exclusive(part.with_suffix(".lock")):
                if part.exists() and part.stat().st_mtime < oldest:
                    part.unlink()
                    part.with_suffix(".json").unlink(missing_ok=True)
                    log.info("removed the unfinished download %s", part)


def _downloads(root: Path) -> Iterator[_Cached]:
    """What may be removed: files that are what the index says. One that is gone is forgotten."""
    for bookkeeping in _bookkeepings(root):
        folder = bookkeeping.parent
        for name, entry in DownloadIndex(folder).entries().items():
            path = folder / name
            if not entry.own and path.is_file() and path.stat().st_size == entry.size_bytes:
                yield _Cached(folder, name, entry)


def _removed(cached: _Cached) -> bool:
    with DownloadIndex(cached.folder).locked() as book:
        if book.entries.get(cached.name) != cached.entry:  # used or replaced since
            return False
        if not remove_unpinned(cached.path):
            return False
        book.remove(cached.name)
        return True


def _bookkeepings(root: Path) -> list[Path]:
    return [path for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}{BOOKKEEPING}") if path.is_dir()]


def _listed(root: Path) -> list[Path]:
    return sorted(root.iterdir()) if root.is_dir() else []


def _free(path: Path) -> Path:
    names = itertools.chain([path], (path.with_name(f"{path.name}{number}") for number in itertools.count(2)))
    return next(name for name in names if not name.exists())
