"""What the commands of debug.py that only look must answer, on every database.

A test module inherits `LookingContract` and has a fixture `site`: a `Site` with rows of its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from source.store.base import TaskStore
from source.store.types import NewTask, Task
from source.worker_logs import WorkerLogs

WORKER = "gpu-1-ab12cd34"
SAMPLE = {
    "gpu_utilization": 87.5, "gpu_memory_used": 9 * 2**30, "gpu_memory_total": 24 * 2**30, "rss": 5 * 2**30,
    "cpu_percent": 42.0, "gpu_seconds": {"load": 2.0, "denoise": 6.0, "idle_no_task": 2.0}, "model_loads": 1,
    "tasks_running": 1, "lanes": {"prepare": 0, "gpu": 1, "finish": 0},
}  # fmt: skip
METADATA = {
    "gpu_seconds": SAMPLE["gpu_seconds"], "vram_used_mb": 9216, "vram_total_mb": 24576, "load_s": {"fake_t2v": 2.0},
    "low_disk": "", "api_key": "swordfish",
}  # fmt: skip


class Site:
    """A database, and debug.py on it in this process."""

    def __init__(
        self, make_store: Callable[[WorkerLogs], TaskStore], flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        self._logs = WorkerLogs()
        self.store = make_store(self._logs)
        self._flags, self._monkeypatch, self._capsys = flags, monkeypatch, capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        import debug

        self._monkeypatch.setattr("sys.argv", ["debug.py", *words, *self._flags])
        self._capsys.readouterr()
        try:
            code = debug.main()
        except SystemExit as left:
            code = int(str(left.code))
        return code, *self._capsys.readouterr()

    def view(self, *words: str, code: int = 0) -> Any:
        """The JSON of an answer."""
        left, out, err = self.run(*words, "--json")
        assert (left, err) == (code, ""), err
        return json.loads(out)

    def add(self, task_type: str = "t2v", **params: Any) -> str:
        return self.store.add(NewTask(task_type=task_type, params={"prompt": "a lake"} | params))

    def claim(self, worker: str = WORKER) -> Task:
        [task] = self.store.claim(worker, lease_s=60)
        return task

    def log(self, text: str, level: int = logging.INFO, task_id: str = "-", worker: str = WORKER) -> None:
        """A line that a worker logs, and its heartbeat."""
        record = logging.LogRecord("source.test", level, __file__, 1, text, (), None)
        record.task = task_id
        self._logs.emit(record)
        self.beat(worker)

    def beat(self, worker: str = WORKER, **changes: Any) -> None:
        self.store.heartbeat(
            worker, [], lease_s=60, current_model="fake_t2v", metadata=METADATA | changes, sample=SAMPLE
        )


class LookingContract:
    def test_a_task_is_told_with_its_log_and_by_the_first_letters_of_its_id(self, site: Site) -> None:
        task_id = site.add(api_key="swordfish")
        task = site.claim()
        site.store.progress(
            task.claim, {"phase": "denoising", "step": 3, "total": 4, "fraction": 0.75, "steps_made": 3,
                         "stages": [["preparing", 0.5], ["denoising", 1.5]]}
        )  # fmt: skip
        site.log("begun with https://h/x?token=swordfish", task_id=task_id)
        view = site.view("task", task_id[:8])
        assert (view["id"], view["status"], view["share"]) == (task_id, "In Progress", 0.75)
        assert [line["message"] for line in view["logs"]] == ["begun with https://h/x?token=***"]
        assert view["timing"]["stages"][0] == {"name": "preparing", "seconds": 0.5}
        code, out, _ = site.run("task", task_id, "--debug")
        assert code == 0 and "denoising 3/4" in out and "begun with" in out and "swordfish" not in out
        assert site.view("task", task_id, "--logs-only") == view["logs"]

    def test_an_id_that_is_nobodys_or_several_is_refused_with_the_nearest(self, site: Site) -> None:
        ids = ["5e1fa000-0000-4000-8000-000000000001", "5e1fa000-0000-4000-8000-000000000002"]
        site.store.add_many([NewTask(task_type="t2v", params={}, id=each) for each in ids])
        code, _, err = site.run("why", "5e1fa")
        assert code == 1 and all(each in err for each in ids)
        code, _, err = site.run("task", "5e1fbbbb")
        assert code == 1 and "there is no task 5e1fbbbb" in err and ids[0] in err
        assert site.run("task", "5e1")[0] == site.run("logs", "abcdef")[0] == 1
        assert site.view("cancel", ids[0][:-1] + "1")["status"] == "Cancelled"
        assert site.run("task", "99999999-0000-4000-8000-000000000009")[0] == 1

    def test_tasks_are_chosen_and_summed_up(self, site: Site) -> None:
        site.add(prompt="a harbour at dusk")
        failed = site.claim()
        site.store.fail(failed.claim, "no such file", error_class="bad_input")
        other = site.add("upscale_video")
        assert [each["id"] for each in site.view("tasks", "--hours", "1")] == [other, failed.id]
        assert [each["id"] for each in site.view("tasks", "--worker", "gpu-1")] == [failed.id]
        assert [each["id"] for each in site.view("tasks", "--text", "harbour")] == [failed.id]
        summary = site.view("tasks", "--summary")
        assert summary["by_status"] == {"Queued": 1, "Failed": 1}
        assert (summary["by_type"], summary["failures"]) == ({"upscale_video": 1, "t2v": 1}, {"bad_input": 1})
        assert summary["average_queued_s"] >= 0
        assert "failures: 1 bad_input" in site.run("tasks")[1]
        assert site.run("tasks", "--hours", "-1")[0] == 1

    def test_a_worker_is_told_with_its_tasks_its_log_and_its_gpu(self, site: Site) -> None:
        site.log("the first line")
        site.beat()
        failed, running = site.add(), site.add()
        site.store.fail(site.claim().claim, "it broke", error_class="engine")
        site.claim()
        site.log("something odd", logging.WARNING)
        view = site.view("worker", "gpu-1")
        assert (view["id"], view["health"], view["gpu_busy"]) == (WORKER, "healthy", 0.8)
        assert (view["memory_used"], view["memory_total"]) == (9 * 2**30, 24 * 2**30)
        assert [task["id"] for task in view["running"]] == [running]
        assert {task["id"] for task in view["tasks"]} == {failed, running}
        assert view["ends"] == {"ended": 1, "failed": 1, "failure_rate": 1.0, "failures": {"engine": 1}}
        assert view["metadata"]["api_key"] == "***" and view["samples"][-1]["values"]["gpu_utilization"] == 87.5
        assert [line["message"] for line in view["logs"]] == ["the first line", "something odd"]
        assert view["checks"]["logging"]["well"] and view["checks"]["disk"]["well"]
        code, out, _ = site.run("worker", "gpu-1-ab", "--check-disk", "--check-logging", "--startup")
        assert code == 0 and "it has the room" in out and "9.0 of 24 GB" in out and "swordfish" not in out
        site.beat(low_disk="0.2 GB are free on /scratch")
        assert site.run("worker", WORKER, "--check-disk")[0] == 1
        code, _, err = site.run("worker", "gpu-2")
        assert code == 1 and "no worker gpu-2" in err and WORKER in err

    def test_workers_are_told_with_what_they_ended(self, site: Site) -> None:
        for _ in range(5):
            site.add()
            site.store.fail(site.claim().claim, "it broke", error_class="engine")
        site.beat()
        site.beat("idle-00000000")
        views = {view["id"]: view for view in site.view("workers", "--hours", "1")}
        assert views[WORKER]["failures"] == {"engine": 5} and views["idle-00000000"]["failure_rate"] is None
        assert f"{WORKER}: 100 % of its tasks failed" in site.run("workers", "--detailed")[1]
        assert "ended" not in site.view("workers")[0]

    def test_health_says_what_is_wrong(self, site: Site) -> None:
        assert site.view("health")["healthy"] is True
        waiting = site.add()
        view = site.view("health", code=1)
        assert (view["oldest_claimable"]["id"], view["tasks"]["Queued"]) == (waiting, 1)
        assert "no worker is alive" in view["problems"][0]
        site.beat()
        assert site.view("health")["problems"] == []
        site.beat(low_disk="the disk of /scratch is full")
        assert "the disk of /scratch is full" in site.view("health", code=1)["problems"][0]
        site.beat()
        for _ in range(5):
            site.store.fail(site.claim().claim, "it broke", error_class="engine")
            site.add()
        [problem] = site.view("health", code=1)["problems"]
        assert "100 %" in problem and "5 engine" in problem
        code, out, _ = site.run("health")
        assert code == 1 and "something is wrong" in out

    def test_a_lease_that_nobody_rescues_is_no_health(self, site: Site) -> None:
        site.add()
        [task] = site.store.claim(WORKER, lease_s=0.001)
        while site.store.now().timestamp() <= datetime.fromisoformat(task.lease_expires_at or "").timestamp():
            pass
        [expired] = site.view("health", code=1)["expired"]
        assert (expired["id"], expired["worker_id"]) == (task.id, WORKER)

    def test_orchestrators_are_told_with_how_far_their_children_are(self, site: Site) -> None:
        assert site.view("orchestrator") == []
        site.add("travel_orchestrator")
        parent = site.claim()
        children = [NewTask.child(parent, f"travel_segment:{i}", "travel_segment", {}) for i in range(2)]
        site.store.fan_out(parent.claim, children, final_child=children[-1].id)
        site.store.complete(site.claim().claim, None)
        [view] = site.view("orchestrator", "--hours", "1")
        assert (view["id"], view["share"], view["state"]) == (parent.id, 0.5, "healthy")
        assert view["by_status"] == {"Complete": 1, "Queued": 1} and len(view["children"]) == 1
        assert "travel_segment:" in site.run("orchestrator")[1]

    def test_logs_are_chosen_by_task_worker_level_and_text(self, site: Site) -> None:
        task_id = site.add()
        site.log("prepared", task_id=task_id)
        site.log("slow disk", logging.WARNING)
        site.log("another's", worker="gpu-2-00000000")
        for words, expected in (
            ((), ["prepared", "slow disk", "another's"]),
            ((task_id[:8],), ["prepared"]),
            (("--worker", "gpu-1"), ["prepared", "slow disk"]),
            (("--level", "warning"), ["slow disk"]),
            (("--text", "DISK", "--hours", "1"), ["slow disk"]),
            (("--limit", "1"), ["another's"]),
        ):
            assert [line["message"] for line in site.view("logs", *words)] == expected, words
        code, out, _ = site.run("logs")
        assert code == 0 and f"[{task_id[:8]}] prepared" in out
        assert site.run("logs", "--level", "loud")[0] == site.run("logs", "--follow", "--json")[0] == 1

    def test_watch_shows_the_queue_the_workers_what_ended_and_the_log(self, site: Site) -> None:
        done, running, queued = site.add(), site.add(), site.add()
        site.store.complete(site.claim().claim, None)
        task = site.claim()
        site.store.progress(
            task.claim, {"phase": "denoising", "step": 2, "total": 4, "fraction": 0.5, "seconds_per_step": 1.5,
                         "eta_s": 3.0}
        )  # fmt: skip
        site.log("half way", task_id=running)
        frame = site.view("watch")
        assert frame["tasks"] | {"Queued": 1, "In Progress": 1, "Complete": 1} == frame["tasks"]
        assert frame["per_hour"] == 1 and 30 <= frame["eta_s"] <= 120
        [worker] = frame["workers"]
        [shown] = worker["running"]
        assert (shown["id"], shown["share"], shown["phase"], worker["use"]) == (running, 0.5, "denoising", 0.875)
        assert [each["id"] for each in frame["ended"]] == [done]
        assert [line["message"] for line in frame["logs"]] == ["half way"]
        code, out, _ = site.run("watch", "--once")
        assert code == 0
        for part in (WORKER, running[:8], "2/4, 1.5 s a step, 0:03 left", "half way", done[:8], "9.0 of 24 GB"):
            assert part in out, part
        assert queued[:8] not in out
