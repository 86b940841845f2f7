"""What the thread that owns the accelerator does with each second, and how long its runs are silent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Activity(StrEnum):
    """What the accelerator's thread is at."""

    LOAD = "load"
    #: text, images and control pictures become what the model is shown
    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"
    #: files are written and looked at
    SAVE = "save"
    #: another program has the accelerator
    LENT = "lent"
    IDLE_NO_TASK = "idle_no_task"
    #: idle while a task that wants the accelerator is still being prepared
    IDLE_WAITING = "idle_waiting"


IDLE = frozenset({Activity.IDLE_NO_TASK, Activity.IDLE_WAITING})

#: phases of `Progress` -> what the thread is at; any other phase changes nothing
_PHASES = {
    "loading": Activity.LOAD,
    "encoding": Activity.ENCODE,
    "denoising": Activity.DENOISE,
    "generating": Activity.DENOISE,
    "decoding": Activity.DECODE,
    "saving": Activity.SAVE,
}

#: seconds by activity
Seconds = dict[str, float]


def in_words(seconds: Mapping[str, float]) -> str:
    """ "12.5 s: load 2.0, denoise 10.5"; what took no time is left out."""
    parts = ", ".join(f"{activity} {each:.1f}" for activity, each in seconds.items() if each >= 0.05)
    return f"{sum(seconds.values()):.1f} s" + (f": {parts}" if parts else "")


class Account:
    """Books each second since it was opened under exactly one activity. Any thread may call any method.

    `clock` answers seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._opened = self._booked_to = clock()
        self._seconds: Seconds = {activity.value: 0.0 for activity in Activity}
        #: None is idle
        self._activity: Activity | None = None
        self._spent: Seconds = {}
        self._expected = 0

    def begin(self, activity: Activity, spent: Seconds | None = None) -> None:
        """Be at `activity` from now on. `spent`: for another run than before, whose seconds are added there too."""
        with self._lock:
            self._book()
            self._activity = activity
            if spent is not None:
                self._spent = spent

    def hear(self, phase: str) -> None:
        """A run reported progress."""
        if phase in _PHASES:
            self.begin(_PHASES[phase])

    def idle(self) -> None:
        """Be at nothing from now on."""
        with self._lock:
            self._book()
            self._activity, self._spent = None, {}

    def expect(self, tasks: int) -> None:
        """So many tasks that want the accelerator are being prepared."""
        with self._lock:
            self._book()
            self._expected = tasks

    def seconds(self) -> tuple[Seconds, float]:
        """Seconds by activity, and since the account was opened: their sum."""
        with self._lock:
            self._book()
            return dict(self._seconds), self._booked_to - self._opened

    def _book(self) -> None:
        now = self._clock()
        passed, self._booked_to = now - self._booked_to, now
        idle = Activity.IDLE_WAITING if self._expected else Activity.IDLE_NO_TASK
        activity = self._activity or idle
        self._seconds[activity] += passed
        if self._activity is not None:
            self._spent[activity.value] = self._spent.get(activity, 0.0) + passed


@dataclass(frozen=True)
class Silence:
    """How long the run at work has not been heard of."""

    task_id: str
    model: str
    phase: str
    seconds: float
    #: the longest silence of a run of this model after which it went on; 0 while none has ended
    longest_s: float


class Listener:
    """Measures the silence of the run at work, and learns how long that of each model may be: a step, a load, a
    decoding. Any thread may call any method."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._longest: dict[str, float] = {}
        #: called when a run begins
        self.on_begin: Callable[[], None] = lambda: None
        self._run: tuple[str, str] | None = None
        self._phase = ""
        self._heard_at = 0.0

    def begin(self, task_id: str, model: str, phase: str = "starting") -> None:
        """A run begins, or the accelerator stands still for its preparing."""
        with self._lock:
            self._run, self._phase, self._heard_at = (task_id, model), phase, self._clock()
        self.on_begin()

    def hear(self, phase: str) -> None:
        """The run goes on."""
        with self._lock:
            self._learn()
            self._phase = phase

    def end(self, *, learn: bool) -> None:
        """The run is over; `learn` that the time since it was last heard of was well spent."""
        with self._lock:
            if learn:
                self._learn()
            self._run = None

    def silence(self) -> Silence | None:
        """None while nothing runs."""
        with self._lock:
            if self._run is None:
                return None
            task_id, model = self._run
            longest_s = self._longest.get(model, 0.0)
            return Silence(task_id, model, self._phase, self._clock() - self._heard_at, longest_s)

    def _learn(self) -> None:
        if self._run is None:
            return
        now, (_, model) = self._clock(), self._run
        self._longest[model] = max(self._longest.get(model, 0.0), now - self._heard_at)
        self._heard_at = now
