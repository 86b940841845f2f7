"""A worker of the older contract, as its requests were recorded (tests/recorded): it claims by its name alone, knows no
claim number and no lease, and completes by the id of the task."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests

from source.chaos.grounds import Ground

#: seconds of a generation, and between two looks at an empty queue
TASK_S, LOOK_S = 0.3, 0.2
ANSWER_S, JOIN_S = 60.0, 90.0
VIDEO = b"a video of an older worker" * 50


class OlderWorker:
    """On a thread of its own until it leaves. A small result goes in the body, every other one to a signed address."""

    def __init__(self, name: str, ground: Ground) -> None:
        self.name = name
        self._url = ground.environment["SUPABASE_URL"]
        self._token = {"Authorization": f"Bearer {ground.environment['SUPABASE_ACCESS_TOKEN']}"}
        self._leaving = threading.Event()
        #: what was refused, which must stay empty
        self.refused: list[str] = []
        #: tasks that it claimed, completed, and put back as it left
        self.claimed: list[str] = []
        self.completed: list[str] = []
        self.put_back: list[str] = []
        self._thread = threading.Thread(target=self._work, name=name)
        self._thread.start()

    def leave(self) -> None:
        """As by Ctrl-C: the task at hand goes back to the queue."""
        self._leaving.set()
        self._thread.join(JOIN_S)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        while not self._leaving.is_set():
            counts = self._ask("task-counts", run_type="gpu", include_active=False)
            claimed = counts["totals"]["queued_only"] and self._ask(
                "claim-next-task", worker_id=self.name, run_type="gpu", same_model_only=True
            )
            if claimed:
                self._run(claimed["task_id"])
            else:
                self._leaving.wait(LOOK_S)

    def _run(self, task: str) -> None:
        self.claimed.append(task)
        self._ask("update-task-status", task_id=task, status="In Progress", output_location="denoising")
        self._ask("heartbeat", worker_id=self.name, current_task_id=task, status="active", logs=[])
        if self._leaving.wait(TASK_S):
            self._ask("update-task-status", task_id=task, status="Queued", clear_worker=True)
            self.put_back.append(task)
        else:
            (self._upload if len(self.completed) % 2 else self._send)(task)
            self.completed.append(task)

    def _send(self, task: str) -> None:
        self._ask("complete_task", task_id=task, file_data=base64.b64encode(VIDEO).decode(), filename="clip.mp4")

    def _upload(self, task: str) -> None:
        target = self._ask("generate-upload-url", task_id=task, filename="clip.mp4", content_type="video/mp4")
        self._asked(lambda: requests.put(
            target["upload_url"], data=VIDEO, headers={"Content-Type": "video/mp4"}, timeout=ANSWER_S
        ))  # fmt: skip
        self._ask("complete_task", task_id=task, storage_path=target["storage_path"])

    def _ask(self, function: str, **body: Any) -> Any:
        """The answer; None where there is nothing."""
        url = f"{self._url}/functions/v1/{function}"
        answer = self._asked(lambda: requests.post(url, headers=self._token, json=body, timeout=ANSWER_S))
        return answer.json() if answer.ok and answer.content else None

    def _asked(self, ask: Callable[[], requests.Response]) -> requests.Response:
        answer = ask()
        if not answer.ok:
            self.refused.append(f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}")
        return answer


@contextmanager
def older_workers(ground: Ground, number: int) -> Iterator[list[OlderWorker]]:
    """They leave when the block ends."""
    workers = [OlderWorker(f"older-{each}", ground) for each in range(number)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.leave()
