"""Queueing a task by a form: the types, the form of one, and what it sends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from source.enqueue import new_task
from source.errors import InvalidInput, RefusedWrite, TaskNotFound
from source.page.context import Page, may_write, page_of, see_other, writing
from source.page.form.controls import controls_of, problems
from source.page.form.fields import Field, fields_of
from source.page.form.rows import REST, Submitted, Tree, checked, tree_from, tree_of
from source.page.form.sections import sections_of
from source.page.form.texts import Faults
from source.page.wording import task_url
from source.redaction import redact_values
from source.store.types import DEFAULT_PROJECT_ID, Task
from source.task_registry import TaskType, registry
from Wan2GP.definitions import load_definitions

#: of a form: workflows of ComfyUI are the longest texts
MAX_TEXT_BYTES = 16 << 20
#: a travel of thousands of segments has some for each
MAX_FIELDS = 50_000
PRIORITY, DEPENDANT_ON, PROJECT = "_priority", "_dependant_on", "_project"
#: what a priority fits into on both databases
_MOST_PRIORITY = 2**31 - 1


def types(request: Request) -> Response:
    """Every task type, to choose from."""
    _refuse_readers(request)
    return page_of(request).rendered(request, "new.html", kinds=list(registry()))


def form(request: Request) -> Response:
    """The form of one type; with `?from=TASK` as that task's row had it."""
    _refuse_readers(request)
    kind = _kind(request)
    before = request.query_params.get("from", "")
    if not before:
        return _rendered(request, kind, {}, {}, {})
    task = page_of(request).store.get(before)
    return _rendered(
        request, kind, tree_of(_fields(kind.name), redact_values(task.params)), {}, _row_of(task), before=task.id
    )


def add(request: Request, sent: FormData) -> Response:
    """Queue what the form says, or say at its fields what is wrong."""
    kind = _kind(request)
    texts = {name: text for name, text in sent.multi_items() if isinstance(text, str)}
    row = {name: texts.get(name, "").strip() for name in (PRIORITY, DEPENDANT_ON, PROJECT)}
    tree = tree_from((name, text) for name, text in texts.items() if name not in row)
    said = checked(kind.name, _fields(kind.name), tree, _params_before(request, texts.get("_before", "")))
    faults = said.faults | _row_faults(row)
    if not faults:
        try:
            return see_other(request, task_url(_add(page_of(request), kind, said, row)))
        except (InvalidInput, RefusedWrite) as error:
            faults = {DEPENDANT_ON if "depend" in str(error) else "": str(error)}
    return _rendered(request, kind, tree, faults, row, before=texts.get("_before", ""))


def _params_before(request: Request, task_id: str) -> Mapping[str, Any] | None:
    try:
        return page_of(request).store.get(task_id).params if task_id else None
    except TaskNotFound:
        return None


def _add(page: Page, kind: TaskType, said: Submitted, row: Mapping[str, str]) -> str:
    return page.store.add(
        new_task(
            kind.name,
            said.params,
            dependant_on=_ids(row[DEPENDANT_ON]),
            priority=int(row[PRIORITY] or 0),
            project_id=row[PROJECT] or None,
        )
    )


def _refuse_readers(request: Request) -> None:
    if not may_write(request):
        raise HTTPException(403, "this page only shows; start it with PAGE_TOKEN to queue tasks from here")


def _kind(request: Request) -> TaskType:
    name = request.path_params["task_type"]
    if name not in (known := registry()):
        raise HTTPException(404, f"there is no task type {name}")
    return known.get(name)


@cache
def _fields(task_type: str) -> tuple[Field, ...]:
    kind = registry().get(task_type)
    return fields_of(kind.schema(), kind.defaults)


def _row_of(task: Task) -> dict[str, str]:
    project = "" if task.project_id in (None, DEFAULT_PROJECT_ID) else str(task.project_id)
    return {
        PRIORITY: str(task.priority) if task.priority else "",
        DEPENDANT_ON: " ".join(task.dependant_on),
        PROJECT: project,
    }


def _row_faults(row: Mapping[str, str]) -> Faults:
    text = row[PRIORITY]
    if not text or (re.fullmatch(r"[+-]?\d{1,10}", text) and abs(int(text)) <= _MOST_PRIORITY):
        return {}
    return {PRIORITY: f"{text[:40]!r} is not a whole number of at most {_MOST_PRIORITY}"}


def _ids(text: str) -> Sequence[str]:
    return [each for each in re.split(r"[\s,]+", text) if each]


def _rendered(
    request: Request, kind: TaskType, tree: Tree, faults: Faults, row: Mapping[str, str], *, before: str = ""
) -> Response:
    controls, left = controls_of(_fields(kind.name), tree, faults)
    sections = sections_of(kind.params, controls)
    wrong = problems(each for section in sections for each in section.controls)
    return page_of(request).rendered(
        request,
        "new_task.html",
        status_code=422 if faults else 200,
        kind=kind,
        sections=sections,
        problems=wrong,
        problem=left.pop("", ""),
        autofocus=wrong[0].path if wrong else "",
        rest=tree.get(REST, ""),
        rest_problem=left.pop(REST, ""),
        row_values=row,
        row_problems=left,
        before=before,
        most_mb=page_of(request).settings.max_upload_mb,
        models=_models(page_of(request)),
    )


def _models(page: Page) -> list[tuple[str, str]]:
    """The models that this machine has definitions of, each with its title."""
    own = page.settings.finetunes
    return [(name, each.name) for name, each in _definitions((own,) if own.is_dir() else ()).items()]


@cache
def _definitions(folders: tuple[Any, ...]) -> Mapping[str, Any]:
    return load_definitions(folders)


routes = [
    Route("/new", types),
    Route("/new/{task_type}", form),
    Route("/new/{task_type}", writing(add, max_fields=MAX_FIELDS, max_part_bytes=MAX_TEXT_BYTES), methods=["POST"]),
]
