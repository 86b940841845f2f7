"""Who watches a run: when they are shown something, and the small files that they are shown."""

from __future__ import annotations

import contextvars
import threading
from queue import SimpleQueue

import numpy as np
import pytest
from preview_runs import PATIENCE_S, frames_of

from Wan2GP.media.preview import LONGEST_SIDE, MEDIA_TYPE, MOST_BYTES, MOST_FRAMES, preview_image
from Wan2GP.previews import Preview, Watcher

PLAIN = Preview(1, MEDIA_TYPE, b"x")


def frames(count: int, height: int, width: int, *, detail: int = 4) -> np.ndarray:
    """(F, H, W, 3): patches of random colours, `detail` pixels a side."""
    patches = np.random.default_rng(0).integers(0, 256, (count, height // detail, width // detail, 3), np.uint8)
    return patches.repeat(detail, axis=1).repeat(detail, axis=2)


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_still_keeps_its_shape_and_its_colours() -> None:
    still = np.full((1, 30, 52, 3), (200, 40, 90), np.uint8)
    shown = frames_of(Preview(1, MEDIA_TYPE, preview_image(still)))
    assert shown.shape == (1, round(LONGEST_SIDE * 30 / 52), LONGEST_SIDE, 3)
    assert np.abs(shown.astype(int) - (200, 40, 90)).max() <= 6


def test_a_video_is_a_short_animation_and_large_pictures_become_small() -> None:
    clip = np.linspace(0, 255, MOST_FRAMES).astype(np.uint8)[:, None, None, None] * np.ones((1, 300, 400, 3), np.uint8)
    shown = frames_of(Preview(1, MEDIA_TYPE, preview_image(clip)))
    assert shown.shape == (MOST_FRAMES, LONGEST_SIDE * 3 // 4, LONGEST_SIDE, 3)
    assert np.abs(shown.mean(axis=(1, 2, 3)) - clip.mean(axis=(1, 2, 3))).max() <= 6


@pytest.mark.parametrize(("count", "detail"), [(MOST_FRAMES, 16), (MOST_FRAMES, 4), (MOST_FRAMES, 1), (1, 1)])
def test_no_picture_is_too_large(count: int, detail: int) -> None:
    image = preview_image(frames(count, LONGEST_SIDE, LONGEST_SIDE, detail=detail))
    assert 0 < len(image) <= MOST_BYTES
    assert len(frames_of(Preview(1, MEDIA_TYPE, image))) <= count


# -- watchers -------------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pictures_come_after_the_interval_and_no_sooner() -> None:
    clock, shown = Clock(), SimpleQueue[Preview]()
    watcher = Watcher(shown.put, interval_s=2, clock=clock)
    assert not watcher.wants
    watcher.begin()
    clock.now = 1.9
    watcher.begin()  # of another part of the run
    assert not watcher.wants
    clock.now = 2.0
    assert watcher.wants
    watcher.offer(lambda: PLAIN)
    assert shown.get(timeout=PATIENCE_S) is PLAIN
    clock.now = 3.9
    assert not watcher.wants
    clock.now = 4.0
    assert watcher.wants


def test_one_that_is_busy_wants_nothing_and_holds_nobody_up() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slowly(preview: Preview) -> None:
        begun.set()
        go_on.wait(PATIENCE_S)

    watcher = Watcher(slowly, interval_s=0)
    watcher.begin()
    watcher.offer(lambda: PLAIN)
    assert begun.wait(PATIENCE_S)
    assert not watcher.wants
    go_on.set()
    behind = Watcher(lambda _: done.set(), interval_s=0)
    behind.offer(lambda: PLAIN)
    assert done.wait(PATIENCE_S)
    assert watcher.wants


def test_it_is_shown_where_the_log_knows_the_task() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    seen = SimpleQueue[tuple[str, str]]()
    name.set("task 7")
    watcher = Watcher(lambda _: seen.put((name.get(), threading.current_thread().name)), interval_s=0)
    watcher.offer(lambda: PLAIN)
    assert seen.get(timeout=PATIENCE_S) == ("task 7", "previews")
