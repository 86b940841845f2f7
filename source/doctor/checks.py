"""What an examination is made of: checks, one after the other, each with a time-out, and what they find."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from source.errors import WanError


class State(StrEnum):
    """How it stands. Only FAILED keeps a worker from its work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    #: what it needs failed, or this caller may not look
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What one check found; both texts may have several lines."""

    state: State
    measured: str
    advice: str = ""


def well(measured: str) -> Finding:
    return Finding(State.OK, measured)


def doubtful(measured: str, advice: str) -> Finding:
    return Finding(State.WARNING, measured, advice)


def failed(measured: str, advice: str) -> Finding:
    return Finding(State.FAILED, measured, advice)


def skipped(reason: str) -> Finding:
    return Finding(State.SKIPPED, reason)


@dataclass(frozen=True)
class Check:
    """One thing to look at. `look` raises WanError or OSError for what is wrong, or returns it as a finding."""

    name: str
    look: Callable[[], Finding]
    #: what to do when `look` raises
    advice: str = ""
    #: seconds after which it counts as failed; it is left behind then
    timeout_s: float = 30.0
    #: the check without which this one would say nothing new
    needs: str | None = None


@dataclass(frozen=True)
class Examined:
    """A check and what it found."""

    check: str
    finding: Finding
    seconds: float


def examine(checks: Sequence[Check], beginning: Callable[[str], None] = lambda _: None) -> list[Examined]:
    """Run the checks in order; none of them stops the others. `beginning` hears the name of each before it runs."""
    done: dict[str, Examined] = {}
    for check in checks:
        beginning(check.name)
        started = time.monotonic()
        finding = skipped(f"not looked at: {check.needs} failed") if _hopeless(check, done) else _found(check)
        done[check.name] = Examined(check.name, finding, time.monotonic() - started)
    return list(done.values())


def healthy(examined: Sequence[Examined]) -> bool:
    """Whether nothing failed."""
    return all(each.finding.state is not State.FAILED for each in examined)


def _hopeless(check: Check, done: dict[str, Examined]) -> bool:
    return check.needs is not None and done[check.needs].finding.state in (State.FAILED, State.SKIPPED)


def _found(check: Check) -> Finding:
    """Run it on a thread of its own, which nobody waits for when it hangs."""
    answer: list[Finding] = []
    thread = threading.Thread(target=lambda: answer.append(_looked(check)), name=check.name, daemon=True)
    thread.start()
    thread.join(check.timeout_s)
    return answer[0] if answer else failed(f"no answer within {check.timeout_s:g} s", check.advice)


def _looked(check: Check) -> Finding:
    try:
        return check.look()
    except (WanError, OSError) as error:
        return failed(str(error), check.advice)
    except Exception as error:  # noqa: BLE001 - what nobody foresaw in one check must not hide the others
        return failed(f"the check itself broke: {type(error).__name__}: {error}", check.advice)
