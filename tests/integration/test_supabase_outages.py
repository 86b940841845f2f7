"""Postgres, the gateway and the S3 server are killed under a worker process at work: it goes on, and nothing is lost or
done twice. A worker that stood still, or was cut off, for longer than its lease; an answer that got lost on the way."""

from __future__ import annotations

import ctypes
import hashlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from edge_proxy import EdgeProxy, edge_proxy
from local_stack import bearer, local_stack
from supabase_box import SupabaseBox, wait_until

from source.daemon import MIN_STOPPING_S
from source.devstack.parts import Part
from source.startup import LAST_ANSWERS_S
from source.store.types import Status, Task
from Wan2GP.media import probe_video

FRAMES = 49
LEASE_S = 4.0
SHORT_LEASE = {"LEASE_S": str(LEASE_S), "HEARTBEAT_S": "0.5"}
#: phases in which it generates, or has just done so
MAKING = ("decoding", "saving", "finishing")
#: what the worker says of an outage that it noticed
NOTICED = ("out of reach", "did not reach")
#: what it says of a claim that is another's: told by a heartbeat, or by the refusal of its own request
LOST = ("the claim is lost", "is stale")


@dataclass
class Shop:
    """One worker process that outlives all tests of this module. All that it asks passes the proxy."""

    box: SupabaseBox
    proxy: EdgeProxy
    worker: subprocess.Popen[str]

    def part(self, name: str) -> Part:
        part: Part = getattr(self.box.stack, name)
        return part

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
    with edge_proxy(stack.url) as proxy, box.worker("w", **SHORT_LEASE, SUPABASE_URL=proxy.url) as worker:
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
    yield running
    running.box.stack.start()


def outage_while_generating(shop: Shop, name: str) -> str:
    task = shop.queue()
    shop.until(lambda: shop.phase(task) in MAKING, "it generates")
    shop.part(name).kill()
    return task


def outage_while_uploading(shop: Shop, name: str) -> str:
    with uploading(shop) as task:
        shop.part(name).kill()
    return task


@contextmanager
def uploading(shop: Shop) -> Iterator[str]:
    """A task whose upload is under way: the S3 server stands still until the block ends."""
    s3 = shop.box.stack.s3
    s3.pause()
    try:
        task = shop.queue()
        shop.until(lambda: shop.phase(task) == "uploading", "it uploads")
        yield task
    finally:
        s3.resume()


def outage_while_completing(shop: Shop, name: str) -> str:
    shop.proxy.before["complete-task"] = shop.part(name).kill
    task = shop.queue()
    shop.until(lambda: shop.proxy.statuses("complete-task")[:1] not in ([], [200]), "the completion meets the outage")
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["postgres", "gateway"])
@pytest.mark.parametrize("moment", ["generating", "completing"])
def test_an_outage_that_outlasts_the_lease_costs_no_attempt(shop: Shop, name: str, moment: str) -> None:
    """Nobody could take the task meanwhile, and its worker is the first to ask for it afterwards."""
    task = MOMENTS[moment](shop, name)
    threading.Event().wait(1.5 * LEASE_S)
    shop.box.stack.start()
    done_once(shop, shop.complete(task))


def test_a_completion_whose_answer_got_lost_is_completed_once(shop: Shop) -> None:
    shop.proxy.lost_answers.append("complete-task")
    row = shop.complete(shop.queue())
    shop.until(lambda: len(shop.proxy.statuses("complete-task")) == 2, "it is asked again")
    assert shop.proxy.statuses("complete-task") == [200, 200]
    done_once(shop, row)


def done_by_another(shop: Shop, task: str) -> Task:
    """The row, claimed by another worker when the lease has ended, and completed."""
    taken: list[Task] = []
    shop.until(lambda: taken.extend(shop.box.store.claim("other", lease_s=60)) or taken, "the lease ends")
    assert (taken[0].id, taken[0].claim_number, taken[0].attempts) == (task, 2, 1)
    shop.box.store.complete(taken[0].claim, "https://elsewhere.example/other.mp4")
    return shop.box.store.get(task)


@pytest.mark.slow
def test_a_worker_that_was_cut_off_for_longer_than_its_lease_publishes_nothing(shop: Shop) -> None:
    """What it generated meanwhile is not accepted, and it takes the next task."""
    task = shop.queue()
    shop.until(lambda: shop.phase(task) in MAKING, "it generates")
    shop.proxy.cut.set()
    try:
        row = done_by_another(shop, task)
    finally:
        shop.proxy.cut.clear()
    done_once(shop, shop.complete(shop.queue()))
    assert shop.box.store.get(task) == row
    assert [event.name for event in shop.box.store.events(task)].count("complete") == 1


def test_a_worker_that_stood_still_for_longer_than_its_lease_publishes_nothing(shop: Shop) -> None:
    """SIGSTOP while it uploads, another one completes the task, SIGCONT: its file is named by no row."""
    box = shop.box
    with uploading(shop) as task:
        shop.worker.send_signal(signal.SIGSTOP)
    stale, said = box.store.get(task).claim, len(box.log("w"))
    try:
        row = done_by_another(shop, task)
    finally:
        shop.worker.send_signal(signal.SIGCONT)
    shop.until(lambda: any(word in box.log("w")[said:] for word in LOST), "the worker learns of it")
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


def signal_another_thread(process: int) -> None:
    """SIGTERM by the system's own call, to a thread that is not the main one."""
    thread = max(int(entry.name) for entry in Path(f"/proc/{process}/task").iterdir() if entry.name != str(process))
    assert ctypes.CDLL(None).tgkill(process, thread, signal.SIGTERM) == 0


@pytest.mark.slow
def test_a_project_that_never_answers_does_not_keep_a_worker_from_leaving(shop: Shop) -> None:
    """Connections stay open and nothing comes back. Told to stop, it waits for its graces and for some answers, also
    where the signal comes while the main thread waits for an answer, and to another thread: its handler runs late."""
    shop.worker.send_signal(signal.SIGSTOP)  # this is for another one
    longest_s = 3 * MIN_STOPPING_S + LAST_ANSWERS_S
    try:
        with (
            edge_proxy(shop.box.stack.url) as proxy,
            shop.box.worker("deaf", SUPABASE_URL=proxy.url, SHUTDOWN_GRACE_S="0") as worker,
        ):
            task = shop.queue()
            wait_until(lambda: shop.phase(task) in MAKING, "it generates", worker)
            proxy.silent.set()
            wait_until(lambda: "claim-next-task" in proxy.unanswered, "the main thread asks", worker)
            told_at = time.monotonic()
            signal_another_thread(worker.pid)
            assert worker.wait(3 * longest_s) == 0, shop.box.log("deaf")
            assert time.monotonic() - told_at < longest_s + 5
    finally:
        shop.worker.send_signal(signal.SIGCONT)
