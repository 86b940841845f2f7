"""`add_task.py --from-wangp`: from a file to rows of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from source.errors import InvalidInput
from source.settings import Settings
from source.store.opening import open_watched
from source.store.types import DEFAULT_PROJECT_ID, NewTask
from source.supabase_uploads import uploads_for
from source.uploads import Uploads
from source.wangp.media import MediaOfRows
from source.wangp.rows import TASK_TYPE, Row, Rows
from source.wangp.saved import opened


def rows_of(
    path: Path, settings: Settings, given: Mapping[str, Sequence[str]], uploads: Uploads | None = None
) -> list[Row]:  # fmt: skip
    """The rows of a file that Wan2GP saved. Without `uploads` its media are looked at, and stay where they are.

    `given`: setting -> files of it, for settings that lack them. Raises InvalidInput and InvalidMedia, which name entry
    and setting, DiskFull, StoreError and OSError.
    """
    try:
        with opened(path) as saved:
            return Rows(settings, MediaOfRows(settings, uploads), given).of(saved)
    except InvalidInput as error:
        named = str(error) if str(error).startswith(path.name) else f"{path.name}: {error}"
        raise type(error)(named) from None


def enqueue_saved(
    path: Path, settings: Settings, given: Mapping[str, Sequence[str]], *, dependant_on: Sequence[str] = (),
    priority: int = 0, project_id: str | None = None,
) -> dict[str, Row]:  # fmt: skip
    """Add the rows of a file in one transaction, or none; each by its id. Everything is looked at before the first file
    is kept. Raises what `rows_of` does, and what the store does."""
    rows_of(path, settings, given)
    with closing(open_watched(settings)) as store:
        rows = rows_of(path, settings, given, uploads_for(settings, store, project_id))
        tasks = [
            NewTask(
                task_type=TASK_TYPE, params=row.params, dependant_on=tuple(dependant_on), priority=priority,
                project_id=project_id or DEFAULT_PROJECT_ID,
            )
            for row in rows
        ]  # fmt: skip
        return dict(zip(store.add_many(tasks), rows, strict=True))


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What `--dry-run` prints."""
    return [
        {"entry": row.entry, "task_type": TASK_TYPE, "params": dict(row.params), "notes": list(row.notes)}
        for row in rows
    ]


def named_files(texts: Sequence[str]) -> dict[str, list[str]]:
    """`SETTING=PATH` texts by setting. Raises InvalidInput."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise InvalidInput(f"{text!r} is not SETTING=PATH, such as image_start=first.png", field="media")
        found.setdefault(name, []).append(path)
    return found
