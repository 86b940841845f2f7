"""Every second of the accelerator's thread is booked once; the silence of a run is measured against its model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from headless.accounting import Account, Activity, Listener, Seconds
from headless.generation import CancelToken, GenerationOutcome, GenerationTask, OnProgress, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.testing import FakeOrchestrator
from Wan2GP.errors import EngineError

WAIT_S = 20.0


class Clock:
    """Seconds that move only when told to, in steps that floats add exactly."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


#: eighths of a second
moments = st.integers(0, 2**20).map(lambda eighths: eighths / 8)
happenings = st.one_of(
    st.sampled_from(Activity).map(lambda activity: lambda account: account.begin(activity)),
    st.sampled_from(Activity).map(lambda activity: lambda account: account.begin(activity, {})),
    st.sampled_from(["loading", "encoding", "denoising", "decoding", "saving", "queued", "?"]).map(
        lambda phase: lambda account: account.hear(phase)
    ),
    st.integers(0, 3).map(lambda tasks: lambda account: account.expect(tasks)),
    st.just(lambda account: account.idle()),
)


@given(st.lists(st.tuples(moments, happenings), max_size=30), moments)
def test_the_seconds_of_all_activities_are_the_uptime_exactly(
    history: list[tuple[float, Callable[[Account], None]]], rest: float
) -> None:
    clock = Clock()
    account = Account(clock)
    for passed, happen in history:
        clock.pass_by(passed)
        happen(account)
    clock.pass_by(rest)
    seconds, uptime_s = account.seconds()
    assert sum(seconds.values()) == uptime_s == clock.now - 1000.0
    assert set(seconds) == set(Activity)


def task(folder: Path, name: str = "a") -> GenerationTask:
    options = GenerationOptions.parse({"prompt": "a ball"})
    return GenerationTask(id=name, model="fake_t2v", options=options, output_dir=folder)


class SlowEngine(FakeOrchestrator):
    """Each phase takes its seconds by the clock, once it was reported."""

    seconds: ClassVar = {"loading": 8.0, "encoding": 1.0, "denoising": 4.0, "decoding": 2.0, "saving": 0.5}

    def __init__(self, clock: Clock) -> None:
        super().__init__(steps=3)
        self._clock = clock

    def generate(self, task: GenerationTask, on_progress: OnProgress, cancel: CancelToken) -> GenerationOutcome:
        def report(progress: Progress) -> None:
            on_progress(progress)
            self._clock.pass_by(self.seconds[progress.phase])

        return super().generate(task, report, cancel)

    def load_model(self, model: str, on_progress: OnProgress, profile: int = -1) -> bool:
        self._clock.pass_by(self.seconds["loading"])
        return super().load_model(model, on_progress, profile)


def test_a_run_and_the_queue_know_where_the_seconds_went(tmp_path: Path) -> None:
    clock, spent = Clock(), Seconds()
    with HeadlessTaskQueue(SlowEngine(clock), clock=clock) as queue:
        clock.pass_by(16)
        queue.expect(1)
        clock.pass_by(32)
        queue.submit(task(tmp_path), spent=spent).result(WAIT_S)
        queue.expect(0)
        clock.pass_by(64)
        statistics = queue.statistics()
    parts = {"load": 8.0, "encode": 1.0, "denoise": 12.0, "decode": 2.0, "save": 0.5}
    assert {activity: seconds for activity, seconds in spent.items() if seconds} == parts
    idle = {"idle_no_task": 80.0, "idle_waiting": 32.0, "lent": 0.0}
    assert statistics.seconds == parts | idle
    assert statistics.uptime_s == sum(statistics.seconds.values())
    assert (statistics.load_seconds, statistics.generation_seconds, statistics.idle_seconds) == (8.0, 15.5, 112.0)


def test_a_loan_is_booked_as_lent(tmp_path: Path) -> None:
    clock, spent = Clock(), Seconds()
    with HeadlessTaskQueue(FakeOrchestrator(), clock=clock) as queue:
        with queue.lend("comfy", spent=spent):
            clock.pass_by(8)
        queue.submit(task(tmp_path)).result(WAIT_S)
        assert queue.statistics().seconds["lent"] == spent["lent"] == 8.0


def test_a_failed_run_spent_its_seconds_too(tmp_path: Path) -> None:
    clock, spent = Clock(), Seconds()
    engine = SlowEngine(clock)
    engine.fail_next(EngineError("stumbled"))
    with HeadlessTaskQueue(engine, clock=clock) as queue:
        assert isinstance(queue.submit(task(tmp_path), spent=spent).exception(WAIT_S), EngineError)
        assert spent["denoise"] == 12.0
        assert sum(queue.statistics().seconds.values()) == queue.statistics().uptime_s


def test_the_silence_of_a_run_is_held_against_the_longest_of_its_model() -> None:
    clock = Clock()
    listener = Listener(clock)
    assert listener.silence() is None
    listener.begin("a", "wan")
    clock.pass_by(30)
    listener.hear("denoising")
    clock.pass_by(2)
    listener.hear("denoising")
    clock.pass_by(5)
    silence = listener.silence()
    assert silence is not None
    assert (silence.task_id, silence.model, silence.phase) == ("a", "wan", "denoising")
    assert (silence.seconds, silence.longest_s) == (5, 30)


def test_what_preceded_a_failure_teaches_nothing_and_models_learn_apart() -> None:
    clock = Clock()
    listener = Listener(clock)
    listener.begin("a", "wan")
    clock.pass_by(500)
    listener.end(learn=False)
    assert listener.silence() is None
    listener.begin("b", "flux")
    clock.pass_by(3)
    listener.end(learn=True)
    for model, longest_s in (("wan", 0), ("flux", 3)):
        listener.begin("c", model)
        silence = listener.silence()
        assert silence is not None and silence.longest_s == longest_s
