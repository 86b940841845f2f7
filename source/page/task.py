"""One task: what happened, how far it is, what it made."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from source.diagnostics.task import task_view
from source.diagnostics.views import View
from source.errors import StoreError
from source.page.actions import actions_of
from source.page.context import Page, page_of
from source.page.graph import graph_of
from source.page.guard import content_policy, origin_of
from source.page.lines import shown_lines
from source.page.media import Medium, media_of
from source.planning.guidance import GUIDANCE_TYPE
from source.reporting import steps_in_words
from source.store.types import AffinityBound, LogFilter, Status, Task
from source.task_registry import registry

LOG_LINES, EVENTS = 60, 200
STOP_POLLING = 286
#: media whose address is asked for, until one has one
MOST_ASKED = 3
#: where time goes, in its order: the parts of the timing, and their names for people
_SPENT = {
    "queued": "queued", "lost": "earlier attempts", "waited": "waited for the GPU", "preparing": "preparing",
    "loading": "loading", "generating": "generating", "delivering": "delivering", "children": "waited for children",
}  # fmt: skip
#: what "done" may say after an action
_DONE = {
    "cancel": "Cancellation was asked for.", "retry": "Queued again.", "pause": "Paused.", "resume": "Resumed.",
    "requeue": "Taken from its worker and queued again.",
}  # fmt: skip


def task(request: Request) -> Response:
    """The whole page of a task."""
    page = page_of(request)
    row = page.store.get(request.query_params.get("id", ""))
    media = _media(page, row)
    done = _DONE.get(request.query_params.get("done", ""))
    response = page.rendered(request, "task.html", **_live(page, row, media), done=done)
    response.headers["Content-Security-Policy"] = content_policy(_origins(page, row, media))
    return response


def live(request: Request) -> Response:
    """The part of it that changes. 286 has htmx look no more. What a task made elsewhere may be shown by a page that
    names that place in its policy: it is loaded anew."""
    page = page_of(request)
    row = page.store.get(request.query_params.get("id", ""))
    values = _live(page, row, _media(page, row))
    response = page.rendered(request, "task_live.html", status_code=200 if values["open"] else STOP_POLLING, **values)
    if row.terminal and not page.store.local and request.query_params.get("was") != row.status:
        response.headers["HX-Refresh"] = "true"
    return response


def _live(page: Page, row: Task, media: Sequence[Medium]) -> dict[str, Any]:
    settings = page.settings
    view = task_view(page.store, row.id, AffinityBound(settings.affinity_tasks, settings.affinity_wait_s))
    return {
        "task": view,
        "running": row.status is Status.IN_PROGRESS,
        "open": not row.terminal or any(not _ended(child) for child in view["children"]),
        "steps": steps_in_words(row.progress or {}) if row.status is Status.IN_PROGRESS else "",
        "preview": page.store.preview(row.id) if row.status is Status.IN_PROGRESS else None,
        "spent": _spent(view["timing"]),
        "graph": graph_of(view["children"]),
        "watched": [each for each in media if each.role != "input" and each.url],
        "inputs": [each for each in media if each.role == "input" or not each.url],
        "actions": actions_of(row),
        "most_events": EVENTS,
        "has_form": row.task_type in registry(),
        "lines": shown_lines(page.store.logs(LogFilter(task_id=row.id), limit=LOG_LINES)),
        "every_s": 1 if page.store.local else 5,
    }


def _spent(timing: View) -> list[View]:
    """Where the time went, as the parts of a bar 100 wide."""
    known = {name: timing[f"{kind}_s"] for kind, name in _SPENT.items() if (timing[f"{kind}_s"] or 0) > 0}
    total, start, parts = sum(known.values()), 0.0, []
    for kind, name in _SPENT.items():
        if name in known:
            width = 100 * known[name] / total
            parts.append({"kind": kind, "name": name, "seconds": known[name], "start": start, "width": width})
            start += width
    return parts


def _ended(child: View) -> bool:
    return child["status"] not in (Status.QUEUED, Status.IN_PROGRESS)


def _media(page: Page, row: Task) -> list[Medium]:
    return [*_guidance(page, row), *media_of(page, row)]


def _origins(page: Page, row: Task, media: Sequence[Medium]) -> set[str]:
    """Where the browser gets the media of a project from: all lie in one storage, so one address tells."""
    if page.store.local:
        return set()
    for each in [each for each in media if each.url][:MOST_ASKED]:
        with suppress(StoreError):
            if origin := origin_of(page.storage.address(each.location, row.id) or ""):
                return {origin}
    return set()


def _guidance(page: Page, row: Task) -> list[Medium]:
    """The guide of a travel is what another task made: one that a segment depends on, or a child of the whole."""
    if not row.task_type.startswith(("travel_", "individual_travel")) or row.task_type == GUIDANCE_TYPE:
        return []
    others = [*page.store.dependencies(row.id), *page.store.children(row.id)]
    guides = [other for other in others if other.task_type == GUIDANCE_TYPE]
    return [medium for guide in guides for medium in media_of(page, guide) if medium.role == "guide"]


routes = [Route("/task", task), Route("/task/live", live)]
