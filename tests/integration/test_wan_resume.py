"""A Wan run that was interrupted goes on where it was, and makes the frames of a run that was not."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import run_engine
from tiny_models import tiny_wan_t2v, write_definition

from Wan2GP import wgp
from Wan2GP.engine.families import WINDOW, Cancel
from Wan2GP.engine.request import GenerationRequest, parse_request
from Wan2GP.engine.wan.model import Wan
from Wan2GP.engine.wan.resume import Resume
from Wan2GP.errors import GenerationCancelled

STEPS, WINDOWS = 12, 3
CLIP: dict[str, Any] = {
    "model_type": "tiny", "prompt": "a red circle", "resolution": "32x32", "seed": 5, "num_inference_steps": STEPS,
    "video_length": 41, "sliding_window_size": 17, "sliding_window_overlap": 5,
}  # fmt: skip
#: two windows of three steps
SHORT = CLIP | {"num_inference_steps": 3, "video_length": 29}

Stop = Callable[[str, int, int], bool]


@pytest.fixture(scope="module", autouse=True)
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("tiny_wan")
    weights = tiny_wan_t2v(folder / "weights")
    wgp.configure(definitions=[write_definition(folder / "models", "tiny", "t2v_1.3B", weights)], device="cpu")
    wgp.load_models("tiny")
    yield
    wgp.release_model()
    wgp.configure(definitions=[])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


class Died(BaseException):
    """Stands for the death of the process: nothing in the engine answers it."""


def request_of(folder: Path | None, interval_s: float = 0.0, **values: Any) -> GenerationRequest:
    kept = {"checkpoint": folder, "checkpoint_interval_s": interval_s}
    asked = CLIP | values | {"plugin_data": kept}
    return parse_request(asked, wgp.definitions()["tiny"], Wan.reads, Path("loras"))


class Ran:
    """One run: its frames, unless it died, and the steps that it reported as (window, step)."""

    def __init__(self, request: GenerationRequest, dies: Stop = lambda *_: False) -> None:
        self.reports: list[tuple[str, int, int]] = []
        self.steps: list[tuple[int, int]] = []
        self._window = 0
        self._dies = dies
        self.frames: np.ndarray | None = None
        try:
            frames = list(wgp.wan_model.generate(request, self.report, Cancel(lambda: False)))
            self.frames = np.stack(frames)
        except Died:
            pass
        self.notes = wgp.wan_model.remarks

    def report(self, phase: str, step: int, total: int) -> None:
        self.reports.append((phase, step, total))
        if phase == WINDOW:
            self._window = step
        if phase == "denoising":
            self.steps.append((self._window, step))
        if self._dies(phase, self._window, step):
            raise Died


def at_step(window: int, step: int) -> Stop:
    return lambda *seen: seen == ("denoising", window, step)


_WHOLE: dict[str, np.ndarray] = {}


def whole(**values: Any) -> np.ndarray:
    """The frames of an uninterrupted run, made once."""
    key = json.dumps(values, sort_keys=True)
    if key not in _WHOLE:
        frames = Ran(request_of(None, **values)).frames
        assert frames is not None
        _WHOLE[key] = frames
    return _WHOLE[key]


# ---- the same frames, and no step twice


@pytest.mark.parametrize(
    "values",
    [
        {"sample_solver": "unipc"},
        {"sample_solver": "dpm++_sde"},
        {"sample_solver": "dpm++"},
        {"sample_solver": "lcm", "sigmas": [1 - step / 12 for step in range(12)], "sliding_window_overlap_noise": 20},
        {"sample_solver": "euler", "apg_switch": 1, "sliding_window_color_correction_strength": 1},
    ],
    ids=lambda values: values["sample_solver"],
)
def test_a_run_that_died_at_step_7_of_window_2_goes_on_there(folder: Path, values: dict[str, Any]) -> None:
    died = Ran(request_of(folder, **values), at_step(2, 7))
    assert died.steps[-1] == (2, 7)
    second = Ran(request_of(folder, **values))
    rest = [(2, step) for step in range(7, STEPS + 1)] + [(3, step) for step in range(STEPS + 1)]
    assert second.steps == rest
    assert np.array_equal(second.frames, whole(**values))
    assert second.notes == ("window 1 was there already", "went on after step 7 of window 2")


def test_wherever_a_run_dies_the_frames_are_the_same(folder: Path) -> None:
    """Dies at its first report, the next run at its second new one, and so on until one comes to its end."""
    expected = whole(**SHORT)
    seen: set[tuple[str, int, int]] = set()

    def at_something_new(*place: Any) -> bool:
        new = place not in seen
        seen.add(place)
        return new

    run = Ran(request_of(folder, **SHORT), at_something_new)
    deaths = 0
    while run.frames is None:
        deaths += 1
        run = Ran(request_of(folder, **SHORT), at_something_new)
    assert deaths == len(seen) > 15
    assert np.array_equal(run.frames, expected)


@pytest.mark.parametrize("values", [SHORT, SHORT | {"video_length": 17}], ids=["windows", "one window"])
def test_a_run_that_dies_before_its_file_is_saved_makes_no_step_again(folder: Path, values: dict[str, Any]) -> None:
    first = Ran(request_of(folder, **values))
    second = Ran(request_of(folder, **values))
    assert np.array_equal(first.frames, second.frames)
    assert [step for _, step in second.steps] in ([], [3])


def test_stills_and_repeats_have_memories_of_their_own(folder: Path, tmp_path: Path) -> None:
    stills = {"image_mode": 1, "batch_size": 2, "num_inference_steps": 3}
    expected = whole(**stills)
    Ran(request_of(folder, **stills), at_step(1, 2))
    assert np.array_equal(Ran(request_of(folder, **stills)).frames, expected)
    request = request_of(folder)
    second, third = request.repeated(2), request.repeated(3)
    assert len({each.checkpoint for each in (request, second, third)}) == 3
    assert len({each.seed for each in (request, second, third)}) == 3
    assert request.repeated(2) == second


def test_a_drawn_seed_is_drawn_again(folder: Path) -> None:
    seeds = [request_of(place, seed=-1).seed for place in (folder, folder, folder.with_name("other"), None, None)]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 4


# ---- what is kept, and when


def test_states_are_kept_at_most_once_in_an_interval_and_at_the_end_of_a_window(folder: Path) -> None:
    Ran(request_of(folder, interval_s=3600), at_step(1, STEPS - 1))
    assert not list(folder.rglob("state.pt"))
    Ran(request_of(folder, interval_s=3600), at_step(1, STEPS))
    assert Ran(request_of(folder)).steps[0] == (1, STEPS)


def test_keeping_takes_a_small_share_of_the_time(folder: Path) -> None:
    now = [0.0]

    def state() -> dict[str, Any]:
        now[0] += 1
        return {"step": 1}

    memory = Resume(folder, "key", 2.0, clock=lambda: now[0])
    written = []
    for second in range(100):
        now[0] = max(now[0], float(second))
        before = now[0]
        memory.keep(state)
        if now[0] > before:
            written.append(before)
    assert written == [2, 28, 54, 80]


def test_a_run_that_is_stopped_keeps_its_last_step(folder: Path) -> None:
    """So does a worker's shutdown, whatever the interval says."""
    asked: list[bool] = []

    def report(phase: str, step: int, total: int) -> None:
        if (phase, step) == ("denoising", 7):
            asked.append(True)

    with pytest.raises(GenerationCancelled):
        list(wgp.wan_model.generate(request_of(folder, interval_s=3600), report, Cancel(lambda: bool(asked))))
    second = Ran(request_of(folder))
    assert second.steps[0] == (1, 7)
    assert np.array_equal(second.frames, whole())


# ---- what cannot be used


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


def one_bit_wrong(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("name", ["state.pt", "window0.npy"])
@pytest.mark.parametrize("harm", [cut_short, one_bit_wrong, lambda data: b"", lambda data: b"x" * 100])
def test_what_is_damaged_is_made_anew(folder: Path, name: str, harm: Callable[[bytes], bytes]) -> None:
    Ran(request_of(folder, **SHORT), at_step(2, 2))
    [kept] = folder.rglob(name)
    kept.write_bytes(harm(kept.read_bytes()))
    second = Ran(request_of(folder, **SHORT))
    assert np.array_equal(second.frames, whole(**SHORT))
    assert any(f"{name} of an interrupted run was damaged" in note for note in second.notes)


@pytest.mark.parametrize("change", [{"seed": 6}, {"prompt": "a ring"}, {"num_inference_steps": 4}])
def test_what_another_request_kept_is_not_used(folder: Path, change: dict[str, Any]) -> None:
    Ran(request_of(folder, **SHORT), at_step(2, 2))
    other = SHORT | change
    second = Ran(request_of(folder, **other))
    assert second.steps[0] == (1, 0)
    assert np.array_equal(second.frames, whole(**other))
    assert len(list(folder.iterdir())) == 1


def test_another_place_of_the_same_model_and_request_is_no_matter(folder: Path) -> None:
    Ran(request_of(folder, **SHORT), at_step(2, 2))
    moved = folder.rename(folder.with_name("moved"))
    assert Ran(request_of(moved, **SHORT)).steps[0] == (2, 2)


def test_a_full_disk_does_not_end_a_run(folder: Path) -> None:
    """No file of this process may become larger than 64 bytes, while the model runs."""
    request = request_of(folder, **SHORT)
    expected = whole(**SHORT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        run = Ran(request)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert np.array_equal(run.frames, expected)
    assert len(run.notes) == 1 and "could not be kept" in run.notes[0]
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made_or_went_away_does_not_end_a_run(folder: Path) -> None:
    folder.write_text("a file stands in the way")
    assert np.array_equal(Ran(request_of(folder, **SHORT)).frames, whole(**SHORT))
    folder.unlink()

    def removed(phase: str, window: int, step: int) -> bool:
        if (phase, window, step) == ("denoising", 1, 1):
            folder.rename(folder.with_name("gone"))
        return False

    assert np.array_equal(Ran(request_of(folder, **SHORT), removed).frames, whole(**SHORT))
    assert not folder.exists()


# ---- the call


def test_the_call_says_where_it_went_on_and_counts_windows(folder: Path, tmp_path: Path) -> None:
    wgp.configure(save_path=tmp_path / "out")
    Ran(request_of(folder, **SHORT), at_step(2, 2))
    places: list[tuple[int, int, str]] = []

    def look(command: str, data: Any, state: dict[str, Any]) -> None:
        if command == "progress":
            gen = state["gen"]
            places.append((gen["window_no"], gen["total_windows"], data[1]))

    kept = {"checkpoint": folder, "checkpoint_interval_s": 0}
    run = run_engine(look, **SHORT, plugin_data=kept)
    assert run.data("info") == ["window 1 was there already", "went on after step 2 of window 2"]
    assert {place[:2] for place in places} == {(2, 2)}
    assert WINDOW not in {place[2] for place in places}
    fresh = run_engine(**SHORT)
    assert np.array_equal(run.frames(), fresh.frames())


def test_the_settings_of_a_file_name_no_folder_of_ours(folder: Path) -> None:
    assert str(folder) not in json.dumps(dict(request_of(folder).settings), default=str)
    assert replace(request_of(folder), checkpoint=None).settings == request_of(None).settings
