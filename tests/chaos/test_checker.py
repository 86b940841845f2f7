"""The checker on histories written by hand: it says what is wrong, and nothing when all is well."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from source.chaos.checker import Asked, Findings, Found, check
from source.chaos.history import History, Outcome, Record, read_histories
from source.store.types import Event, Status, Task

TASK, DIGEST = "t", "d1"


def row(task: str = TASK, **changes: Any) -> Task:
    """A completed one, by its first claim."""
    usual: dict[str, Any] = {
        "id": task, "task_type": "chaos_clip", "params": {}, "status": Status.COMPLETE, "created_at": "",
        "output_location": f"files/{task}.png", "claim_number": 1, "worker_id": "w",
    }  # fmt: skip
    return Task(**usual | changes)


def events(*names: str, task: str = TASK) -> list[Event]:
    """`claimed 2` is an event of claim 2, by a worker; `queued` is nobody's."""
    made = []
    for text in names:
        name, _, claim = text.partition(" ")
        made.append(Event(task, "", name, "w" if claim else None, int(claim) if claim else None))
    return made


def records(*texts: str, task: str = TASK) -> list[Record]:
    """`complete 2 stale` is a record of claim 2; each follows the one before it in time."""
    made = []
    for at, text in enumerate(texts):
        name, claim, *outcome = text.split()
        made.append(
            Record(
                name=name,
                task=task,
                claim=int(claim),
                worker="w",
                began=at,
                ended=at + 0.5,
                outcome=Outcome(*outcome) if outcome else Outcome.OK,
                detail=f"f.png {DIGEST}",
            )
        )
    return made


WELL = ("queued", "claimed 1", "started 1", "complete 1")
DONE = ("claim 1", "start 1", "step 1", "upload 1", "complete 1")


def findings(
    rows: Sequence[Task] = (row(),), timeline: Sequence[Event] | None = None, history: Sequence[Record] | None = None,
    *, digest: str | None = DIGEST, **asked: Any,
) -> Findings:  # fmt: skip
    asked = {"accepted": frozenset({TASK})} | asked
    timelines: dict[str, Sequence[Event]] = {TASK: events(*WELL) if timeline is None else timeline}
    found = Found({each.id: each for each in rows}, timelines, lambda _: digest)
    return check(Asked(**asked), found, records(*DONE) if history is None else history)


def test_a_run_in_which_all_is_well_has_no_violation() -> None:
    found = findings()
    assert found.violations == ()
    assert (found.tasks, found.ends, found.executions, found.duplicate_executions) == (1, {"Complete": 1}, 1, 0)


def test_a_task_that_was_killed_and_done_again_is_one_duplicate_execution() -> None:
    timeline = events("queued", "claimed 1", "started 1", "rescued 1", "claimed 2", "complete 2")
    history = records("claim 1", "start 1", "claim 2", "start 2", "upload 2", "complete 2")
    found = findings([row(claim_number=2)], timeline, history, faults=1)
    assert found.violations == () and found.duplicate_executions == 1
    without_fault = findings([row(claim_number=2)], timeline, history)
    assert without_fault.violations == ("1 duplicate executions, and only 0 faults",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((), "t was accepted and is gone"),
        ((row(status=Status.QUEUED),), "t is Queued for ever"),
        ((row(status=Status.CANCELLED),), "its completion was acknowledged, and it is Cancelled"),
    ],
)
def test_what_was_accepted_and_is_not_done_is_lost(rows: Sequence[Task], said: str) -> None:
    assert any(said in sentence for sentence in findings(rows).lost)


def test_an_output_that_is_not_there_is_lost() -> None:
    assert findings(digest=None).lost == ("t is complete, and its output files/t.png is not there",)


def test_rows_that_nobody_added_are_unexpected() -> None:
    assert findings([row(), row("other")]).unexpected[0] == "other is there, and nobody added it"
    assert findings(history=records(*DONE) + records("claim 1", task="ghost")).unexpected == (
        "ghost was worked on, and nobody added it",
    )


def test_children_of_a_row_are_expected() -> None:
    parent_timeline = events("queued", "claimed 1", "fanned_out 1", "complete 1")
    child = row("child", parent_id=TASK)
    history = records("claim 1", "fan_out 1") + records(*DONE, task="child")
    assert findings([row(), child], parent_timeline, history).violations == ()


def test_a_completion_that_no_worker_made_is_unexpected() -> None:
    assert findings(history=records("claim 1")).unexpected == ("t is complete, and no worker completed it",)


def test_a_completion_whose_answer_got_lost_may_have_been_stored_or_not() -> None:
    asked = records("claim 1", "upload 1", "complete 1 unknown")
    assert findings(history=asked).violations == ()
    timeline = events("queued", "claimed 1", "rescued 1", "claimed 2", "complete 2")
    again = asked + records("claim 2", "upload 2", "complete 2")
    assert findings([row(claim_number=2)], timeline, again).violations == ()


def test_a_cancellation_must_have_been_asked_for() -> None:
    ended = [row(status=Status.CANCELLED, output_location=None)]
    assert findings(ended, history=[]).unexpected == ("t is cancelled, and nobody asked for that",)
    assert findings(ended, history=[], cancelled=frozenset({TASK})).violations == ()


def test_what_depends_on_a_cancelled_task_is_cancelled_with_it() -> None:
    gone = {"status": Status.CANCELLED, "output_location": None}
    rows = [row(**gone), row("after", dependant_on=(TASK,), **gone)]
    both = frozenset({TASK, "after"})
    assert findings(rows, [], [], accepted=both, cancelled=frozenset({TASK})).violations == ()
    assert len(findings(rows, [], [], accepted=both).unexpected) == 2


def test_a_failure_must_have_a_cause() -> None:
    failed = {"status": Status.FAILED, "output_location": None, "error_class": "bad_input", "error_message": "no"}
    assert findings([row(**failed)], [], []).unexpected == ("t failed as bad_input: no",)
    assert findings([row(**failed)], [], [], may_fail={TASK: frozenset({"bad_input"})}).violations == ()
    for used_up in ("poison", "database"):
        given_up = failed | {"error_class": used_up}
        assert findings([row(**given_up, attempts=3)], [], []).violations == ()
        assert len(findings([row(**given_up, attempts=2)], [], []).unexpected) == 1


def test_two_completions_are_duplicated() -> None:
    timeline = events("queued", "claimed 1", "complete 1", "rescued 1", "claimed 2", "complete 2")
    found = findings([row(claim_number=2)], timeline, records(*DONE, "claim 2", "upload 2", "complete 2"))
    assert found.duplicated == (
        "t was completed 2 times",
        "t: the completions of claims 1, 2 were acknowledged",
    )


def test_a_row_that_two_hold_at_once_is_unexpected() -> None:
    found = findings(timeline=events("queued", "claimed 1", "claimed 2", "complete 2"))
    assert found.unexpected[0] == "t: claim 2 took it from claim 1, which held it"


def test_what_an_older_claim_wrote_after_a_newer_one_is_stale() -> None:
    timeline = events("queued", "claimed 1", "rescued 1", "claimed 2", "started 1", "complete 2")
    assert findings(timeline=timeline).stale_accepted[0] == "t: started of claim 1 came after claim 2"
    late = records("claim 1", "claim 2", "step 1", "step 1 stale", "complete 2")
    assert findings([row(claim_number=2)], history=late).stale_accepted == (
        "t: step of claim 1 was accepted after claim 2",
    )


def test_what_was_written_after_the_end_is_stale() -> None:
    found = findings(timeline=events(*WELL, "started 1"))
    assert found.stale_accepted == ("t: started of claim 1 came after it was complete",)


def test_a_completion_of_another_claim_than_the_rows_is_stale() -> None:
    found = findings([row(claim_number=2)], history=records("claim 1", "complete 1", "complete 2 unknown"))
    assert found.stale_accepted == ("t: claim 1 was told that it completed what claim 2 holds",)


def test_an_output_that_another_claim_made_is_stale() -> None:
    assert findings(digest="another").stale_accepted == ("t: its output is not what claim 1 brought",)


def test_a_line_that_a_death_cut_off_is_no_record(tmp_path: Path) -> None:
    with closing(History(tmp_path / "w.jsonl")) as history:
        history.note("claim", TASK, 1, "w")
        history.note("complete", TASK, 1, "w", outcome=Outcome.UNKNOWN)
    with (tmp_path / "w.jsonl").open("a") as file:
        file.write('{"name": "claim", "ta')
    assert [(record.name, record.outcome) for record in read_histories(tmp_path)] == [
        ("claim", Outcome.OK),
        ("complete", Outcome.UNKNOWN),
    ]
