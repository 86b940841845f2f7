"""HeadlessTaskQueue, driven through the shipped fake: order, cancel, failures, persistence, accounting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

import pytest

from headless.generation import (
    CancelToken,
    GenerationResult,
    GenerationTask,
    OnProgress,
    Progress,
)
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.testing import FakeOrchestrator, Gate
from Wan2GP.errors import (
    DeviceLost,
    EngineError,
    GenerationCancelled,
    InvalidInput,
    ModelUnavailable,
    NoOutput,
    OutOfMemory,
    UnknownModel,
)
from Wan2GP.media import probe_image, probe_video

WAIT_S = 20.0

TaskFactory = Callable[..., GenerationTask]


@pytest.fixture
def make_task(tmp_path: Path) -> TaskFactory:
    def make(
        task_id: str = "a",
        model: str = "fake_t2v",
        *,
        priority: int = 0,
        output_dir: Path | None = None,
        **knobs: object,
    ) -> GenerationTask:
        values: dict[str, object] = {"prompt": "a red kite", "resolution": "32x32", "video_length": 5}
        return GenerationTask(
            id=task_id,
            model=model,
            options=GenerationOptions.parse(values | knobs),
            output_dir=output_dir or tmp_path / task_id,
            priority=priority,
        )

    return make


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


class Clock:
    """Seconds that move only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def result_of(future: Future[GenerationResult]) -> GenerationResult:
    return future.result(timeout=WAIT_S)


def error_of(future: Future[GenerationResult]) -> BaseException:
    error = future.exception(timeout=WAIT_S)
    assert error is not None, "the run was expected to fail"
    return error


# ---- results


def test_a_run_ends_with_its_new_file(make_task: TaskFactory, tmp_path: Path) -> None:
    with HeadlessTaskQueue(FakeOrchestrator()) as queue:
        result = result_of(queue.submit(make_task("a", seed=7)))
    assert result.output.parent == tmp_path / "a"
    assert (probe_video(result.output).num_frames, result.model, result.switched) == (5, "fake_t2v", True)
    assert result.notes == ("seed 7",)


def test_tasks_given_before_the_start_run_after_it(make_task: TaskFactory) -> None:
    queue = HeadlessTaskQueue(FakeOrchestrator())
    future = queue.submit(make_task())
    with queue:
        assert result_of(future).files


def test_the_options_reach_the_engine_untouched(make_task: TaskFactory) -> None:
    class Extended(GenerationOptions):
        sparkle: float | None = None

    fake = FakeOrchestrator()
    task = replace(make_task(), options=Extended.parse({"prompt": "x", "sparkle": 0.25, "video_length": 5}))
    with HeadlessTaskQueue(fake) as queue:
        result_of(queue.submit(task))
    assert fake.calls == [{"prompt": "x", "sparkle": 0.25, "video_length": 5}]


def test_a_video_of_one_frame_becomes_a_png(make_task: TaskFactory) -> None:
    with HeadlessTaskQueue(FakeOrchestrator()) as queue:
        result = result_of(queue.submit(make_task(video_length=1)))
    assert result.output.suffix == ".png"
    assert (probe_image(result.output).width, probe_image(result.output).height) == (32, 32)
    assert [file.name for file in result.output.parent.iterdir()] == [result.output.name]


def test_progress_names_the_phases_in_order_and_counts_steps(make_task: TaskFactory) -> None:
    seen: list[Progress] = []
    with HeadlessTaskQueue(FakeOrchestrator()) as queue:
        result_of(queue.submit(make_task(num_inference_steps=3), on_progress=seen.append))
    phases = list(dict.fromkeys(progress.phase for progress in seen))
    assert phases == ["loading", "encoding", "denoising", "decoding", "saving"]
    assert [(p.step, p.total) for p in seen if p.phase == "denoising"] == [(1, 3), (2, 3), (3, 3)]


# ---- order


def test_larger_priorities_run_first_and_equal_ones_in_order_of_submission(make_task: TaskFactory, gate: Gate) -> None:
    fake = FakeOrchestrator(gate=gate)
    with HeadlessTaskQueue(fake) as queue:
        futures = [queue.submit(make_task("first"))]
        gate.wait_until_held(WAIT_S)
        for name, priority in (("low", -1), ("b1", 0), ("b2", 0), ("b3", 0), ("high", 5)):
            futures.append(queue.submit(make_task(name, priority=priority)))
        gate.open()
        wait(futures, WAIT_S)
    assert [task.id for task in fake.tasks] == ["first", "high", "b1", "b2", "b3", "low"]


def test_many_threads_may_submit_at_once(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator(steps=1)
    futures: list[Future[GenerationResult]] = []
    with HeadlessTaskQueue(fake) as queue:

        def submit_some(thread: int) -> None:
            for number in range(5):
                futures.append(queue.submit(make_task(f"{thread}-{number}", resolution="16x16", video_length=2)))

        threads = [threading.Thread(target=submit_some, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert all(result_of(future).files for future in futures)
        assert queue.statistics().completed == len(fake.calls) == 20


def test_the_id_of_a_task_that_waits_or_runs_is_refused(make_task: TaskFactory, gate: Gate) -> None:
    with HeadlessTaskQueue(FakeOrchestrator(gate=gate)) as queue:
        running = queue.submit(make_task("a"))
        gate.wait_until_held(WAIT_S)
        waiting = queue.submit(make_task("b"))
        for name in ("a", "b"):
            with pytest.raises(InvalidInput, match=f"'{name}' waits or runs already"):
                queue.submit(make_task(name))
        gate.open()
        assert result_of(running) and result_of(waiting)


def test_the_id_of_an_ended_task_may_come_again(make_task: TaskFactory) -> None:
    with HeadlessTaskQueue(FakeOrchestrator()) as queue:
        first, second = (result_of(queue.submit(make_task("a"))) for _ in range(2))
    assert first.output != second.output


# ---- the warm model


def test_a_model_is_loaded_when_it_differs_and_only_then(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    models = ["fake_t2v", "fake_t2v", "fake_t2v", "fake_image", "fake_t2v"]
    with HeadlessTaskQueue(fake) as queue:
        results = [result_of(queue.submit(make_task(str(i), model))) for i, model in enumerate(models)]
        assert queue.loaded_model == "fake_t2v"
        assert queue.statistics().model_loads == 3
    assert fake.loads == ["fake_t2v", "fake_image", "fake_t2v"]
    assert [result.switched for result in results] == [True, False, False, True, True]


def test_a_preloaded_model_is_not_loaded_again(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    queue = HeadlessTaskQueue(fake)
    queue.start(preload_model="fake_t2v")
    try:
        assert not result_of(queue.submit(make_task())).switched
    finally:
        queue.stop()
    assert fake.loads == ["fake_t2v"]


def test_a_failing_preload_is_logged_and_the_queue_works_on(
    make_task: TaskFactory, caplog: pytest.LogCaptureFixture
) -> None:
    queue = HeadlessTaskQueue(FakeOrchestrator())
    queue.start(preload_model="fake_t2w")
    try:
        assert result_of(queue.submit(make_task())).files
    finally:
        queue.stop()
    assert "fake_t2w" in caplog.text and "fake_t2v" in caplog.text


def test_stopping_gives_the_models_memory_back(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    with HeadlessTaskQueue(fake) as queue:
        result_of(queue.submit(make_task()))
    assert (fake.unloads, queue.loaded_model) == (1, None)


def test_a_queue_may_let_its_models_go_when_nothing_waits(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    with HeadlessTaskQueue(fake, unload_when_idle=True) as queue:
        result_of(queue.submit(make_task("one")))
        result_of(queue.submit(make_task("two")))
        assert fake.loads == ["fake_t2v"] * 2


# ---- failures


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EngineError("the sampler broke"), EngineError),
        (ModelUnavailable("weights are missing"), ModelUnavailable),
        (ZeroDivisionError("nobody foresaw this"), ZeroDivisionError),
    ],
)
def test_an_error_ends_its_run_with_its_own_type_and_the_next_run_is_unharmed(
    make_task: TaskFactory, error: Exception, kind: type[Exception]
) -> None:
    fake = FakeOrchestrator()
    fake.fail_next(error)
    with HeadlessTaskQueue(fake) as queue:
        assert isinstance(error_of(queue.submit(make_task("a"))), kind)
        assert result_of(queue.submit(make_task("b"))).files
        assert (queue.statistics().failed, queue.statistics().completed) == (1, 1)
        assert queue.outcome("a") == f"failed: {error}"


def test_an_unforeseen_error_is_logged_with_its_traceback(
    make_task: TaskFactory, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeOrchestrator()
    fake.fail_next(ZeroDivisionError("nobody foresaw this"))
    with HeadlessTaskQueue(fake) as queue:
        error_of(queue.submit(make_task()))
    assert "Traceback" in caplog.text and "nobody foresaw this" in caplog.text


def test_bad_input_fails_before_a_model_is_loaded(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    with HeadlessTaskQueue(fake) as queue:
        error = error_of(queue.submit(make_task(prompt="")))
        assert isinstance(error, InvalidInput) and error.field == "prompt"
        assert isinstance(error_of(queue.submit(make_task(model="fake_t2w"))), UnknownModel)
    assert (fake.loads, fake.calls) == ([], [])


def test_a_failing_load_fails_the_run_and_the_next_run_loads_again(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    fake.fail_next_load(OutOfMemory())
    with HeadlessTaskQueue(fake) as queue:
        assert isinstance(error_of(queue.submit(make_task("a"))), OutOfMemory)
        assert result_of(queue.submit(make_task("b"))).switched


def test_out_of_memory_unloads_so_that_the_next_run_starts_clean(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    fake.fail_next(OutOfMemory())
    with HeadlessTaskQueue(fake) as queue:
        assert isinstance(error_of(queue.submit(make_task("a"))), OutOfMemory)
        assert queue.loaded_model is None
        assert result_of(queue.submit(make_task("b"))).switched


def test_a_failure_keeps_nothing_alive_of_what_its_frames_held(make_task: TaskFactory) -> None:
    class Tensor:
        freed = threading.Event()

        def __del__(self) -> None:
            self.freed.set()

    def fail(progress: Progress) -> None:
        if progress.phase == "denoising":
            tensor = Tensor()
            raise EngineError(f"with {type(tensor).__name__}")

    with HeadlessTaskQueue(FakeOrchestrator()) as queue:
        error = error_of(queue.submit(make_task(), on_progress=fail))
        assert Tensor.freed.wait(WAIT_S), error


def test_an_engine_that_ends_silently_without_a_file_is_a_failure(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    fake.answer_next()
    with HeadlessTaskQueue(fake) as queue:
        assert isinstance(error_of(queue.submit(make_task())), NoOutput)


def test_an_earlier_runs_file_is_never_delivered_again(make_task: TaskFactory, tmp_path: Path) -> None:
    fake = FakeOrchestrator()
    folder = tmp_path / "shared"
    with HeadlessTaskQueue(fake) as queue:
        first = result_of(queue.submit(make_task("a", output_dir=folder)))
        fake.answer_next(first.output)
        error = error_of(queue.submit(make_task("b", output_dir=folder)))
    assert isinstance(error, NoOutput) and "earlier run" in str(error)
    assert first.output.exists()


def test_a_lost_device_fails_what_waits_and_refuses_what_comes(make_task: TaskFactory, gate: Gate) -> None:
    fake = FakeOrchestrator(gate=gate)
    fake.fail_next(DeviceLost("the GPU fell off the bus"))
    lost: list[DeviceLost] = []
    with HeadlessTaskQueue(fake, on_device_lost=lost.append) as queue:
        running = queue.submit(make_task("a"))
        gate.wait_until_held(WAIT_S)
        waiting = queue.submit(make_task("b"))
        gate.open()
        assert isinstance(error_of(running), DeviceLost) and isinstance(error_of(waiting), DeviceLost)
        for name in ("c", "d"):
            with pytest.raises(DeviceLost, match="fell off the bus"):
                queue.submit(make_task(name))
    assert len(lost) == 1 and len(fake.calls) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_gpu_thread_that_dies_leaves_no_future_hanging(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    fake.fail_next(SystemExit(3))
    lost = threading.Event()
    with HeadlessTaskQueue(fake, on_device_lost=lambda error: lost.set()) as queue:
        assert isinstance(error_of(queue.submit(make_task("a"))), DeviceLost)
        assert lost.wait(WAIT_S)
        with pytest.raises(DeviceLost):
            queue.submit(make_task("b"))


# ---- cancel


def test_cancel_takes_a_waiting_task_out_at_once(make_task: TaskFactory, gate: Gate) -> None:
    fake = FakeOrchestrator(gate=gate)
    with HeadlessTaskQueue(fake) as queue:
        running = queue.submit(make_task("a"))
        gate.wait_until_held(WAIT_S)
        waiting = queue.submit(make_task("b"))
        neighbour = queue.submit(make_task("c"))
        assert queue.cancel("b")
        assert isinstance(waiting.exception(timeout=0), GenerationCancelled)
        assert queue.status().pending == 1 and not running.done()
        gate.open()
        assert result_of(running).files and result_of(neighbour).files
        assert queue.outcome("b") == "cancelled"
    assert [task.id for task in fake.tasks] == ["a", "c"]


@pytest.mark.parametrize("step", [1, 2, 4])
def test_cancel_stops_a_running_task_at_its_step(make_task: TaskFactory, gate: Gate, step: int) -> None:
    fake = FakeOrchestrator(gate=gate, gate_step=step)
    seen: list[Progress] = []
    with HeadlessTaskQueue(fake) as queue:
        running = queue.submit(make_task("a", num_inference_steps=4), on_progress=seen.append)
        gate.wait_until_held(WAIT_S)
        assert queue.cancel("a")
        assert isinstance(error_of(running), GenerationCancelled)
        assert (seen[-1].phase, seen[-1].step) == ("denoising", step)
        gate.open()
        assert result_of(queue.submit(make_task("b"))).files
        assert queue.statistics().cancelled == 1


def test_cancel_during_loading_runs_nothing(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator()
    token = CancelToken()

    def cancel_when_loading(progress: Progress) -> None:
        if progress.phase == "loading":
            token.cancel()

    with HeadlessTaskQueue(fake) as queue:
        future = queue.submit(make_task(), on_progress=cancel_when_loading, cancel=token)
        assert isinstance(error_of(future), GenerationCancelled)
    assert fake.calls == []


@pytest.mark.parametrize("phase", ["decoding", "saving"])
def test_cancel_after_the_last_step_is_honoured(make_task: TaskFactory, phase: str) -> None:
    with HeadlessTaskQueue(FakeOrchestrator()) as queue:

        def cancel_late(progress: Progress) -> None:
            if progress.phase == phase:
                assert queue.cancel("a")

        future = queue.submit(make_task("a"), on_progress=cancel_late)
        assert isinstance(error_of(future), GenerationCancelled)
        assert (queue.statistics().completed, queue.statistics().cancelled) == (0, 1)


def test_cancel_knows_nothing_of_ended_and_unknown_tasks(make_task: TaskFactory) -> None:
    with HeadlessTaskQueue(FakeOrchestrator()) as queue:
        assert result_of(queue.submit(make_task("a"))).files
        assert not queue.cancel("a")
        assert not queue.cancel("nobody")


def test_a_cancel_that_was_granted_always_wins_the_race_with_completion(make_task: TaskFactory) -> None:
    fake = FakeOrchestrator(steps=1)
    with HeadlessTaskQueue(fake) as queue:
        futures = [queue.submit(make_task(str(i), resolution="16x16", video_length=2)) for i in range(40)]
        granted = [queue.cancel(str(i)) if i % 2 else False for i in range(40)]
        wait(futures, WAIT_S)
        cancelled = [isinstance(future.exception(timeout=0), GenerationCancelled) for future in futures]
        statistics = queue.statistics()
    assert cancelled == granted
    assert (statistics.completed, statistics.cancelled) == (40 - sum(granted), sum(granted))


def test_a_token_carries_its_reason_into_the_future(make_task: TaskFactory, gate: Gate) -> None:
    class LostLease(GenerationCancelled):
        """Somebody else has the task now."""

    with HeadlessTaskQueue(FakeOrchestrator(gate=gate)) as queue:
        tokens = CancelToken(), CancelToken()
        futures = [queue.submit(make_task(name), cancel=token) for name, token in zip("ab", tokens, strict=True)]
        gate.wait_until_held(WAIT_S)
        for token in tokens:
            token.cancel(LostLease())
        assert [type(error_of(future)) for future in futures] == [LostLease, LostLease]


def test_a_token_cancelled_before_submission_ends_the_task_at_once(make_task: TaskFactory, gate: Gate) -> None:
    token = CancelToken()
    token.cancel()
    with HeadlessTaskQueue(FakeOrchestrator(gate=gate)) as queue:
        queue.submit(make_task("a"))
        gate.wait_until_held(WAIT_S)
        future = queue.submit(make_task("b"), cancel=token)
        assert isinstance(future.exception(timeout=0), GenerationCancelled)


def test_cancelling_the_future_of_a_waiting_task_takes_it_out(make_task: TaskFactory, gate: Gate) -> None:
    fake = FakeOrchestrator(gate=gate)
    with HeadlessTaskQueue(fake) as queue:
        queue.submit(make_task("a"))
        gate.wait_until_held(WAIT_S)
        waiting = queue.submit(make_task("b"))
        assert waiting.cancel()
        assert queue.status().pending == 0
        with pytest.raises(CancelledError):
            waiting.result(timeout=0)
        assert wait([waiting], timeout=WAIT_S).done
    assert [task.id for task in fake.tasks] == ["a"]


# ---- stop


def test_stop_cancels_what_runs_and_fails_what_waits(make_task: TaskFactory, gate: Gate) -> None:
    class ShuttingDown(GenerationCancelled):
        """The worker goes."""

    queue = HeadlessTaskQueue(FakeOrchestrator(gate=gate))
    queue.start()
    futures = [queue.submit(make_task(name)) for name in "abc"]
    gate.wait_until_held(WAIT_S)
    queue.stop(WAIT_S, reason=ShuttingDown())
    assert {type(error_of(future)) for future in futures} == {ShuttingDown}
    with pytest.raises(ShuttingDown):
        queue.submit(make_task("d"))


def test_stop_gives_up_a_run_that_hangs(make_task: TaskFactory, caplog: pytest.LogCaptureFixture) -> None:
    hangs, let_go = threading.Event(), threading.Event()

    def hang(progress: Progress) -> None:
        hangs.set()
        let_go.wait(WAIT_S)

    queue = HeadlessTaskQueue(FakeOrchestrator())
    queue.start()
    future = queue.submit(make_task(), on_progress=hang)
    assert hangs.wait(WAIT_S)
    queue.stop(timeout_s=0.01)
    assert isinstance(future.exception(timeout=0), GenerationCancelled)
    assert "did not stop" in caplog.text
    let_go.set()
    queue.stop(WAIT_S)


def test_stop_without_start_fails_what_waits(make_task: TaskFactory) -> None:
    queue = HeadlessTaskQueue(FakeOrchestrator())
    future = queue.submit(make_task())
    queue.stop()
    assert isinstance(future.exception(timeout=0), GenerationCancelled)


def test_a_queue_starts_once() -> None:
    with HeadlessTaskQueue(FakeOrchestrator()) as queue, pytest.raises(RuntimeError):
        queue.start()


# ---- the books


def test_status_tells_what_runs_and_what_waits(make_task: TaskFactory, gate: Gate) -> None:
    clock = Clock()
    with HeadlessTaskQueue(FakeOrchestrator(gate=gate), clock=clock) as queue:
        running, waiting = queue.submit(make_task("a")), queue.submit(make_task("b"))
        gate.wait_until_held(WAIT_S)
        clock.pass_by(12.5)
        status = queue.status()
        assert (status.running, status.pending, status.loaded_model, status.uptime_s) == ("a", 1, "fake_t2v", 12.5)
        gate.open()
        wait([running, waiting], WAIT_S)
        status = queue.status()
        assert (status.running, status.pending, status.completed) == (None, 0, 2)


def test_seconds_are_booked_as_loading_generating_and_idle(make_task: TaskFactory) -> None:
    clock = Clock()

    def let_time_pass(progress: Progress) -> None:
        clock.pass_by({"loading": 3.0, "denoising": 5.0}.get(progress.phase, 0.0))

    class SlowToLoad(FakeOrchestrator):
        def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
            clock.pass_by(7.0)
            return super().load_model(model, lambda progress: None, profile)

    with HeadlessTaskQueue(SlowToLoad(steps=2), clock=clock) as queue:
        result = result_of(queue.submit(make_task(), on_progress=let_time_pass))
        statistics = queue.statistics()
    assert (result.load_seconds, result.seconds) == (10.0, 10.0)
    assert (statistics.load_seconds, statistics.generation_seconds) == (10.0, 10.0)


def test_the_wait_for_work_is_idle_time(make_task: TaskFactory) -> None:
    clock = Clock()
    with HeadlessTaskQueue(FakeOrchestrator(), clock=clock) as queue:
        clock.pass_by(5.0)
        assert queue.statistics().idle_seconds == 5.0
        result_of(queue.submit(make_task(), on_progress=lambda progress: clock.pass_by(1.0)))
        assert queue.statistics().idle_seconds == 5.0


def test_statistics_are_a_copy(make_task: TaskFactory) -> None:
    with HeadlessTaskQueue(FakeOrchestrator()) as queue:
        result_of(queue.submit(make_task()))
        statistics = queue.statistics()
        statistics.completed = 99
        statistics.hand_off_seconds.append(1.0)
        assert (queue.statistics().completed, queue.statistics().hand_off_seconds) == (1, [])


def test_history_is_bounded(make_task: TaskFactory) -> None:
    with HeadlessTaskQueue(FakeOrchestrator(), history=2) as queue:
        for name in "abc":
            result_of(queue.submit(make_task(name)))
        assert [queue.outcome(name) for name in "abc"] == [None, "completed", "completed"]


def test_a_run_sees_the_context_of_its_submitter(make_task: TaskFactory) -> None:
    task_id: ContextVar[str] = ContextVar("task_id", default="none")
    seen: set[str] = set()
    with HeadlessTaskQueue(FakeOrchestrator()) as queue:
        task_id.set("a")
        result_of(queue.submit(make_task(), on_progress=lambda progress: seen.add(task_id.get())))
    assert seen == {"a"}
