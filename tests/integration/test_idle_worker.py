"""An idle worker stands still: nothing in the process looks at a clock to see whether there is something to do."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from worker_floor import DEADLINE_S, Floor

from source.store.types import Status

WINDOW_S = 1.0
#: what looks from time to time because nothing outside would tell: at the file of the database, four times a second
LOOKS = "changes"


def wake_ups() -> dict[str, int]:
    """How often each thread of this process has slept and was woken, as the kernel counts it."""
    found = {}
    for thread in threading.enumerate():
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text(encoding="utf-8")
        found[thread.name] = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count this by thread")
def test_the_threads_of_an_idle_worker_sleep_until_something_happens(tmp_path: Path) -> None:
    floor = Floor(tmp_path, poll_interval_s=10, heartbeat_s=20, rescue_interval_s=15, max_in_flight=3)
    task, woken = floor.add(), dict[str, int]()
    with floor.working():
        floor.wait_for(task, Status.COMPLETE)
        for _ in range(round(DEADLINE_S / WINDOW_S)):
            before = wake_ups()
            threading.Event().wait(WINDOW_S)
            after = wake_ups()
            woken = {name: after[name] - count for name, count in before.items() if name in after}
            if not any(count for name, count in woken.items() if name not in (LOOKS, "MainThread")):
                break
    quiet = {name for name, count in woken.items() if not count}
    assert quiet >= {"gpu", "prepare", "finish", "hangs", "heartbeat", "task-0", "task-1", "task-2"}
    assert woken[LOOKS] <= 10 * WINDOW_S
    floor.close()
