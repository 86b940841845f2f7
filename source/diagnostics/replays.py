"""`debug.py replay`: queue again what made a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from source.diagnostics.rendering import printable
from source.errors import InvalidInput
from source.settings import Settings
from source.store.base import TaskStore
from source.store.encoding import plain


def replay(
    store: TaskStore, settings: Settings, file: Path, *, given: Sequence[str], search: Sequence[Path], dry_run: bool
) -> dict[str, Any]:
    """Queue the row that made `file` again, unless `dry_run`; returns what was (or would be) queued.

    `given` are texts "NAME=PATH". Raises InvalidInput and InvalidMedia; nothing is queued then.
    """
    from source.provenance.record import read_provenance
    from source.provenance.replay import plan_replay

    record = read_provenance(file)
    plan = plan_replay(record, store, settings, given=_named_paths(given), search=search)
    task_id = None if dry_run else store.add(plan.task)
    return {
        "id": task_id,
        "replays": printable(record.root.id),
        "task_type": plan.task.task_type,
        "params": json.loads(plain(json.dumps(plan.task.params, ensure_ascii=False))),
        "dependant_on": list(plan.task.dependant_on),
        "inputs": {printable(name): path for name, path in plan.inputs.items()},
        "warnings": list(map(printable, plan.warnings)),
    }


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
