"""The previews of the SQLite store: one row a task, replaced. A trigger removes it when the task's claim ends."""

from __future__ import annotations

import sqlite3

from source.store.sqlite_rows import NOW
from source.store.types import Claim, Preview

_SHOW = f"""
INSERT INTO task_previews (task_id, claim_number, at, step, media_type, image) VALUES (?, ?, {NOW}, ?, ?, ?)
ON CONFLICT (task_id) DO UPDATE SET claim_number = excluded.claim_number, at = excluded.at, step = excluded.step,
    media_type = excluded.media_type, image = excluded.image
"""


def show(db: sqlite3.Connection, claim: Claim, image: bytes, media_type: str, step: int) -> None:
    """Keep `image` as the preview of the claimed row."""
    db.execute(_SHOW, (claim.task_id, claim.claim_number, step, media_type, image))


def preview(db: sqlite3.Connection, task_id: str) -> Preview | None:
    """The row's preview, None where there is none."""
    row = db.execute("SELECT * FROM task_previews WHERE task_id = ?", (task_id,)).fetchone()
    return Preview(**dict(row)) if row is not None else None
