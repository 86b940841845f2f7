"""How a row ends, what ends with it, and how it starts again."""

from __future__ import annotations

import pytest
from contract_rows import EXPIRED_S, LONG_S, MakeStore, a_task, claim, claim_that, event_names, statuses

from source.errors import InvalidInput, InvalidMedia, StaleClaim
from source.ledger import ENDED, claim_lines, ended
from source.store import Status, TaskStore

QUEUED, RUNNING, COMPLETE, FAILED, CANCELLED = Status


class EndingContract:
    def test_completion_stores_status_and_output_together(self, store: TaskStore) -> None:
        added = store.add(a_task())
        store.complete(claim(store).claim, "files/a.mp4", result_data={"frames": 81})
        task = store.get(added)
        assert (task.status, task.output_location, task.result_data) == (COMPLETE, "files/a.mp4", {"frames": 81})
        assert task.generation_processed_at and task.lease_expires_at is None and task.terminal

    def test_the_timeline_tells_how_each_claim_ended(self, store: TaskStore) -> None:
        """Read by one function, whatever the backend."""
        added = store.add(a_task())
        first = claim(store).claim
        store.note(first, ENDED, ended("transient", {"load": 2.0, "denoise": 10.5}))
        store.retry_later(first, "the host is away", error_class="transient", delay_s=0)
        store.release(claim(store).claim)
        claim(store, lease_s=EXPIRED_S)
        store.rescue()
        last = claim(store).claim
        store.generation_started(last)
        store.complete(last, "files/a.mp4", result_data={"gpu_seconds": {"denoise": 3.0, "decode": 1.25}})
        lines = claim_lines(store.events(added), store.get(added).result_data)
        assert [(line.number, line.end, line.gpu_seconds) for line in lines] == [
            (1, "retry: transient", 12.5), (2, "released", None), (3, "rescued (death)", None), (4, "complete", 4.25),
        ]  # fmt: skip
        assert all(line.worker_id and line.claimed_at and line.ended_at for line in lines)
        fresh = claim_lines(store.events(store.add(a_task())))
        assert fresh == []

    def test_repeating_a_completion_changes_nothing(self, store: TaskStore) -> None:
        added = store.add(a_task())
        used = claim(store).claim
        published: list[str] = []
        store.complete(used, "files/a.mp4", publish=lambda: published.append("a"))
        before, timeline = store.get(added), store.events(added)
        store.complete(used, "files/b.mp4", publish=lambda: published.append("b"))
        assert (store.get(added), store.events(added), published) == (before, timeline, ["a"])

    def test_a_completion_whose_publishing_fails_stores_nothing(self, store: TaskStore) -> None:
        added = store.add(a_task())
        after = store.add(a_task(dependant_on=(added,)))
        task = claim(store)
        timeline = store.events(added)

        def publish() -> None:
            raise InvalidMedia("result.mp4 is empty")

        with pytest.raises(InvalidMedia, match="is empty"):
            store.complete(task.claim, "files/a.mp4", publish=publish)
        assert (store.get(added), store.events(added), store.get(after).status) == (task, timeline, QUEUED)
        store.complete(task.claim, "files/a.mp4")
        assert store.get(added).status == COMPLETE

    def test_files_beside_the_output_are_stored_with_it_or_not_at_all(self, store: TaskStore) -> None:
        added = store.add(a_task())
        used = claim(store).claim
        data = {"outputs": ["files/a.png", "files/b.png", "files/c.png"], "thumbnail_url": "files/a.jpg"}

        def publish() -> None:
            raise OSError("the second of three could not be renamed")

        with pytest.raises(OSError, match="second of three"):
            store.complete(used, "files/a.png", result_data=data, publish=publish)
        assert (store.get(added).output_location, store.get(added).result_data) == (None, None)
        store.complete(used, "files/a.png", result_data=data, publish=lambda: None)
        assert (store.get(added).output_location, store.get(added).result_data) == ("files/a.png", data)

    def test_a_stale_completion_publishes_nothing(self, store: TaskStore) -> None:
        store.add(a_task())
        stale = claim(store, lease_s=EXPIRED_S).claim
        store.complete(claim(store, "worker-2").claim, "files/b.mp4")
        published: list[str] = []
        with pytest.raises(StaleClaim, match="the task is Complete"):
            store.complete(stale, "files/a.mp4", publish=lambda: published.append("a"))
        assert published == []

    def test_a_failure_keeps_its_text_out_of_the_output(self, store: TaskStore) -> None:
        added = store.add(a_task())
        store.fail(claim(store).claim, "prompt: missing \ud800", error_class="bad_input")
        task = store.get(added)
        assert (task.status, task.error_class, task.output_location) == (FAILED, "bad_input", None)
        assert task.error_message and task.error_message.startswith("prompt: missing")
        assert task.generation_processed_at is not None and task.attempts == 1

    def test_a_retry_counts_and_the_last_attempt_fails(self, store: TaskStore) -> None:
        added = store.add(a_task())
        ends = [store.retry_later(claim(store).claim, "reset", error_class="transient", delay_s=0) for _ in range(3)]
        assert ends == [QUEUED, QUEUED, FAILED]
        task = store.get(added)
        assert (task.attempts, task.error_message, task.error_class) == (3, "reset", "transient")
        assert event_names(store, added).count("retry") == 2

    def test_a_completion_clears_the_error_of_an_earlier_attempt(self, store: TaskStore) -> None:
        added = store.add(a_task())
        store.retry_later(claim(store).claim, "reset", error_class="transient", delay_s=0)
        assert store.get(added).error_message == "reset"
        store.complete(claim(store).claim, None)
        assert (store.get(added).error_message, store.get(added).error_class) == (None, None)

    def test_a_release_burns_no_attempt(self, store: TaskStore) -> None:
        added = store.add(a_task())
        store.release(claim(store).claim)
        task = store.get(added)
        assert (task.status, task.attempts, task.worker_id, task.lease_expires_at) == (QUEUED, 0, None, None)

    def test_progress_and_start_are_stored(self, store: TaskStore) -> None:
        added = store.add(a_task())
        used = claim(store).claim
        store.generation_started(used)
        assert store.progress(used, {"step": 3, "steps": 8}, event="segment 1") is False
        assert store.get(added).progress == {"step": 3, "steps": 8}
        assert event_names(store, added) == ["queued", "claimed", "started", "segment 1"]
        store.cancel(added)
        assert store.progress(used, {"step": 4}) is True

    # -- cascades ---------------------------------------------------------------------------------------------------

    def test_a_failure_fails_the_chain_behind_it(self, store: TaskStore) -> None:
        first = store.add(a_task())
        second = store.add(a_task(dependant_on=(first,)))
        third = store.add(a_task(dependant_on=(second,)))
        bystander = store.add(a_task())
        store.fail(claim_that(store, first), "boom", error_class="engine")
        assert statuses(store, second, third, bystander) == [FAILED, FAILED, QUEUED]
        for task_id in (second, third):
            task = store.get(task_id)
            assert task.error_class == "dependency"
            assert task.error_message and first in task.error_message and "boom" in task.error_message

    def test_a_diamond_fails_once_and_only_behind_the_failure(self, store: TaskStore) -> None:
        top = store.add(a_task())
        left, right = store.add_many([a_task(dependant_on=(top,)), a_task(dependant_on=(top,))])
        bottom = store.add(a_task(dependant_on=(left, right)))
        store.complete(claim(store).claim, None)
        store.fail(claim_that(store, left), "boom", error_class="engine")
        assert statuses(store, top, left, right, bottom) == [COMPLETE, FAILED, QUEUED, FAILED]
        assert event_names(store, bottom) == ["queued", "failed"]

    def test_a_cancellation_cancels_the_chain_behind_it(self, store: TaskStore) -> None:
        first = store.add(a_task())
        second = store.add(a_task(dependant_on=(first,)))
        third = store.add(a_task(dependant_on=(second,)))
        assert store.cancel(first) == CANCELLED
        assert statuses(store, second, third) == [CANCELLED, CANCELLED]
        assert first in (store.get(second).error_message or "")

    # -- cancel -----------------------------------------------------------------------------------------------------

    def test_a_running_row_is_asked_to_stop_and_ends_when_it_did(self, store: TaskStore) -> None:
        added, neighbour = store.add_many([a_task(), a_task()])
        after = store.add(a_task(dependant_on=(added,)))
        used = claim_that(store, added)
        assert store.cancel(added) == RUNNING
        assert store.cancel(added) == RUNNING
        assert event_names(store, added).count("cancel_requested") == 1
        store.cancelled(used)
        assert statuses(store, added, after, neighbour) == [CANCELLED, CANCELLED, QUEUED]

    def test_a_completion_may_win_the_race_against_a_cancel(self, store: TaskStore) -> None:
        added = store.add(a_task())
        used = claim(store).claim
        store.cancel(added)
        store.complete(used, "files/a.mp4")
        assert store.get(added).status == COMPLETE
        assert store.cancel(added) == COMPLETE

    @pytest.mark.parametrize("how", ["fail", "retry", "release"])
    def test_a_row_to_be_cancelled_ends_as_cancelled_however_it_stops(self, store: TaskStore, how: str) -> None:
        added = store.add(a_task())
        used = claim(store).claim
        store.cancel(added)
        if how == "fail":
            store.fail(used, "stopped in the middle", error_class="engine")
        elif how == "retry":
            assert store.retry_later(used, "reset", error_class="transient", delay_s=0) == CANCELLED
        else:
            store.release(used)
        assert store.get(added).status == CANCELLED

    def test_final_rows_stay_as_they_are(self, store: TaskStore) -> None:
        added = store.add(a_task())
        store.cancel(added)
        with pytest.raises(InvalidInput, match="is Cancelled; only a Failed"):
            store.retry(added)
        assert store.cancel(added) == CANCELLED

    # -- retry from outside -----------------------------------------------------------------------------------------

    def test_a_failed_row_starts_afresh(self, make_store: MakeStore) -> None:
        store = make_store(max_attempts=1)
        added = store.add(a_task())
        store.retry_later(claim(store).claim, "reset", error_class="transient", delay_s=LONG_S)
        assert store.retry(added) == QUEUED
        task = store.get(added)
        assert (task.attempts, task.error_message, task.generation_processed_at) == (0, None, None)
        assert claim(store).claim_number == 2

    def test_what_failed_behind_it_starts_with_it(self, store: TaskStore) -> None:
        first, other = store.add_many([a_task(), a_task()])
        second = store.add(a_task(dependant_on=(first,)))
        third = store.add(a_task(dependant_on=(second,)))
        both = store.add(a_task(dependant_on=(first, other)))
        store.fail(claim_that(store, first), "boom", error_class="engine")
        store.fail(claim_that(store, other), "boom", error_class="engine")
        store.retry(first)
        assert statuses(store, first, second, third, both) == [QUEUED, QUEUED, QUEUED, FAILED]
        store.retry(other)
        assert store.get(both).status == QUEUED

    def test_a_note_is_an_entry_of_the_timeline_and_changes_nothing_else(self, store: TaskStore) -> None:
        added = store.add(a_task())
        task = claim(store)
        store.note(task.claim, "warning", "FRAME: 16 of 17 frames")
        [*_, event] = store.events(added)
        assert (event.name, event.detail, event.claim_number) == ("warning", "FRAME: 16 of 17 frames", 1)
        assert store.get(added) == task
