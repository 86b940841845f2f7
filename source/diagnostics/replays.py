"""`debug.py replay`: queue again what made a file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from source.diagnostics.words import printable
from source.errors import InvalidInput
from source.settings import Settings
from source.store.base import TaskStore
from source.store.encoding import plain

if TYPE_CHECKING:
    from source.provenance.record import Provenance

#: said where workers of other machines may claim the row
ELSEWHERE = "its inputs are files of this machine: only a worker here finds them, where MEDIA_DIRS names their folder"


def replay(
    store: TaskStore, settings: Settings, file: str | Path, *, given: Sequence[str] = (), search: Sequence[Path] = (),
    project_id: str | None = None, dry_run: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Queue the row that made `file` (a path or a URL) again, unless `dry_run`; returns what was (or would be) queued.

    `given` are texts "NAME=PATH". Raises InvalidInput and InvalidMedia; nothing is queued then.
    """
    from source.provenance.replay import plan_replay

    record = _record(store, settings, str(file))
    plan = plan_replay(record, store, settings, given=_named_paths(given), search=search)
    task = replace(plan.task, project_id=project_id or plan.task.project_id)
    warnings = [*plan.warnings, *([ELSEWHERE] if plan.inputs and not store.local else [])]
    task_id = None if dry_run else store.add(task)
    return {
        "id": task_id,
        "replays": printable(record.root.id),
        "task_type": task.task_type,
        "params": json.loads(plain(json.dumps(task.params, ensure_ascii=False))),
        "dependant_on": list(task.dependant_on),
        "inputs": {printable(name): path for name, path in plan.inputs.items()},
        "warnings": list(map(printable, warnings)),
    }


def _record(store: TaskStore, settings: Settings, file: str) -> Provenance:
    from source.media.download import url_scheme
    from source.provenance.record import read_provenance

    if url_scheme(file) is None:
        return read_provenance(Path(file))
    from source.media.fetch import MediaFetcher
    from source.supabase_storage import storage_for

    with tempfile.TemporaryDirectory() as folder:
        fetcher = MediaFetcher(settings, Path(folder), storage=storage_for(settings, store))
        return read_provenance(fetcher.locate(file))


def _named_paths(given: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        name, separator, path = text.partition("=")
        if not separator or not name:
            raise InvalidInput(f"{text!r} is not NAME=PATH", field="input")
        found.setdefault(name, []).append(path)
    return found


def rendered_replay(view: dict[str, Any]) -> str:
    """For people: what was queued, from which files, and what may come out otherwise."""
    done = f"queued {view['id']}" if view["id"] else "would queue"
    lines = [f"{done}: {view['task_type']}, as task {view['replays']} was"]
    lines += [f"  {name}: {path}" for name, path in view["inputs"].items()]
    lines += [f"  note: {warning}" for warning in view["warnings"]]
    return "\n".join(map(printable, lines))
