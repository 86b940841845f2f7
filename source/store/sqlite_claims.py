"""Whether a claim still holds its row of the SQLite store, and which children it fans out into."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from source.errors import InvalidInput, StaleClaim
from source.store.sqlite_rows import IN_IDS, LATER, NOW, ids, record
from source.store.types import Claim, HeartbeatReply, NewTask, Status

SAME_CLAIM = "id = :id AND worker_id = :worker_id AND claim_number = :claim_number"
HELD = f"{SAME_CLAIM} AND status = 'In Progress' AND waiting = 0"

_EXTEND = f"""
UPDATE tasks SET lease_expires_at = {LATER}, updated_at = {NOW} WHERE {HELD} RETURNING cancel_requested
"""


def extend(db: sqlite3.Connection, claims: Sequence[Claim], lease_s: float) -> HeartbeatReply:
    """Renew the leases; which claims hold no longer, and the cancellation of which rows was asked for."""
    lost, asked = set(), set()
    for claim in claims:
        row = db.execute(_EXTEND, {**guard(claim), "delay_s": lease_s}).fetchall()
        if not row:
            lost.add(claim.task_id)
        elif row[0]["cancel_requested"]:
            asked.add(claim.task_id)
    return HeartbeatReply(frozenset(lost), frozenset(asked))


def guard(claim: Claim) -> dict[str, Any]:
    """The values of SAME_CLAIM and HELD."""
    return {"id": claim.task_id, "worker_id": claim.worker_id, "claim_number": claim.claim_number}


def owned(db: sqlite3.Connection, claim: Claim) -> sqlite3.Row | None:
    """The row when `claim` still holds it. The caller's write transaction keeps it so."""
    row: sqlite3.Row | None = db.execute(f"SELECT * FROM tasks WHERE {HELD}", guard(claim)).fetchone()
    return row


def stale(db: sqlite3.Connection, claim: Claim) -> StaleClaim:
    """The error for a claim that holds nothing: it says what became of the row."""
    row = db.execute("SELECT * FROM tasks WHERE id = ?", (claim.task_id,)).fetchone()
    now = "is gone" if row is None else f"is {row['status']}"
    if row is not None and row["status"] == Status.IN_PROGRESS:
        now = "waits for its children" if row["waiting"] else f"was claimed by {row['worker_id']}"
        now += f" (claim {row['claim_number']})"
    return StaleClaim(f"task {claim.task_id}: claim {claim.claim_number} of {claim.worker_id} is stale, the task {now}")


def completed_by(db: sqlite3.Connection, claim: Claim) -> bool:
    """Whether this claim has completed the row before."""
    completed = f"SELECT 1 FROM tasks WHERE {SAME_CLAIM} AND status = 'Complete'"
    return db.execute(completed, guard(claim)).fetchone() is not None


def record_of(db: sqlite3.Connection, claim: Claim, name: str, detail: str | None = None) -> None:
    """Add an entry to the timeline of the claimed task."""
    record(
        db, claim.task_id, name, worker_id=claim.worker_id, claim_number=claim.claim_number, detail=detail
    )  # fmt: skip


# -- children -------------------------------------------------------------------------------------------------------


def check_children(db: sqlite3.Connection, parent_id: str, children: Sequence[NewTask]) -> None:
    """Raises InvalidInput unless all of them are, or can become, children of `parent_id`."""
    for child in children:
        if child.parent_id != parent_id or not child.child_key:
            raise InvalidInput(f"{child.task_type} {child.id} is not a child of {parent_id} with a key")
    foreign = f"SELECT id, parent_id FROM tasks WHERE id {IN_IDS} AND parent_id IS NOT :parent"
    row = db.execute(foreign, {"ids": ids(child.id for child in children), "parent": parent_id}).fetchone()
    if row is not None:
        raise InvalidInput(f"task {row['id']} exists already and belongs to {row['parent_id'] or 'no parent'}")


def is_child(db: sqlite3.Connection, task_id: str, parent_id: str) -> bool:
    """Whether the row is there, and a child of `parent_id`."""
    found = db.execute("SELECT 1 FROM tasks WHERE id = ? AND parent_id = ?", (task_id, parent_id))
    return found.fetchone() is not None


def fanned_out_by(db: sqlite3.Connection, claim: Claim, children: Sequence[NewTask]) -> bool:
    """Whether this claim has fanned out into these children before."""
    same = db.execute(f"SELECT 1 FROM tasks WHERE {SAME_CLAIM}", guard(claim)).fetchone() is not None
    return same and bool(children) and all(is_child(db, child.id, claim.task_id) for child in children)
