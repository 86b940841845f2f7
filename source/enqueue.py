"""Adding one task by hand: everything that can be checked without a model is checked before a row exists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from source.errors import InvalidInput
from source.settings import Settings
from source.store.opening import open_watched
from source.store.types import DEFAULT_PROJECT_ID, NewTask
from source.task_registry import TaskRegistry, registry


def read_params(text: str) -> dict[str, Any]:
    """The JSON object in `text`, or in the file that `@file` names. Raises InvalidInput."""
    try:
        source = Path(text[1:]).read_text(encoding="utf-8-sig") if text.startswith("@") else text
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InvalidInput(f"{text[1:]} cannot be read: {reason}", field="params") from error
    try:
        values = parsed_json(source)
    except InvalidInput as error:
        raise InvalidInput(str(error), field="params") from error
    if not isinstance(values, dict):
        raise InvalidInput(f'must be a JSON object such as {{"prompt": "…"}}, not {source[:60]!r}', field="params")
    return values


def parsed_json(text: str) -> Any:
    """What a JSON text says. Raises InvalidInput, also for NaN and infinity, which rows cannot hold."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InvalidInput(f"is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidInput("is nested too deeply") from None


def check_task(task_type: str, params: Mapping[str, Any], known: TaskRegistry | None = None) -> None:
    """Raises InvalidInput for an unknown type, a wrong value, a name that nothing knows (the nearest is named), or what
    would not act as it is asked to."""
    (known or registry()).get(task_type).parse(params, strict=True).params.check()


def enqueue(
    settings: Settings, task_type: str, params: Mapping[str, Any], *, dependant_on: Sequence[str] = (),
    priority: int = 0, project_id: str | None = None,
) -> str:  # fmt: skip
    """Check a task, add it, and return its id. Raises InvalidInput (nothing was added then) and StoreError."""
    check_task(task_type, params)
    task = new_task(task_type, params, dependant_on=dependant_on, priority=priority, project_id=project_id)
    with closing(open_watched(settings)) as store:
        return store.add(task)


def new_task(
    task_type: str, params: Mapping[str, Any], *, dependant_on: Sequence[str], priority: int, project_id: str | None
) -> NewTask:
    """A row to add."""
    return NewTask(
        task_type=task_type,
        params=params,
        dependant_on=tuple(dependant_on),
        priority=priority,
        project_id=project_id or DEFAULT_PROJECT_ID,
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
