"""What the phases of a run took, by its progress."""

from __future__ import annotations

from headless.generation import Progress
from source.stages import StageTimes


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_second_is_booked_under_one_phase_and_steps_are_counted() -> None:
    clock = Clock()
    times = StageTimes(clock)
    heard = [
        (2.0, Progress("queued")), (1.0, Progress("loading")), (5.0, Progress("encoding", 1, 1)),
        (0.5, Progress("denoising", 0, 4)), (1.0, Progress("denoising", 1, 4)), (3.0, Progress("denoising", 4, 4)),
        (0.25, Progress("decoding")), (0.5, Progress("saving")),
    ]  # fmt: skip
    for seconds, progress in heard:
        clock.now += seconds
        times.hear(progress)
    clock.now += 1.0
    times.enter("finishing")
    clock.now += 2.0
    assert times.as_json() == {
        "stages": [
            ["preparing", 2.0], ["queued", 1.0], ["loading", 5.0], ["encoding", 0.5], ["denoising", 4.25],
            ["decoding", 0.5], ["saving", 1.0], ["finishing", 2.0],
        ],
        "steps_made": 4,
    }  # fmt: skip
    assert times.in_words().endswith("denoising 4.2, decoding 0.5, saving 1.0, finishing 2.0, 4 steps")


def test_steps_of_an_earlier_claim_and_of_earlier_windows_are_told_apart() -> None:
    times = StageTimes(Clock())
    for progress in (
        Progress("denoising", 5, 9, window=1, windows=2),  # resumed behind step 5
        Progress("denoising", 9, 9, window=1, windows=2),
        Progress("denoising", 0, 9, window=2, windows=2),
        Progress("denoising", 9, 9, window=2, windows=2),
    ):
        times.hear(progress)
    assert times.as_json()["steps_made"] == 13
