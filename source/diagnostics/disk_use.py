"""What lies on this machine's disks, whose it is, and what of it can go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from source.diagnostics.words import printable
from source.disk import GB, Disk, free_bytes, size_of
from source.errors import TaskNotFound
from source.leftovers import CHECKPOINTS, DELIVERED, OUTBOX, Leftover, Leftovers
from source.settings import Settings
from source.store.base import TaskStore

View = dict[str, Any]

#: the largest of a list that people are shown
MOST_SHOWN = 40


def disk_view(store: TaskStore, settings: Settings, *, clean: bool = False) -> View:
    """The folders with their size and free space, what tasks left in them, and results that no row seems to name.
    `clean` removes what nobody needs first. Sizes are bytes; a file of two names counts under each. Raises StoreError.
    """
    removed = Leftovers(settings, store).clean() if clean else []
    left = Leftovers(settings, store).found()
    return {
        "shortage": _words(short := Disk(settings).shortage()),
        "claimed": "any task" if short is None else short.begun,
        "folders": [_folder(name, path) for name, path in _places(settings)],
        "tasks": [_view(each) for each in sorted(left, key=lambda each: -each.size_bytes)],
        "results_without_row": list(_without_row(store, settings)),
        "removable_bytes": sum(each.size_bytes for each in left if each.removable),
        "cleaned": clean,
        "removed": [_view(each) for each in removed],
        "removed_bytes": sum(each.size_bytes for each in removed),
    }


def _view(leftover: Leftover) -> View:
    return asdict(leftover) | {"path": str(leftover.path)}


def _words(value: object) -> str | None:
    return None if value is None else str(value)


def _places(settings: Settings) -> Iterator[tuple[str, Path]]:
    scratch = settings.main_output_dir.resolve()
    yield "scratch", scratch
    yield "of it undelivered results", scratch / OUTBOX
    yield "of it states of interrupted tasks", scratch / CHECKPOINTS
    if settings.db_type == "sqlite":
        yield "results", settings.public_dir
        database = settings.db_file.resolve()
        yield "database", database
        if (latest := database.with_name(f"{database.name}-wal")).exists():
            yield "its latest changes", latest
    else:
        yield "of it delivered results", scratch / DELIVERED
    yield "weights", settings.ckpts
    yield "LoRAs", settings.loras_dir
    if settings.log_file is not None:
        yield "log", settings.log_file
        for older in sorted(settings.log_file.parent.glob(f"{settings.log_file.name}.[0-9]*")):
            yield "of an older log", older


def _folder(name: str, path: Path) -> View:
    try:
        free = free_bytes(path)
    except OSError:
        free = None
    return {"name": name, "path": str(path), "size_bytes": size_of(path), "free_bytes": free}


def _without_row(store: TaskStore, settings: Settings) -> Iterator[View]:
    """Results are named `<task>_<name>`. They are only shown: whoever put one there may want it."""
    folder = settings.public_dir / "files"
    if settings.db_type != "sqlite" or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if not any(_exists(store, owner) for owner in _owners(path.name)):
            yield {"path": str(path), "size_bytes": size_of(path)}


def _owners(name: str) -> Iterator[str]:
    """An id may hold `_` itself."""
    parts = name.split("_")
    return ("_".join(parts[:count]) for count in range(1, len(parts)))


def _exists(store: TaskStore, task_id: str) -> bool:
    try:
        store.get(task_id)
    except TaskNotFound:
        return False
    return True


# -- for people -----------------------------------------------------------------------------------------------------


def rendered_disk(view: View) -> RenderableType:
    """The folders, the largest of what tasks keep, and what --clean does or did."""
    table = Table("folder", "holds", "free on its disk", "path", box=None, pad_edge=False)
    for each in view["folders"]:
        free = "?" if each["free_bytes"] is None else _size(each["free_bytes"])
        table.add_row(each["name"], _size(each["size_bytes"]), free, Text(printable(each["path"])))
    parts: list[RenderableType] = [table]
    if view["shortage"]:
        parts.append(Text(f"{view['claimed']} is claimed: {view['shortage']}", style="bold red"))
    parts += _lines("what tasks keep, the largest first", [_of_task(each) for each in view["tasks"]])
    parts += _lines(
        "results of no row here; look at them yourself", [_of_none(each) for each in view["results_without_row"]]
    )
    parts += _lines("removed", [_of_task(each) for each in view["removed"]])
    if view["removed"]:
        parts.append(Text(f"{_size(view['removed_bytes'])} were removed", style="green"))
    elif view["cleaned"]:
        parts.append(Text("there was nothing to remove", style="green"))
    elif view["removable_bytes"]:
        parts.append(Text(f"--clean removes {_size(view['removable_bytes'])} that nobody needs", style="green"))
    return Group(*parts)


def _lines(title: str, lines: Sequence[str]) -> list[RenderableType]:
    if not lines:
        return []
    more = [f"… and {len(lines) - MOST_SHOWN} more (all of them with --json)"] if len(lines) > MOST_SHOWN else []
    return [Text(""), Text(title, style="italic"), Text("\n".join([*lines[:MOST_SHOWN], *more]))]


def _of_task(each: View) -> str:
    can = "can go" if each["removable"] else "stays"
    state = f"{each['state']}, " if each["state"] else ""
    facts = f"{_size(each['size_bytes']):>9}  {each['kind']:<11}  {can:<6}"
    return f"{facts}  {printable(each['path'])}  ({state}{each['why']})"


def _of_none(each: View) -> str:
    return f"{_size(each['size_bytes']):>9}  {printable(each['path'])}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GB:.2f} GB" if size_bytes >= GB / 10 else f"{size_bytes / 1e6:.1f} MB"
