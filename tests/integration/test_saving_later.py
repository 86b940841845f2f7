"""Files that are written on another thread: the same pictures, bounded memory, and nothing left behind by a bad end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import picture, run_engine

from headless.generation import CancelToken, GenerationTask, Progress
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from Wan2GP import wgp
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.later import MOST_UNSAVED, save_later
from Wan2GP.errors import EngineError, GenerationCancelled
from Wan2GP.media import Frame, read_frames, write_image

DRAFT = {
    "model_type": "draft", "image_start": picture(1), "image_end": picture(2), "resolution": "64x48",
    "video_length": 9, "seed": 42,
}  # fmt: skip
FINISHED = {
    "film_grain_intensity": 0.4, "spatial_upsampling": "lanczos1.5", "plugin_data": {"lossless": True},
}  # fmt: skip
NEVER = Cancel(lambda: False)
WAIT_S = 20.0


@pytest.fixture(autouse=True)
def engine(tmp_path: Path) -> Iterator[None]:
    wgp.configure(checkpoints=tmp_path / "ckpts", definitions=[], save_path=tmp_path / "out", device="cpu")
    yield
    wgp.release_model()
    wgp.configure(definitions=[])


def files_later(**values: Any) -> list[Path]:
    """The files of a run that returned before they were written."""
    gen: dict[str, Any] = {}
    given = {**DRAFT, **values}
    later = {**(given.pop("plugin_data", None) or {}), "save_later": True}
    assert wgp.generate_media(state={"gen": gen}, plugin_data=later, **given)
    assert gen["file_list"] == []
    for ask in gen["unsaved"]:
        ask()
    return [Path(file) for file in gen["file_list"]]


@pytest.mark.parametrize(
    "values", [{"plugin_data": {"lossless": True}}, FINISHED, FINISHED | {"temporal_upsampling": "rife2"}]
)
def test_pictures_are_those_of_a_run_that_waits_for_its_files(values: dict[str, Any]) -> None:
    waited = run_engine(**{**DRAFT, **values}).frames()
    (file,) = files_later(**values)
    assert np.array_equal(np.stack(list(read_frames(file))), waited)


def test_each_repeat_has_its_file() -> None:
    assert len(set(files_later(repeat_generation=3))) == 3


def test_a_run_that_is_aborted_while_its_files_are_written_leaves_none(tmp_path: Path) -> None:
    gen: dict[str, Any] = {}
    assert wgp.generate_media(state={"gen": gen}, plugin_data={"save_later": True}, **DRAFT)
    gen["abort"] = True
    try:
        gen["unsaved"][0]()
    except GenerationCancelled:
        assert list((tmp_path / "out").iterdir()) == []
    else:
        assert len(gen["file_list"]) == 1, "it was written before anybody could ask"


def test_a_folder_that_cannot_be_written_to_is_told_when_the_files_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OSError):
        files_later()


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_what_an_earlier_repeat_still_writes_is_let_go_before_the_run_ends_badly(tmp_path: Path, ending: str) -> None:
    """Whoever hears of the end removes the folder."""
    orchestrator = WanOrchestrator(checkpoints=tmp_path / "ckpts", device="cpu")
    photo = str(write_image(tmp_path / "photo.png", picture(1)))
    knobs = {"image_start": photo, "resolution": "640x480", "video_length": 81, "repeat_generation": 2, "seed": 1}
    task = GenerationTask(
        id="a", model="draft", options=GenerationOptions.parse(knobs), output_dir=tmp_path / "out"
    )  # fmt: skip
    token, phases = CancelToken(), list[str]()

    def end_the_second(progress: Progress) -> None:
        phases.append(progress.phase)
        if phases[-2:] == ["saving", "decoding"]:
            if ending == "failed":
                raise EngineError("stumbled")
            token.cancel()

    orchestrator.load_model("draft", lambda _: None)
    with pytest.raises(EngineError if ending == "failed" else GenerationCancelled):
        orchestrator.generate(task, end_the_second, token)
    assert [file.name for file in task.output_dir.iterdir() if file.name.startswith(".")] == []


def test_a_run_that_waits_for_earlier_ones_to_be_saved_stops_as_soon_as_it_is_asked(tmp_path: Path) -> None:
    written, waiting, told = threading.Event(), threading.Event(), threading.Event()

    def save(frames: Iterable[Frame]) -> list[Path]:
        written.wait(WAIT_S)
        return []

    class Asked(Cancel):
        def raise_if_requested(self) -> None:
            waiting.set()
            super().raise_if_requested()

    earlier = [save_later([frame(0)], save, NEVER) for _ in range(MOST_UNSAVED)]
    ended: list[BaseException] = []

    def run() -> None:
        try:
            save_later([frame(0)], save, Asked(told.is_set))
        except GenerationCancelled as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(WAIT_S)
    told.set()
    wgp.abort_generation({})
    thread.join(WAIT_S)
    assert (len(ended), [saved.done() for saved in earlier]) == (1, [False] * MOST_UNSAVED)
    written.set()
    wait(earlier, WAIT_S)


# ---- the spool


def frame(number: int) -> Frame:
    return np.full((4, 4, 3), number, np.uint8)


def test_so_many_bytes_of_frames_wait_and_no_more() -> None:
    made: list[int] = []
    ahead: list[int] = []

    def frames() -> Iterator[Frame]:
        for number in range(20):
            made.append(number)
            yield frame(number)

    def save(taken: Iterable[Frame]) -> list[Path]:
        for number, _ in enumerate(taken):
            ahead.append(len(made) - number)
        return []

    save_later(frames(), save, NEVER, most_bytes=2 * frame(0).nbytes).result(WAIT_S)
    assert len(ahead) == 20
    assert max(ahead) <= 4  # one that is saved, two that wait, one that is made


def test_frames_may_be_drawn_into_the_same_memory() -> None:
    canvas, seen = frame(0), []
    told_to_save = threading.Event()

    def frames() -> Iterator[Frame]:
        for number in range(3):
            canvas[:] = number
            yield canvas
        told_to_save.set()

    def save(taken: Iterable[Frame]) -> list[Path]:
        told_to_save.wait(WAIT_S)
        seen.extend(int(each.max()) for each in taken)
        return []

    save_later(frames(), save, NEVER).result(WAIT_S)
    assert seen == [0, 1, 2]


def test_a_run_waits_while_two_others_are_unsaved() -> None:
    go_on, begun = threading.Event(), []

    def save(taken: Iterable[Frame]) -> list[Path]:
        go_on.wait(WAIT_S)
        return []

    def frames() -> Iterator[Frame]:
        begun.append(go_on.is_set())
        yield frame(0)

    unsaved = [save_later(frames(), save, NEVER) for _ in range(MOST_UNSAVED)]
    last = threading.Thread(target=lambda: save_later(frames(), save, NEVER).result(WAIT_S))
    last.start()
    go_on.set()
    last.join(WAIT_S)
    assert begun == [False] * MOST_UNSAVED + [True]
    assert [each.result(WAIT_S) for each in unsaved] == [[]] * MOST_UNSAVED


def test_a_run_that_waits_for_others_can_be_stopped() -> None:
    go_on = threading.Event()

    def save(taken: Iterable[Frame]) -> list[Path]:
        go_on.wait(WAIT_S)
        return []

    unsaved = [save_later(iter([frame(0)]), save, NEVER) for _ in range(MOST_UNSAVED)]
    try:
        with pytest.raises(GenerationCancelled):
            save_later(iter([frame(0)]), save, Cancel(lambda: True))
    finally:
        go_on.set()
        wait(unsaved, WAIT_S)


def test_a_model_that_fails_ends_the_saving_before_its_error_is_raised() -> None:
    ends: list[BaseException] = []

    def frames() -> Iterator[Frame]:
        yield frame(0)
        raise EngineError("no more frames")

    def save(taken: Iterable[Frame]) -> list[Path]:
        try:
            return [Path(str(each.max())) for each in taken]
        except RuntimeError as error:
            ends.append(error)
            raise

    with pytest.raises(EngineError, match="no more frames"):
        save_later(frames(), save, NEVER)
    assert len(ends) == 1


def test_nothing_is_made_for_one_that_saves_no_more() -> None:
    made: list[int] = []
    refused = threading.Event()

    def frames() -> Iterator[Frame]:
        for number in range(10):
            made.append(number)
            yield frame(number)
            refused.wait(WAIT_S)

    def save(taken: Iterable[Frame]) -> list[Path]:
        refused.set()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        save_later(frames(), save, NEVER, most_bytes=frame(0).nbytes).result(WAIT_S)
    assert len(made) < 10
