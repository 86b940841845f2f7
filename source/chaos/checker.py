"""The checker: what the workers wrote down, joined with what the database says, after the manner of Jepsen's total
queue. Everything that was accepted must have come to its one right end, and nothing else may have happened.

A completion that was asked for and not acknowledged may have been stored or not; one that was acknowledged was stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from source.chaos.history import Outcome, Record
from source.store.types import Event, Status, Task

#: events that end a claim and leave the row to the next one
GIVEN_BACK = frozenset({"rescued", "released", "retry", "queued"})
#: events that end a row
FINAL = frozenset({"complete", "failed", "cancelled"})
#: classes of those whose attempts the faults used up: by deaths, or at last by an answer that got lost
USED_UP = frozenset({"poison", "database"})


@dataclass(frozen=True)
class Asked:
    """What was asked of the database from outside, and what the workers were told to do."""

    #: ids that the database acknowledged
    accepted: frozenset[str]
    #: ids whose cancellation was asked for
    cancelled: frozenset[str] = frozenset()
    #: ids -> error classes with which they may fail; every task may fail as USED_UP says, or behind another one
    may_fail: Mapping[str, frozenset[str]] = field(default_factory=dict)
    max_attempts: int = 3
    #: faults that were injected from outside
    faults: int = 0


@dataclass(frozen=True)
class Found:
    """What the database holds. `digest`: SHA-256 of the output of a row; None where it is not there."""

    rows: Mapping[str, Task]
    timelines: Mapping[str, Sequence[Event]]
    digest: Callable[[Task], str | None]


@dataclass(frozen=True)
class Findings:
    """One sentence for each violation; all is well when there is none."""

    lost: tuple[str, ...]
    unexpected: tuple[str, ...]
    duplicated: tuple[str, ...]
    stale_accepted: tuple[str, ...]
    tasks: int
    ends: Mapping[str, int]
    executions: int
    #: executions of a task beyond its first
    duplicate_executions: int
    #: faults from outside, and errors that the engine was told to raise
    faults: int

    @property
    def violations(self) -> tuple[str, ...]:
        """All sentences."""
        many = (
            (f"{self.duplicate_executions} duplicate executions, and only {self.faults} faults",)
            if self.duplicate_executions > self.faults
            else ()
        )
        return self.lost + self.unexpected + self.duplicated + self.stale_accepted + many


@dataclass(frozen=True)
class Story:
    """All that is known of one task."""

    id: str
    row: Task | None
    timeline: Sequence[Event]
    records: Sequence[Record]

    def said(self, name: str, *outcomes: Outcome) -> list[Record]:
        """Records of a name, with one of the outcomes."""
        return [each for each in self.records if each.name == name and (not outcomes or each.outcome in outcomes)]

    @cached_property
    def executions(self) -> int:
        """Claims that began to generate."""
        return len({each.claim for each in self.records if each.name in ("start", "step")})


def check(asked: Asked, found: Found, history: Sequence[Record]) -> Findings:
    """Join the three, and say what is wrong."""
    stories = _stories(asked, found, history)
    faults = asked.faults + sum(record.name == "misfortune" for record in history)
    return Findings(
        lost=_all(_lost(story, asked, found) for story in stories),
        unexpected=_all(_unexpected(story, asked, found) for story in stories),
        duplicated=_all(_duplicated(story) for story in stories),
        stale_accepted=_all(_stale_accepted(story, found) for story in stories),
        tasks=len(found.rows),
        ends=Counter(str(row.status) for row in found.rows.values()),
        executions=sum(story.executions for story in stories),
        duplicate_executions=sum(max(story.executions - 1, 0) for story in stories),
        faults=faults,
    )


def _all(each: Iterator[Iterator[str]]) -> tuple[str, ...]:
    return tuple(sentence for sentences in each for sentence in sentences)


def _stories(asked: Asked, found: Found, history: Sequence[Record]) -> list[Story]:
    records: dict[str, list[Record]] = {}
    for record in history:
        if record.task:  # some misfortunes are nobody's
            records.setdefault(record.task, []).append(record)
    ids = sorted(asked.accepted | set(found.rows) | set(records))
    return [Story(task, found.rows.get(task), found.timelines.get(task, ()), records.get(task, [])) for task in ids]


# ---- lost


def _lost(story: Story, asked: Asked, found: Found) -> Iterator[str]:
    row = story.row
    if row is None:
        if story.id in asked.accepted:
            yield f"{story.id} was accepted and is gone"
        return
    if not row.terminal:
        yield f"{story.id} is {row.status} for ever (claim {row.claim_number}, attempts {row.attempts})"
    if story.said("complete", Outcome.OK) and row.status is not Status.COMPLETE:
        yield f"{story.id}: its completion was acknowledged, and it is {row.status}"
    if row.status is Status.COMPLETE and row.output_location and found.digest(row) is None:
        yield f"{story.id} is complete, and its output {row.output_location} is not there"


# ---- unexpected


def _unexpected(story: Story, asked: Asked, found: Found) -> Iterator[str]:
    row = story.row
    if row is None:
        if story.id not in asked.accepted:
            yield f"{story.id} was worked on, and nobody added it"
        return
    if story.id not in asked.accepted and row.parent_id not in found.rows:
        yield f"{story.id} is there, and nobody added it"
    yield from _held_by_two(story)
    if row.status is Status.COMPLETE and not _completed(story, row):
        yield f"{story.id} is complete, and no worker completed it"
    if row.status is Status.CANCELLED and not _was_cancelled(row, asked, found, set()):
        yield f"{story.id} is cancelled, and nobody asked for that"
    if row.status is Status.FAILED and not _may_fail(row, asked, found):
        yield f"{story.id} failed as {row.error_class}: {row.error_message}"


def _held_by_two(story: Story) -> Iterator[str]:
    """A row may be claimed again only after it was given back."""
    holder: Event | None = None
    for event in story.timeline:
        if event.name in GIVEN_BACK:
            holder = None
        elif event.name == "claimed":
            if holder is not None:
                yield f"{story.id}: claim {event.claim_number} took it from claim {holder.claim_number}, which held it"
            holder = event


def _completed(story: Story, row: Task) -> bool:
    """A worker asked for that; the last child of a waiting parent completes it."""
    if any(event.name == "fanned_out" for event in story.timeline):
        return True
    return any(record.claim == row.claim_number for record in story.said("complete"))


def _was_cancelled(row: Task, asked: Asked, found: Found, seen: set[str]) -> bool:
    """Its own cancellation was asked for, or that of one that takes it along: what it depends on, its parent, its
    child."""
    if row.id in asked.cancelled:
        return True
    seen.add(row.id)
    near = {*row.dependant_on, *filter(None, [row.parent_id])}
    near |= {child.id for child in found.rows.values() if child.parent_id == row.id}
    causes = (found.rows[each] for each in near - seen if each in found.rows)
    return any(each.status is Status.CANCELLED and _was_cancelled(each, asked, found, seen) for each in causes)


def _may_fail(row: Task, asked: Asked, found: Found) -> bool:
    if row.error_class in USED_UP:
        return row.attempts >= asked.max_attempts or _follows(row, found)
    return row.error_class in asked.may_fail.get(row.id, ()) or _follows(row, found)


def _follows(row: Task, found: Found) -> bool:
    """Another one failed, and this one with it; the checks of that one stand for both."""
    near = {*row.dependant_on, *filter(None, [row.parent_id])}
    near |= {child.id for child in found.rows.values() if child.parent_id == row.id}
    return any(each in found.rows and found.rows[each].status is Status.FAILED for each in near)


# ---- duplicated


def _duplicated(story: Story) -> Iterator[str]:
    times = sum(event.name == "complete" for event in story.timeline)
    if times > 1:
        yield f"{story.id} was completed {times} times"
    claims = {record.claim for record in story.said("complete", Outcome.OK)}
    if len(claims) > 1:
        yield f"{story.id}: the completions of claims {', '.join(map(str, sorted(claims)))} were acknowledged"


# ---- stale writes that were accepted


def _stale_accepted(story: Story, found: Found) -> Iterator[str]:
    yield from _late_events(story)
    yield from _late_writes(story)
    row = story.row
    if row is None or row.status is not Status.COMPLETE:
        return
    for record in story.said("complete", Outcome.OK):
        if record.claim != row.claim_number:
            yield f"{story.id}: claim {record.claim} was told that it completed what claim {row.claim_number} holds"
    staged = {record.detail.split()[-1] for record in story.said("upload") if record.claim == row.claim_number}
    digest = found.digest(row) if row.output_location else None
    if digest is not None and staged and digest not in staged:
        yield f"{story.id}: its output is not what claim {row.claim_number} brought"


def _late_events(story: Story) -> Iterator[str]:
    """The database wrote the events of a row one after another: an older claim has no say after a newer one."""
    newest, ended = 0, ""
    for event in story.timeline:
        if event.name == "queued":
            ended = ""
        if event.claim_number is None or event.worker_id is None:
            continue
        if event.claim_number < newest:
            yield f"{story.id}: {event.name} of claim {event.claim_number} came after claim {newest}"
        if ended:
            yield f"{story.id}: {event.name} of claim {event.claim_number} came after it was {ended}"
        newest = max(newest, event.claim_number)
        ended = event.name if event.name in FINAL else ended


def _late_writes(story: Story) -> Iterator[str]:
    """A write that began after a newer claim was known to be held, and was accepted."""
    claims = story.said("claim")
    for record in story.records:
        if record.name in ("claim", "upload", "lost", "misfortune") or record.outcome is not Outcome.OK:
            continue
        newer = next((each for each in claims if each.claim > record.claim and each.ended < record.began), None)
        if newer is not None:
            yield f"{story.id}: {record.name} of claim {record.claim} was accepted after claim {newer.claim}"
