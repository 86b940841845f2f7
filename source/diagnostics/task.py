"""`debug.py task`: everything that is known of one task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from source.diagnostics.causes import cause_view
from source.diagnostics.children import children_view, tally
from source.diagnostics.frame_checks import frame_checks
from source.diagnostics.hints import hints
from source.diagnostics.parameters import loras_in
from source.diagnostics.reasons import reasons
from source.diagnostics.timings import timing_view
from source.diagnostics.views import View, picked, share_done, time_of
from source.ledger import claim_lines
from source.logs import redact_values
from source.store.base import TaskStore
from source.store.types import USUAL_AFFINITY, AffinityBound, Event, Status, Task
from source.trail import WARNING

TASK_KEYS = (
    "id", "task_type", "status", "paused", "waiting", "cancel_requested", "params", "attempts", "priority", "model",
    "project_id", "parent_id", "child_key", "dependant_on", "worker_id", "claim_number", "lease_expires_at",
    "run_after", "output_location", "error_message", "error_class", "progress", "created_at", "claimed_at",
    "generation_started_at", "generation_processed_at",
)  # fmt: skip
#: warnings of the timeline that are told
MOST_WARNINGS = 10
_EVENT_KEYS = ("at", "name", "worker_id", "claim_number", "detail")
#: what result_data holds that has a place of its own
_ELSEWHERE = frozenset({"outputs", "gpu_seconds"})


def task_view(store: TaskStore, task_id: str, bound: AffinityBound = USUAL_AFFINITY) -> View:
    """One task, without secrets. Raises TaskNotFound.

    its row      the columns by name (params in full), outputs (every file), result (the rest of result_data)
    timeline     [{at, name, worker_id, claim_number, detail}], oldest first; warnings: the latest of them
    claims       each attempt: [{number, worker_id, claimed_at, ended_at, end, gpu_seconds}]
    timing       seconds, see `timings.timing_view`; share: 0 to 1 that is done
    children     a tree, see `children.children_view`; progress_of_children {total, share, by_status}
    frames       planned against made, see `frame_checks.frame_checks`
    loras        [{reference, multiplier}]
    cause        the task with which the failure began {id, task_type, status, child_key, error_class, error_message}
    reasons      sentences: why it waits, runs, or ended as it did; hints: what to do about it

    `bound`: of the settings here, for what `reasons` says of waits for a model.
    """
    task, events = store.get(task_id), store.events(task_id)
    children = store.children(task_id)
    now = time_of(store.now()) if _may_change(task, children) else task.generation_processed_at or ""
    claims = claim_lines(events, task.result_data)
    tree = children_view(store, children, now)
    progress = tally(tree)
    view = picked(task, TASK_KEYS)
    view["outputs"] = _outputs(task)
    view["result"] = redact_values({k: v for k, v in (task.result_data or {}).items() if k not in _ELSEWHERE})
    view["timeline"] = [picked(event, _EVENT_KEYS) for event in events]
    view["warnings"] = _warnings(events)
    view["claims"] = [asdict(line) for line in claims]
    view["timing"] = timing_view(task, events, claims, now)
    view["share"] = progress["share"] if tree and not task.terminal else round(share_done(task), 4)
    view["children"] = tree
    view["progress_of_children"] = progress
    view["frames"] = frame_checks(task, children)
    view["loras"] = loras_in(task.params)
    return view | _explained(store, task, events, bound)


def _explained(store: TaskStore, task: Task, events: Sequence[Event], bound: AffinityBound) -> View:
    """Why it is as it is. What surrounds a row that ended well explains nothing."""
    told: View = {"cause": None, "reasons": [], "hints": hints(task, events)}
    if task.status is Status.COMPLETE:
        return told
    facts = store.circumstances(task.id)
    return told | {"cause": cause_view(store, facts), "reasons": redact_values(reasons(facts, bound))}


def _may_change(task: Task, children: Sequence[Task]) -> bool:
    return not task.terminal or any(not child.terminal for child in children)


def _outputs(task: Task) -> list[str]:
    """The files of a task that made several; empty for any other."""
    listed = (task.result_data or {}).get("outputs")
    return [str(each) for each in listed] if isinstance(listed, list) else []


def _warnings(events: Sequence[Event]) -> list[str]:
    told = [redact_values(event.detail or "") for event in events if event.name == WARNING]
    return told[-MOST_WARNINGS:]
