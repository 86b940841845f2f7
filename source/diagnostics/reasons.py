"""Facts about a row become sentences: why it waits, runs, or ended as it did. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from source.diagnostics.causes import BECAUSE_OF_OTHERS
from source.diagnostics.workers import HEALTHY_S, STOPPED
from source.reporting import steps_in_words
from source.store.circumstances import Ahead, Circumstances
from source.store.types import TERMINAL, UNSUCCESSFUL, AffinityBound, Status, Task, WorkerRow, affinity_key

#: rows, workers and children that are named one by one
MOST_NAMED = 5


def reasons(facts: Circumstances, bound: AffinityBound) -> list[str]:
    """Why the row is as it is, one sentence each. `bound`: of the settings here; a worker may have its own."""
    task = facts.task
    if task.status is Status.COMPLETE:
        return [f"It is Complete: {task.output_location or 'it has no output'}."]
    if task.status in UNSUCCESSFUL:
        return list(_ended(facts))
    if task.status is Status.IN_PROGRESS:
        return list(_waiting(facts) if task.waiting else _running(facts))
    held = list(_held_up(facts))
    if held:
        return held
    return [*_in_line(facts, bound), *_workers(facts)]


# -- rows that ended ------------------------------------------------------------------------------------------------


def _ended(facts: Circumstances) -> Iterator[str]:
    task = facts.task
    attempts = f" after {_times(task.attempts, 'attempt')}" if task.attempts > 1 else ""
    kind = f" ({task.error_class})" if task.error_class else ""
    yield f"It {_ended_as(task)}{kind}{attempts}{_message(task)}."
    roots = [row for row in facts.needed if row.status in UNSUCCESSFUL and row.error_class not in BECAUSE_OF_OTHERS]
    if facts.parent is not None and facts.parent.status in UNSUCCESSFUL and not roots:
        yield f"Its parent, {_name(facts.parent)}, {_ended_as(facts.parent)}{_message(facts.parent)}."
    for row in [row for row in roots if row.id not in (task.error_message or "")][:MOST_NAMED]:
        yield f"It depended on {_name(row)}, which {_ended_as(row)}{_message(row)}."
    for child in [row for row in facts.children if row.status in UNSUCCESSFUL][:MOST_NAMED]:
        if child.error_class not in BECAUSE_OF_OTHERS:
            yield f"Its child {_name(child)} {_ended_as(child)}{_message(child)}."
    if task.status is Status.FAILED:
        root = (roots or [task])[0]
        yield f"`debug.py retry {root.id}` queues {'it' if root is task else 'that, and this with it,'} again."


# -- rows in progress -----------------------------------------------------------------------------------------------


def _waiting(facts: Circumstances) -> Iterator[str]:
    open_rows = [child for child in facts.children if child.status not in TERMINAL]
    yield f"It waits for {_times(len(open_rows), 'child', 'children')} and needs no worker meanwhile."
    yield from (f"{_name(child)}: {_state(child, facts)}." for child in open_rows[:MOST_NAMED])
    yield from _more(open_rows)
    if facts.task.cancel_requested:
        yield "Its cancellation was asked for: it ends with the children that run."


def _running(facts: Circumstances) -> Iterator[str]:
    task = facts.task
    since = _since(facts, task.claimed_at)
    yield f"{task.worker_id} has been running it {since} (claim {task.claim_number}){_at(task)}."
    left_s = -_age_s(facts, task.lease_expires_at)
    if left_s > 0:
        yield f"Its lease lasts another {_span(left_s)}; each heartbeat renews it."
    else:
        yield f"Its lease ran out {_span(-left_s)} ago: the next claim or rescue puts it back into the queue."
    for worker in facts.workers:
        if worker.id == task.worker_id:
            yield f"The last heartbeat of {worker.id} came {_span(_age_s(facts, worker.last_heartbeat))} ago."
    if task.cancel_requested:
        yield "Its cancellation was asked for: it stops at its next step."


# -- rows that cannot run yet ---------------------------------------------------------------------------------------


def _held_up(facts: Circumstances) -> Iterator[str]:
    task = facts.task
    if task.paused:
        yield f"It is paused; `debug.py resume {task.id}` lets it go on."
    yield from _not_yet(facts)
    yield from _dependencies(facts)
    if not facts.type_active:
        yield f"The task type {task.task_type} is switched off (task_types.is_active)."
    owner = facts.owner
    if owner.credits is not None and owner.credits <= 0:
        yield f"Its owner has no credits left ({owner.credits:g})."
    if not owner.in_cloud:
        yield "Its owner keeps it from workers of the service (settings.ui.generationMethods.inCloud is false)."
    if owner.max_in_progress is not None and owner.running >= owner.max_in_progress:
        yield f"Its owner has {_times(owner.running, 'task')} running, and may have {owner.max_in_progress}."


def _not_yet(facts: Circumstances) -> Iterator[str]:
    task = facts.task
    if (wait_s := -_age_s(facts, task.run_after)) > 0:
        why = f", since attempt {task.attempts} failed{_message(task)}" if task.attempts and task.error_message else ""
        yield f"It may not begin before {task.run_after}, in {_span(wait_s)}{why}."


def _dependencies(facts: Circumstances) -> Iterator[str]:
    rows = {row.id: row for row in facts.needed}
    open_ids = [needed for needed in facts.task.dependant_on if needed in rows]
    for needed in open_ids[:MOST_NAMED]:
        row = rows[needed]
        yield f"It depends on {_name(row)}: {_state(row, facts)}{_in_the_end(row, rows, facts)}."
    yield from _more(open_ids)
    for missing in facts.missing:
        direct = "It depends on" if missing in facts.task.dependant_on else "In the end it depends on"
        yield f"{direct} {missing}, which does not exist: the next rescue fails it."


def _in_the_end(row: Task, rows: dict[str, Task], facts: Circumstances) -> str:
    """Where the chain behind a dependency begins, when that is not the dependency itself."""
    seen, pending, roots = {row.id}, [row], []
    while pending:
        here = pending.pop()
        behind = [rows[needed] for needed in here.dependant_on if needed in rows]
        if here is not row and (not behind or here.paused):
            roots.append(here)
        pending += [each for each in behind if each.id not in seen]
        seen |= {each.id for each in behind}
    named = [f"{_name(root)} ({_state(root, facts)})" for root in roots[:MOST_NAMED]]
    return f", which waits in the end for {' and '.join(named)}" if named else ""


# -- rows that could run --------------------------------------------------------------------------------------------


def _in_line(facts: Circumstances, bound: AffinityBound) -> Iterator[str]:
    ahead = facts.ahead or Ahead()
    own = ahead.older + _younger(facts, bound)
    turns = sum(ahead.others if facts.owner.running else (min(rows, own + 1) for rows in ahead.others))
    if most := ahead.higher + own + turns:
        yield f"Nothing holds it up, but {_times(most, 'row')} may go before it."
    else:
        yield "Nothing holds it up, and it is the next in line."
    if ahead.higher:
        yield f"Priority: {_times(ahead.higher, 'row')} of higher priority than its {facts.task.priority}."
    if turns:
        yield f"Fairness: its owner takes turns with {_times(len(ahead.others), 'other')}{_turns(facts, ahead, turns)}."
    if ahead.older:
        are = "is" if ahead.older == 1 else "are"
        yield f"Age: {_times(ahead.older, 'row')} of the same owner and priority {are} older."
    yield from _affinity(facts, bound)


def _turns(facts: Circumstances, ahead: Ahead, turns: int) -> str:
    rows = _times(sum(ahead.others), "row")
    if facts.owner.running:
        return (
            f". Whoever has fewer rows running goes first, and its owner has {facts.owner.running}: theirs are {rows}"
        )
    return f", so up to {turns} of their {rows} go before it"


def _younger(facts: Circumstances, bound: AffinityBound) -> int:
    """The most younger rows of its owner that go before it because their model is loaded."""
    rows = sum(rows for model, rows in facts.loaded.items() if not _is_due(facts, _bound_for(model, facts, bound)))
    older = facts.ahead.older if facts.ahead else 0
    return max(min(rows, bound.tasks * (older + 1) - facts.passed_over), 0)


def _affinity(facts: Circumstances, bound: AffinityBound) -> Iterator[str]:
    key = affinity_key(facts.task.model, facts.task.task_type)
    live = _live(facts)
    if any(_takes_first(worker) == key for worker in live):
        names = ", ".join(worker.id for worker in live if _takes_first(worker) == key)
        yield f"Affinity: {names} has {key} loaded, and takes it before older rows of other models."
    for model, rows in facts.loaded.items():
        its = _bound_for(model, facts, bound)
        say = f"Affinity: a worker has {model} loaded, not {key}{_cost(facts, key)}"
        if _is_due(facts, its):
            yield f"{say}; but this row was passed over for long enough, and goes before younger ones."
            continue
        yield (
            f"{say}; {_times(rows, 'younger row')} for {model} may go before its owner's oldest row, at most "
            f"{its.tasks} and for {_span(its.wait_s)}."
        )
    if facts.passed_over:
        since = _since(facts, facts.passed_over_since)
        yield f"It was passed over {_times(facts.passed_over, 'time')} so far, {since}."


def _bound_for(model: str, facts: Circumstances, bound: AffinityBound) -> AffinityBound:
    """Of the workers that have the model loaded, as far as they say what loads take there."""
    having = [worker for worker in _live(facts) if _takes_first(worker) == model]
    return bound.over_loads(seconds for worker in having for seconds in _load_s(worker).values())


def _is_due(facts: Circumstances, bound: AffinityBound) -> bool:
    """Whether the row is its owner's oldest, and no younger one goes before it any more."""
    if facts.ahead is None or facts.ahead.older:
        return False
    waited_s = _age_s(facts, facts.passed_over_since)
    return facts.passed_over >= bound.tasks or (facts.passed_over > 0 and waited_s >= bound.wait_s)


def _load_s(worker: WorkerRow) -> dict[str, float]:
    """Seconds by model."""
    told = worker.metadata.get("load_s")
    return {key: each for key, each in (told or {}).items() if isinstance(each, int | float)}


def _cost(facts: Circumstances, key: str) -> str:
    seconds = [loads[key] for loads in map(_load_s, facts.workers) if key in loads]
    return f" (which took {_span(max(seconds))} to load)" if seconds else ""


def _workers(facts: Circumstances) -> Iterator[str]:
    live = _live(facts)
    if not facts.workers:
        yield "No worker ever sent a heartbeat: start one with `python worker.py`."
    elif not live:
        last = facts.workers[0]
        how = "stopped" if last.status == STOPPED else "was last heard of"
        yield f"No worker is alive: {last.id} {how} {_span(_age_s(facts, last.last_heartbeat))} ago."
    for worker in live[:MOST_NAMED]:
        yield f"{worker.id}: {_busy_with(worker, facts)}."
    yield from _more(live)


def _busy_with(worker: WorkerRow, facts: Circumstances) -> str:
    held = [row for row in facts.running if row.worker_id == worker.id]
    heard = f"heartbeat {_span(_age_s(facts, worker.last_heartbeat))} ago"
    loaded = f"; has {worker.current_model} loaded" if worker.current_model else "; has no model loaded"
    busy = "; ".join(f"{_name(row)} {_since(facts, row.claimed_at)}{_at(row)}" for row in held)
    # a status that has a reason (low_disk) stands under its name among what the worker says of itself
    reason = worker.metadata.get(worker.status)
    unfit = f"; takes no task: {reason}" if reason else ""
    return f"{f'runs {busy}' if busy else 'idle'}{loaded} ({heard}){unfit}"


# -- words ----------------------------------------------------------------------------------------------------------


def _live(facts: Circumstances) -> list[WorkerRow]:
    return [
        worker
        for worker in facts.workers
        if worker.status != STOPPED and _age_s(facts, worker.last_heartbeat) < HEALTHY_S
    ]


def _takes_first(worker: WorkerRow) -> str | None:
    return worker.metadata.get("takes_first") or worker.current_model


def _state(row: Task, facts: Circumstances) -> str:
    if row.status is Status.QUEUED and row.paused:
        return "paused"
    if row.status is Status.IN_PROGRESS and row.waiting:
        return "waits for its children"
    if row.status is Status.IN_PROGRESS:
        return f"{row.worker_id} has been running it {_since(facts, row.claimed_at)}{_at(row)}"
    if row.status is Status.QUEUED and (wait_s := -_age_s(facts, row.run_after)) > 0:
        return f"Queued, may begin in {_span(wait_s)}"
    return f"{row.status}{_message(row) if row.status in UNSUCCESSFUL else ''}"


def _name(row: Task) -> str:
    return f"{row.task_type} {row.id}"


def _ended_as(row: Task) -> str:
    return "failed" if row.status is Status.FAILED else "was cancelled"


def _message(row: Task) -> str:
    return f": {' '.join(row.error_message.split()).rstrip('.')}" if row.error_message else ""


def _at(row: Task) -> str:
    """How far it is."""
    progress = row.progress or {}
    words = f"{progress.get('phase', '')} {steps_in_words(progress)}".strip()
    return f": {words}" if words else ""


def _since(facts: Circumstances, at: str | None) -> str:
    return f"for {_span(_age_s(facts, at))}"


def _age_s(facts: Circumstances, at: str | None) -> float:
    """Seconds from `at` to now; 0 for a time that is not known."""
    if at is None:
        return 0.0
    return (datetime.fromisoformat(facts.now) - datetime.fromisoformat(at)).total_seconds()


def _span(seconds: float) -> str:
    """12 s, 5 min, 3 h or 2 days."""
    for unit, size in (("days", 172_800), ("h", 7_200), ("min", 120)):
        if seconds >= size:
            return f"{seconds / {'days': 86_400, 'h': 3_600, 'min': 60}[unit]:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _times(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _more(rows: Sequence[object]) -> Iterator[str]:
    if len(rows) > MOST_NAMED:
        yield f"… and {len(rows) - MOST_NAMED} more."
