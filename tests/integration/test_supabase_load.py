"""Many claimers at once over HTTP: no row is handed out twice, and how many go through in a second."""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from local_stack import LocalStack
from local_stack import stack as stack

from source.edge_functions import EdgeFunctions, Token
from source.store.supabase import SupabaseStore
from source.store.types import NewTask

#: rows of one create-task
AT_ONCE = 1000


def race(stack: LocalStack, claimers: int, tasks: int) -> str:
    """Have the claimers take all tasks and complete them; what was measured, in words."""
    store = opened(stack)
    for start in range(0, tasks, AT_ONCE):
        store.add_many([NewTask(task_type="t2v", params={}) for _ in range(min(AT_ONCE, tasks - start))])
    start = threading.Barrier(claimers)

    def work(number: int) -> tuple[list[str], list[float]]:
        own = opened(stack)
        taken, waits_s = [], []
        start.wait()
        while True:
            asked_at = time.perf_counter()
            claimed = own.claim(f"worker-{number}", lease_s=3600)
            waits_s.append(time.perf_counter() - asked_at)
            if not claimed:
                own.close()
                return taken, waits_s
            [task] = claimed
            assert task.claim_number == 1
            taken.append(task.id)
            own.complete(task.claim, None)

    began = time.perf_counter()
    with ThreadPoolExecutor(claimers) as pool:
        done = list(pool.map(work, range(claimers)))
    spent_s = time.perf_counter() - began
    taken = [task_id for ids, _ in done for task_id in ids]
    assert len(taken) == len(set(taken)) == tasks
    assert store.counts() == {status: tasks * (status == "Complete") for status in store.counts()}
    store.close()
    check_timeline(stack, tasks)
    waits_s = sorted(wait_s for _, waits in done for wait_s in waits)
    return (
        f"{claimers} claimers over HTTP, {tasks} tasks: {tasks / spent_s:.0f} claimed and completed a second, a claim "
        f"took {1000 * statistics.median(waits_s):.0f} ms (p99 {1000 * waits_s[int(0.99 * len(waits_s))]:.0f} ms)"
    )


def opened(stack: LocalStack) -> SupabaseStore:
    """A store that looks for no changes."""
    return SupabaseStore(EdgeFunctions(stack.url, Token(stack.service_key)), look_s=0)


def check_timeline(stack: LocalStack, tasks: int) -> None:
    """Each task was claimed once and completed once."""
    with stack.database.acting() as superuser:
        found = superuser.execute(
            "select name, count(*), count(distinct task_id) from public.task_events group by name order by name"
        ).fetchall()
    assert found == [("claimed", tasks, tasks), ("complete", tasks, tasks), ("queued", tasks, tasks)]


def test_8_claimers_over_http_share_400_tasks_without_duplicates(stack: LocalStack) -> None:
    print(race(stack, claimers=8, tasks=400))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_32_claimers_over_http_share_10000_tasks_without_duplicates(stack: LocalStack) -> None:
    print(race(stack, claimers=32, tasks=10_000))
