"""A real Wan model behind the queue and the worker: cancelled at any step, and its memory between claims."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_wan_t2v, write_definition
from worker_floor import Floor

from headless.generation import CancelToken, GenerationOutcome, GenerationTask, OnProgress, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from source.store.types import NewTask, Status
from source.task_registry import registry
from Wan2GP import wgp
from Wan2GP.errors import GenerationCancelled
from Wan2GP.media import read_frames

STEPS = 6
CLIP: dict[str, Any] = {
    "prompt": "a red circle", "resolution": "32x32", "num_inference_steps": STEPS, "video_length": 29,
    "sliding_window_size": 17, "sliding_window_overlap": 5,
}  # fmt: skip

Look = Callable[[Progress, CancelToken], None]


class Watched(WanOrchestrator):
    """Shows each progress to the test before the engine goes on, on the engine's thread."""

    look: Look | None = None

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        def report(progress: Progress) -> None:
            on_progress(progress)
            if self.look is not None:
                self.look(progress, cancel)

        return super().generate(task, report, cancel)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tiny_wan")
    yield write_definition(folder / "models", "tiny", "t2v_1.3B", tiny_wan_t2v(folder / "weights"))
    wgp.release_model()
    wgp.configure(definitions=[])


@pytest.fixture
def engine(models: Path, tmp_path: Path) -> Watched:
    return Watched(checkpoints=tmp_path, definitions=[models], device="cpu")


def frames_of(file: Path) -> np.ndarray:
    return np.stack(list(read_frames(file)))


def task_of(folder: Path, name: str, **changes: Any) -> GenerationTask:
    options = GenerationOptions.parse(CLIP | {"seed": 5} | changes.pop("knobs", {}))
    return GenerationTask(id=name, model="tiny", options=options, output_dir=folder / name, **changes)


@pytest.mark.parametrize(
    "where", [("encoding", 1, 0), ("denoising", 1, 0), ("denoising", 1, 4), ("denoising", 2, STEPS)], ids=str
)
def test_a_cancelled_generation_stops_at_once_and_harms_no_other(
    engine: Watched, tmp_path: Path, where: tuple[str, int, int]
) -> None:
    seen: list[tuple[str, int, int]] = []

    def cancel_there(progress: Progress, cancel: CancelToken) -> None:
        seen.append((progress.phase, progress.window, progress.step))
        if seen[-1] == where:
            cancel.cancel()

    with HeadlessTaskQueue(engine) as queue:
        before = frames_of(queue.submit(task_of(tmp_path, "before")).result(60).output)
        engine.look = cancel_there
        with pytest.raises(GenerationCancelled):
            queue.submit(task_of(tmp_path, "cancelled", checkpoint_dir=tmp_path / "kept")).result(60)
        engine.look = None
        after = frames_of(queue.submit(task_of(tmp_path, "after")).result(60).output)
    following = seen[seen.index(where) + 1 :]
    assert not [place for place in following if place[0] == "decoding" or (place[0] == "denoising" and place[2] > 0)]
    assert not list((tmp_path / "cancelled").iterdir())
    assert np.array_equal(before, after)


def test_a_row_that_is_cancelled_at_a_step_ends_cancelled_and_leaves_nothing(engine: Watched, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    floor = Floor(tmp_path, engine, checkpoint_interval_s=0)  # type: ignore[arg-type]
    params = CLIP | {"model": "tiny", "seed": 5}
    first, second = (floor.store.add(NewTask(task_type="generate_video", params=params)) for _ in range(2))

    def cancel_row(progress: Progress, cancel: CancelToken) -> None:
        seen.append((progress.phase, progress.window, progress.step))
        if seen[-1] == ("denoising", 2, 3):
            assert list((tmp_path / "outputs" / "checkpoints").rglob("state.pt"))
            told = threading.Event()
            cancel.on_cancel(told.set)
            floor.store.cancel(first)
            assert told.wait(10)
            engine.look = None

    engine.look = cancel_row
    try:
        floor.worker(registry=registry()).run(until_idle=True)
        assert floor.store.get(first).status is Status.CANCELLED
        assert seen[-1] == ("denoising", 2, 3)
        assert floor.published() == [floor.output(second).name]
        assert not floor.leftovers()
        frames = frames_of(floor.output(second))
    finally:
        floor.close()
    with HeadlessTaskQueue(engine) as queue:
        assert np.array_equal(frames, frames_of(queue.submit(task_of(tmp_path, "alone")).result(60).output))


def test_progress_tells_window_pace_and_end(engine: Watched, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with HeadlessTaskQueue(engine) as queue:
        queue.submit(task_of(tmp_path, "told"), on_progress=seen.append).result(60)
    phases = list(dict.fromkeys((progress.phase, progress.window) for progress in seen if progress.phase != "loading"))
    stages = ("encoding", "denoising", "decoding")
    assert phases == [*((stage, window) for window in (1, 2) for stage in stages), ("saving", 2)]
    denoising = [progress for progress in seen if progress.phase == "denoising"]
    assert [(each.window, each.step) for each in denoising] == [(w, s) for w in (1, 2) for s in range(STEPS + 1)]
    assert {(each.total, each.windows) for each in denoising} == {(STEPS, 2)}
    assert all(each.seconds_per_step and each.eta_s is not None for each in denoising[1:])


def test_a_seed_by_chance_stays_the_same_for_the_same_run(engine: Watched, tmp_path: Path) -> None:
    short = {"seed": -1, "num_inference_steps": 1, "video_length": 5}
    places = {"a": tmp_path / "kept", "b": tmp_path / "kept", "c": tmp_path / "other", "d": None, "e": None}
    with HeadlessTaskQueue(engine) as queue:
        runs = [
            queue.submit(task_of(tmp_path, name, checkpoint_dir=place, knobs=short)) for name, place in places.items()
        ]
        seeds = [next(note for note in run.result(60).notes if note.startswith("seed ")) for run in runs]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 4
