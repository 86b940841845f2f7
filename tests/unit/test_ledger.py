"""How each claim of a task ended, read from its timeline."""

from __future__ import annotations

import pytest

from source.ledger import ClaimLine, claim_lines, ended, lost_device
from source.store.types import Event


def event(claim: int | None, name: str, detail: str | None = None, at: str = "t") -> Event:
    return Event("task", at, name, f"worker-{claim}" if claim else None, claim, detail)


def ends(*events: Event) -> list[str]:
    return [line.end for line in claim_lines(events)]


def test_a_claim_has_its_worker_its_time_its_end_and_its_seconds() -> None:
    timeline = [
        event(None, "queued"), event(1, "claimed", at="1"), event(1, "started", at="2"),
        event(1, "ended", ended("engine", {"load": 2.0, "denoise": 0.26}), at="3"),
        event(1, "retry", "it fell", at="4"),
    ]  # fmt: skip
    assert claim_lines(timeline) == [ClaimLine(1, "worker-1", "1", "4", "retry: engine", 2.3)]


@pytest.mark.parametrize("spent", [{}, {"load": 2.0, "denoise": 0.26}])
def test_the_phases_of_a_claim_that_ended_badly_are_told(spent: dict[str, float]) -> None:
    phases = "preparing 0.4, loading 2.0, denoising 0.3, 1 step"
    [line] = claim_lines([event(1, "claimed"), event(1, "ended", ended("engine", spent, phases)), event(1, "retry")])
    assert (line.end, line.phases, line.gpu_seconds) == ("retry: engine", phases, 2.3 if spent else None)


@pytest.mark.parametrize(
    ("names", "end"),
    [
        (("claimed",), "running"),
        (("claimed", "started", "complete"), "complete"),
        (("claimed", "released"), "released"),
        (("claimed", "unanswered", "released"), "released: unanswered"),
        (("claimed", "rescued"), "rescued (death)"),
        (("claimed", "rescued", "failed"), "failed: poison"),
        (("claimed", "requeued"), "requeued"),
        (("claimed", "cancelled"), "cancelled"),
        (("claimed", "fanned_out", "complete"), "complete"),
        (("claimed", "failed"), "failed"),
    ],
)
def test_the_ends_that_the_store_records(names: tuple[str, ...], end: str) -> None:
    assert ends(*(event(1, name) for name in names)) == [end]


def test_a_claim_without_an_end_before_another_is_stale() -> None:
    assert ends(event(1, "claimed"), event(2, "claimed")) == ["stale", "running"]


def test_the_seconds_of_a_result_are_those_of_the_claim_that_made_it() -> None:
    """The second claim only delivered what the first had made before it died."""
    timeline = [
        event(1, "claimed"),
        event(1, "started"),
        event(1, "rescued"),
        event(2, "claimed"),
        event(2, "complete"),
    ]
    lines = claim_lines(timeline, {"gpu_seconds": {"denoise": 1.5, "decode": 0.25}})
    assert [line.gpu_seconds for line in lines] == [1.75, None]


def test_a_lost_device_counts_for_the_task_that_was_at_work() -> None:
    assert lost_device(event(1, "ended", ended("device_lost", {"denoise": 0.0})))
    assert not lost_device(event(1, "ended", ended("device_lost", {})))
    assert not lost_device(event(1, "ended", ended("engine", {"denoise": 3.0})))


def test_a_row_that_ended_before_anybody_claimed_it_has_no_claim() -> None:
    assert ends(event(None, "queued"), event(0, "cancelled")) == []
