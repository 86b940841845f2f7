"""Postgres, the gateway and the S3 server are killed under a worker process at work: it goes on, nothing is lost or done
twice. A worker that stood still for longer than its lease, and an answer that got lost on the way."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from edge_proxy import EdgeProxy, edge_proxy
from local_stack import bearer, local_stack
from supabase_box import SupabaseBox, wait_until

from source.store.types import Status, Task
from Wan2GP.media import probe_video

FRAMES = 49
LEASE_S = 4.0
SHORT_LEASE = {"LEASE_S": str(LEASE_S), "HEARTBEAT_S": "0.5"}
#: what the worker says of an outage that it noticed
NOTICED = ("out of reach", "did not reach")


@dataclass
class Shop:
    """One worker process that outlives all tests of this module, whose completions pass the proxy."""

    box: SupabaseBox
    proxy: EdgeProxy
    worker: subprocess.Popen[str]

    def part(self, name: str) -> object:
        return getattr(self.box.stack, name)

    def queue(self) -> str:
        params = self.box.sample("individual_travel_segment.i2v") | {"num_frames": FRAMES}
        return self.box.add_for("00000000-0000-0000-0000-000000000000", "individual_travel_segment", **params)

    def until(self, holds: Callable[[], object], what: str) -> None:
        wait_until(holds, what, self.worker)

    def phase(self, task: str) -> str | None:
        [(phase,)] = self.box.rows("select progress ->> 'phase' from tasks where id = %(task)s", task=task)
        return str(phase)

    def notices(self, since: int) -> bool:
        """Whether the worker's log says so in what it wrote after its first `since` characters."""
        return any(words in self.box.log("w")[since:] for words in NOTICED)

    def complete(self, task: str) -> Task:
        self.until(lambda: self.box.store.get(task).terminal, "the task ends")
        row = self.box.store.get(task)
        assert row.status is Status.COMPLETE, row.error_message
        return row

    def video(self, row: Task) -> Path:
        assert row.output_location
        return self.box.object_of(row.output_location)


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    stack = local_stack()
    stack.start()
    stack.empty()
    box = SupabaseBox(root, tmp_path_factory.mktemp("outages"), stack, stack.service_key)
    with edge_proxy(stack.url) as proxy:
        door = {"SUPABASE_EDGE_COMPLETE_TASK_URL": f"{proxy.url}/functions/v1/complete-task"}
        with box.worker("w", **SHORT_LEASE, **door) as worker:
            shop = Shop(box, proxy, worker)
            shop.until(box.store.workers, "the worker is there")
            yield shop
            worker.send_signal(signal.SIGTERM)
            box.ends_well(worker, "w")
    box.close()


@pytest.fixture
def shop(running: Shop) -> Iterator[Shop]:
    """Everything runs at the start, and at the end, whatever a test broke."""
    running.box.stack.start()
    running.proxy.answers.clear()
    running.proxy.refused.clear()
    yield running
    running.box.stack.start()


def outage_while_generating(shop: Shop, name: str) -> str:
    task = shop.queue()
    shop.until(lambda: shop.phase(task) == "decoding", "it generates")
    shop.part(name).kill()
    return task


def outage_while_uploading(shop: Shop, name: str) -> str:
    """The S3 server stands still, so the upload is under way when the part dies."""
    s3 = shop.box.stack.s3
    s3.pause()
    try:
        task = shop.queue()
        shop.until(lambda: shop.phase(task) == "uploading", "it uploads")
        shop.part(name).kill()
    finally:
        s3.resume()
    return task


def outage_while_completing(shop: Shop, name: str) -> str:
    shop.proxy.before = shop.part(name).kill
    task = shop.queue()
    shop.until(shop.proxy.refused.is_set, "the completion meets the outage")
    return task


MOMENTS = {
    "generating": outage_while_generating,
    "uploading": outage_while_uploading,
    "completing": outage_while_completing,
}
QUICK = {("postgres", "generating"), ("s3", "uploading"), ("gateway", "completing")}


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        pytest.param(name, moment, marks=() if (name, moment) in QUICK else pytest.mark.slow)
        for name in ("postgres", "gateway", "s3")
        for moment in MOMENTS
    ],
)
def test_an_outage_costs_time_and_nothing_else(shop: Shop, name: str, moment: str) -> None:
    said = len(shop.box.log("w"))
    task = MOMENTS[moment](shop, name)
    if moment != "completing":  # there the refused completion says that it was met
        shop.until(lambda: shop.notices(said), "the worker notices")
    shop.box.stack.start()
    done_once(shop, shop.complete(task))


def done_once(shop: Shop, row: Task) -> None:
    """By its first claim, with no attempt burned; one video and its picture, as they were declared."""
    box = shop.box
    assert (row.claim_number, row.attempts) == (1, 0)
    assert probe_video(shop.video(row)).num_frames == FRAMES
    names = [event.name for event in box.store.events(row.id)]
    assert [names.count(name) for name in ("claimed", "complete", "started")] == [1, 1, 1]
    declared = dict(box.rows("select storage_path, sha256 from task_uploads where task_id = %(id)s", id=row.id))
    there = {key: hashlib.sha256((box.stack.objects / key).read_bytes()).hexdigest() for key in own_objects(shop, row)}
    assert there == declared and len(there) == 2
    shop.until(lambda: not box.undelivered(), "the outbox is empty")


def own_objects(shop: Shop, row: Task) -> set[str]:
    return {key for key in shop.box.objects() if row.id in key}


def test_a_completion_whose_answer_got_lost_is_completed_once(shop: Shop) -> None:
    shop.proxy.lost_answers = 1
    row = shop.complete(shop.queue())
    shop.until(lambda: len(shop.proxy.answers) == 2, "it is asked again")
    assert shop.proxy.answers == [200, 200]
    done_once(shop, row)


def test_a_worker_that_stood_still_for_longer_than_its_lease_publishes_nothing(shop: Shop) -> None:
    """SIGSTOP while it uploads, another one completes the task, SIGCONT: its file is named by no row."""
    box = shop.box
    box.stack.s3.pause()
    task = shop.queue()
    shop.until(lambda: shop.phase(task) == "uploading", "it uploads")
    stale = box.store.get(task).claim
    said = len(box.log("w"))
    shop.worker.send_signal(signal.SIGSTOP)
    try:
        box.stack.s3.resume()
        taken: list[Task] = []
        shop.until(lambda: taken.extend(box.store.claim("other", lease_s=60)) or taken, "the lease ends")
        assert (taken[0].id, taken[0].claim_number, taken[0].attempts) == (task, 2, 1)
        box.store.complete(taken[0].claim, "https://elsewhere.example/other.mp4")
        row = box.store.get(task)
        assert row.status is Status.COMPLETE
    finally:
        shop.worker.send_signal(signal.SIGCONT)
    shop.until(lambda: "lost" in box.log("w")[said:], "the worker learns of it")
    shop.until(lambda: not box.undelivered(), "the worker lets go of its result")
    assert [event.name for event in box.store.events(task)].count("complete") == 1
    claim = {"task_id": task, "worker_id": stale.worker_id, "claim_number": stale.claim_number}
    for function, body in {
        "generate-upload-url": {"filename": "late.mp4", "content_type": "video/mp4"},
        "complete-task": {"output_location": "https://elsewhere.example/late.mp4"},
        "update-task-status": {"status": "Failed", "error_details": "late"},
        "task-store": {"operation": "task_progress", "progress": {"phase": "late"}},
    }.items():
        url = f"{box.stack.url}/functions/v1/{function}"
        answer = requests.post(url, headers=bearer(box.stack.service_key), json=claim | body, timeout=20)
        assert answer.status_code == 409, answer.text
    assert box.store.get(task) == row
