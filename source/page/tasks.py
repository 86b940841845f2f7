"""The queue and its history: the newest tasks first, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from source.diagnostics.views import LIST_KEYS, View, picked, seconds_at_work, share_done, time_of
from source.logs import redact_values
from source.page.context import Page, chosen, is_fragment, page_of
from source.store.base import TaskStore
from source.store.types import Status, Task, TaskFilter
from source.task_registry import registry

#: rows of a page; parents that may be unfolded at once
LISTED, MOST_OPEN = 50, 10
PROMPT_CHARACTERS = 160
#: what a query may say
_FIELDS = {"status": "", "type": "", "worker": "", "text": "", "run": "", "after": ""}


@dataclass(frozen=True)
class Listed:
    """A row of the list."""

    view: View
    children: Mapping[Status, int] = field(default_factory=dict)
    #: its children, where it is unfolded
    unfolded: Sequence[Listed] | None = None

    @property
    def ended_children(self) -> int:
        return sum(
            number for status, number in self.children.items() if status not in (Status.QUEUED, Status.IN_PROGRESS)
        )


def queue(request: Request) -> Response:
    """The newest tasks that the query means: nobody's children, unless something is asked for."""
    page = page_of(request)
    query = chosen(request, _FIELDS)
    opened = request.query_params.getlist("open")[:MOST_OPEN]
    listed = _listed(page.store, query, opened)
    template = "queue_part.html" if is_fragment(request) else "queue.html"
    return page.rendered(
        request, template, rows=listed[:LISTED], counts=page.store.counts(), statuses=list(Status), query=query,
        opened=opened, more=len(listed) > LISTED, types=sorted(kind.name for kind in registry()),
        filtered=_is_filtered(query), every_s=refresh_s(page),
    )  # fmt: skip


def refresh_s(page: Page) -> int:
    """Seconds between two looks of a page that shows what happens: on Supabase each is a request that somebody pays."""
    return 2 if page.store.local else 10


def row_of(task: Task, now: str, **more: Any) -> Listed:
    """A task as a row of a list."""
    view = picked(task, LIST_KEYS)
    view |= {"prompt": prompt_of(task.params), "share": share_done(task), "seconds": seconds_at_work(task, now)}
    return Listed(view, **more)


def prompt_of(params: Mapping[str, Any]) -> str:
    """The beginning of what a task was asked to show: what people know it by."""
    details = params.get("orchestrator_details")
    nested = details if isinstance(details, Mapping) else {}
    for text in (params.get("prompt"), params.get("base_prompt"), nested.get("base_prompt"), nested.get("prompt")):
        if isinstance(text, str) and text.strip():
            return _begin(" ".join(text.split()))
    several = nested.get("base_prompts_expanded")
    return _begin(" · ".join(each for each in several if isinstance(each, str)) if isinstance(several, list) else "")


def _begin(text: str) -> str:
    shown = str(redact_values(text))
    return shown if len(shown) <= PROMPT_CHARACTERS else f"{shown[:PROMPT_CHARACTERS].rstrip()}…"


def _is_filtered(query: Mapping[str, str]) -> bool:
    return any(value for name, value in query.items() if name != "after")


def _listed(store: TaskStore, query: Mapping[str, str], opened: Sequence[str]) -> list[Listed]:
    found = store.select(_filter(query), limit=LISTED + 1, newest_first=True, after=query["after"] or None)
    now = time_of(store.now())
    counts = store.child_counts([task.id for task in found])
    return [
        row_of(
            task, now, children=counts.get(task.id, {}),
            unfolded=[row_of(child, now) for child in store.children(task.id)] if task.id in opened else None,
        )
        for task in found
    ]  # fmt: skip


def _filter(query: Mapping[str, str]) -> TaskFilter:
    status = query["status"] if query["status"] in set(Status) else None
    return TaskFilter(
        statuses=(Status(status),) if status else None,
        task_type=query["type"] or None,
        worker_id=query["worker"] or None,
        text=query["text"] or None,
        run=query["run"] or None,
        top=None if _is_filtered(query) else True,
    )


routes = [Route("/", queue)]
