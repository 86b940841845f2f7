"""Cancel, retry, pause, resume, requeue: the buttons of a task, for who is logged in."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from source.diagnostics.interventions import INTERVENTIONS
from source.page.context import page_of, see_other, writing
from source.page.wording import task_url
from source.store.types import Status, Task

#: what each means for the one task that is looked at
_MEANING = {
    "cancel": "It stops, and its children with it.",
    "retry": "It is queued again, and what failed because of it or made it fail with it.",
    "pause": "Neither it nor its children are claimed from now on; what runs goes on.",
    "resume": "It and its children may be claimed again.",
    "requeue": "It is taken from its worker and queued again; no attempt is burned.",
}


def actions_of(task: Task) -> dict[str, str]:
    """What can be done to a task, and what that means."""
    return {
        name: _MEANING[name]
        for name, each in INTERVENTIONS.items()
        if task.status in each.statuses
        and each.paused in (None, task.paused)
        and not (name == "requeue" and task.waiting)
        and not (name == "cancel" and task.cancel_requested)
    }


def act(request: Request, form: FormData) -> Response:
    """Do it, and go back to the task. Raises TaskNotFound, InvalidInput, StoreError."""
    name, task_id = request.path_params["action"], str(form.get("id", ""))
    if name not in INTERVENTIONS:
        raise HTTPException(404)
    status = INTERVENTIONS[name].act(page_of(request).store, task_id)
    return see_other(request, task_url(task_id, done=name, status=Status(status)))


routes = [Route("/task/do/{action}", writing(act), methods=["POST"])]
