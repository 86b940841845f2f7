"""What a task that runs looks like so far: shown under its claim, replaced, gone when the claim ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from contract_rows import EXPIRED_S, LONG_S, a_child, a_task, claim, claim_that

from source.errors import InvalidInput, StaleClaim
from source.store import Claim, Preview, TaskStore, child_id
from source.store.types import MAX_PREVIEW_BYTES

WEBP, PNG = "image/webp", "image/png"
NOBODY = "00000000-0000-4000-8000-00000000dead"
#: every byte there is
IMAGE = bytes(range(256)) * 4

ENDS: dict[str, Callable[[TaskStore, Claim], object]] = {
    "complete": lambda store, claim: store.complete(claim, "files/a.mp4"),
    "fail": lambda store, claim: store.fail(claim, "no", error_class="engine"),
    "retry_later": lambda store, claim: store.retry_later(claim, "no", error_class="engine", delay_s=60),
    "release": lambda store, claim: store.release(claim),
    "cancelled": lambda store, claim: store.cancelled(claim),
    "requeue": lambda store, claim: store.requeue(claim.task_id),
}


def seen(store: TaskStore, task_id: str) -> Preview:
    found = store.preview(task_id)
    assert found is not None
    return found


class PreviewContract:
    def test_a_preview_is_read_as_it_was_shown(self, store: TaskStore) -> None:
        store.add(a_task())
        held = claim(store).claim
        before = store.now().isoformat()
        store.show(held, IMAGE, media_type=WEBP, step=3)
        found = seen(store, held.task_id)
        expected = Preview(
            task_id=held.task_id, claim_number=1, at=found.at, step=3, media_type=WEBP, image=IMAGE
        )  # fmt: skip
        assert found == expected
        assert before[:19] <= found.at[:19]

    def test_the_next_one_takes_its_place(self, store: TaskStore) -> None:
        store.add_many([a_task(), a_task()])
        held, other = (task.claim for task in store.claim("worker-1", lease_s=LONG_S, limit=2))
        store.show(held, IMAGE, media_type=WEBP, step=1)
        store.show(other, b"beside it", media_type=WEBP, step=5)
        store.show(held, b"\0", media_type=PNG, step=2)
        shown = [seen(store, each.task_id) for each in (held, other)]
        assert [(found.step, found.media_type, found.image) for found in shown] == [
            (2, PNG, b"\0"),
            (5, WEBP, b"beside it"),
        ]

    def test_where_nothing_was_shown_there_is_none(self, store: TaskStore) -> None:
        assert store.preview(store.add(a_task())) is None
        assert store.preview(NOBODY) is None

    @pytest.mark.parametrize("end", ENDS)
    def test_it_goes_with_its_claim(self, store: TaskStore, end: str) -> None:
        store.add(a_task())
        held = claim(store).claim
        store.show(held, IMAGE, media_type=WEBP, step=1)
        ENDS[end](store, held)
        assert store.preview(held.task_id) is None
        with pytest.raises(StaleClaim):
            store.show(held, IMAGE, media_type=WEBP, step=2)
        assert store.preview(held.task_id) is None

    def test_a_parent_that_waits_shows_nothing(self, store: TaskStore) -> None:
        parent = store.add(a_task(task_type="travel_orchestrator"))
        held = claim_that(store, parent)
        store.show(held, IMAGE, media_type=WEBP, step=1)
        store.fan_out(held, [a_child(parent, "a:0")], final_child=child_id(parent, "a:0"))
        assert store.preview(parent) is None

    def test_what_a_dead_worker_showed_is_gone_with_its_lease(self, store: TaskStore) -> None:
        task_id = store.add(a_task())
        dead = claim(store, lease_s=EXPIRED_S).claim
        store.show(dead, IMAGE, media_type=WEBP, step=7)
        store.rescue()
        assert store.preview(task_id) is None
        held = claim(store, "worker-2").claim
        with pytest.raises(StaleClaim):
            store.show(dead, IMAGE, media_type=WEBP, step=8)
        store.show(held, b"new", media_type=WEBP, step=1)
        assert (seen(store, task_id).claim_number, seen(store, task_id).image) == (2, b"new")

    def test_nothing_of_the_row_changes_by_it(self, store: TaskStore) -> None:
        task_id = store.add(a_task())
        held = claim(store).claim
        before = store.get(task_id)
        store.show(held, IMAGE, media_type=WEBP, step=1)
        assert store.get(task_id) == before

    @pytest.mark.parametrize(
        ("image", "media_type", "field"),
        [
            (b"", WEBP, "image"),
            (b"x" * (MAX_PREVIEW_BYTES + 1), WEBP, "image"),
            (IMAGE, "image/svg+xml", "media_type"),
        ],
    )
    def test_what_is_no_preview_is_refused(self, store: TaskStore, image: bytes, media_type: str, field: str) -> None:
        store.add(a_task())
        held = claim(store).claim
        with pytest.raises(InvalidInput) as refused:
            store.show(held, image, media_type=media_type, step=1)
        assert refused.value.field == field
        assert store.preview(held.task_id) is None
        store.show(held, b"x" * MAX_PREVIEW_BYTES, media_type=WEBP, step=1)
