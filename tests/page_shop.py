"""Databases for tests of the page: a small fleet at work, with real media; and the page, served on a thread."""

from __future__ import annotations

import io
import itertools
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from travel_shop import Workshop, travel

from source.page.access import access_of
from source.page.app import page
from source.settings import Settings
from source.store.sqlite import SqliteStore
from source.store.types import NewTask, Task, child_id
from Wan2GP.media import Frame

TOKEN = "a-token-for-tests-0123456789"
SAMPLES = Path(__file__).resolve().parent.parent / "samples"
PROMPTS = (
    "a fishing boat leaves the harbour at dawn, gulls circling, slow dolly out",
    "macro shot of frost growing over a window, soft backlight",
    "a tram climbs a steep street in the rain, neon reflections on wet cobbles",
    "time lapse of clouds over a mountain ridge, golden hour",
    "a paper crane unfolds itself on a wooden desk",
    "an astronaut walks through tall grass, handheld camera",
)


@contextmanager
def served(store: SqliteStore, settings: Settings, token: str | None = TOKEN) -> Iterator[str]:
    """The address of the page, by a real server on a port of its own."""
    config = uvicorn.Config(page(store, settings, access_of(token)), log_level="error", lifespan="off", port=0)
    server = uvicorn.Server(config)
    with closing(config.bind_socket()) as sock:
        sock.listen()  # who comes before the server's thread is there waits, and is not refused
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def finished_travel(folder: Path) -> Workshop:
    """A travel of two segments with its guide, made by a worker with the fake engine."""
    shop = Workshop(folder)
    guide = str(SAMPLES / "bbb_416x240_49f.mp4")
    uploads = shop.settings.public_dir / "uploads"
    uploads.mkdir(parents=True)
    images = [str(shutil.copy(SAMPLES / name, uploads)) for name in ("astronaut.jpg", "coffee.jpg", "rocket.jpg")]
    asked = travel(
        images, parsed_resolution_wh="320x192", base_prompts_expanded=list(PROMPTS[:2]),
        structure_guidance={"target": "vace", "preprocessing": "none", "videos": [{"path": guide}]},
    )  # fmt: skip
    row = shop.run("travel_orchestrator", asked)
    assert row.status == "Complete", (row.error_message, [c.error_message for c in shop.store.children(row.id)])
    return shop


def fleet(folder: Path) -> tuple[Workshop, Mapping[str, str]]:
    """A database as after a day of work: what was finished, failed, runs and waits. Returns ids by name."""
    shop = finished_travel(folder)
    store = shop.store
    ids = {"travel": store.tasks(limit=1, task_type="travel_orchestrator")[0].id}
    for number in range(9):
        ids[f"done{number}"] = ended(store, number, lambda claim: store.complete(claim, None))
    ids["failed"] = ended(
        store, 3, lambda claim: store.fail(
            claim, "CUDA out of memory: 23.1 GB of 24.0 GB in use, 1.6 GB more were asked for; at 1280x720, 161 frames",
            error_class="out_of_memory"),
    )  # fmt: skip
    ids["cancelled"] = store.add(_task(4))
    store.cancel(ids["cancelled"])
    ids["parent"], ids["child"] = open_travel(store)
    ids["running"] = running(store)
    for number in range(3):
        ids[f"queued{number}"] = store.add(_task(number + 1, priority=number))
    store.pause(ids["queued0"])
    talk(store, ids["running"])
    spread(store)
    return shop, ids


#: the same ones each time
_IDS = (str(uuid.uuid5(uuid.NAMESPACE_OID, f"task {number}")) for number in itertools.count())


def _task(number: int, **values: Any) -> NewTask:
    kind, model = (("t2v", "wan_2_2_t2v_A14B"), ("vace", "vace_14B"), ("i2v", "wan_2_2_i2v"))[number % 3]
    params = {"prompt": PROMPTS[number % len(PROMPTS)], "model": model, "resolution": "832x480", "num_frames": 81}
    return NewTask(id=next(_IDS), task_type=kind, params=params, **values)


def claimed(store: SqliteStore, task_id: str, worker: str = "gpu-1-0badf00d") -> Task:
    """That row, claimed; others that a claim would bring are paused for that long."""
    for row in store.tasks(limit=1000):
        if row.status == "Queued" and row.id != task_id and not row.paused:
            store.pause(row.id)
    [task] = store.claim(worker, lease_s=3600, limit=1)
    assert task.id == task_id
    for row in store.tasks(limit=1000):
        if row.paused:
            store.resume(row.id)
    return task


def ended(store: SqliteStore, number: int, end: Callable[[Any], object]) -> str:
    task_id = store.add(_task(number))
    claim = claimed(store, task_id).claim
    store.progress(claim, {"phase": "loading"}, event="loading")
    store.generation_started(claim)
    end(claim)
    return task_id


def open_travel(store: SqliteStore) -> tuple[str, str]:
    """A travel whose first segment is done and whose second one runs."""
    parent = store.add(NewTask(id=next(_IDS), task_type="travel_orchestrator", params={"orchestrator_details": {
        "run_id": "20260114-evening", "base_prompts_expanded": list(PROMPTS[2:5])}}))  # fmt: skip
    claim = claimed(store, parent).claim
    keys = ["travel_guidance:0", "travel_segment:0", "travel_segment:1", "travel_segment:2", "travel_stitch:0"]
    ids = {key: child_id(parent, key) for key in keys}
    needs = {keys[1]: [keys[0]], keys[2]: [keys[0], keys[1]], keys[3]: [keys[0], keys[2]], keys[4]: keys[1:4]}
    children = [
        NewTask(
            id=ids[key], task_type=key.split(":")[0], parent_id=parent, child_key=key,
            params={"prompt": PROMPTS[2 + number % 4], "segment_index": number - 1},
            dependant_on=tuple(ids[each] for each in needs.get(key, [])),
        )
        for number, key in enumerate(keys)
    ]  # fmt: skip
    store.fan_out(claim, children, final_child=ids[keys[4]])
    for key in keys[:2]:
        one = claimed(store, ids[key]).claim
        store.generation_started(one)
        store.complete(one, None)
    one = claimed(store, ids[keys[2]], "gpu-2-5eed5eed").claim
    store.generation_started(one)
    store.progress(one, {"phase": "denoising", "step": 3, "total": 8, "fraction": 0.375, "text": "Denoising"})
    return parent, ids[keys[2]]


def running(store: SqliteStore, **progress: Any) -> str:
    """A task in the middle of its steps, with a preview."""
    task_id = store.add(_task(0))
    claim = claimed(store, task_id).claim
    store.progress(claim, {"phase": "loading"}, event="loading")
    store.generation_started(claim)
    facts = {"phase": "denoising", "step": 12, "total": 20, "fraction": 0.6, "text": "Denoising",
             "seconds_per_step": 1.84, "eta_s": 15.0,
             "stages": {"queued": 2.2, "loading": 26.0, "encoding": 2.4, "denoising": 22.1},
             "steps_made": 12}  # fmt: skip
    store.progress(claim, facts | progress)
    store.show(claim, sketch(), media_type="image/webp", step=12)
    return task_id


def sketch() -> bytes:
    """A small picture of a sea at dusk, as WebP."""
    y, x = np.mgrid[0:120, 0:208]
    sky = np.stack([90 + y, 80 + y * 0.4 + x * 0.2, 150 - y * 0.6 + 0 * x], -1)
    sea = np.stack([40 + 10 * np.sin(x / 9 + y / 3), 60 + 12 * np.sin(x / 7), 95 + 20 * np.sin(y / 2)], -1)
    frame: Frame = np.where(y[..., None] < 70, sky, sea).clip(0, 255).astype(np.uint8)
    frame[((x - 150) ** 2 + (y - 52) ** 2) < 190] = (255, 214, 150)
    made = io.BytesIO()
    Image.fromarray(frame).save(made, "WEBP", quality=80)
    return made.getvalue()


def talk(store: SqliteStore, task_id: str) -> None:
    """Workers with heartbeats, and what they logged."""
    lines = (
        ("INFO", None, "worker gpu-1 claims tasks of 31 types; 24.0 GB of GPU memory, 64 GB of RAM"),
        ("INFO", task_id, "claimed (claim 1): t2v, wan_2_2_t2v_A14B, 832x480, 81 frames"),
        ("INFO", task_id, "loading wan_2_2_t2v_A14B: 14.3 GB from /models/ckpts in 41.0 s"),
        ("WARNING", task_id, "1.9 GB of GPU memory are free: the text encoder moves to RAM"),
        ("DEBUG", task_id, "sigmas: shift 5.0, 20 steps, the second expert from step 9 on"),
        ("INFO", task_id, "denoising: 1.84 s a step"),
        ("ERROR", None, "the database is out of reach, trying again (1): connection reset by peer"),
        ("INFO", None, "heartbeat acknowledged after 2 tries"),
    )
    for worker, model in (
        ("gpu-1-0badf00d", "wan_2_2_t2v_A14B"),
        ("gpu-2-5eed5eed", "vace_14B"),
        ("gpu-3-0ff0ff00", None),
    ):
        store.heartbeat(worker, [], lease_s=60, current_model=model, status="active" if model else "stopped")
    with closing(sqlite3.connect(store.path)) as db, db:
        for number, (level, task, message) in enumerate(lines):
            db.execute(
                "INSERT INTO log_lines (at, level, message, worker_id, task_id) "
                "VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?), ?, ?, 'gpu-1-0badf00d', ?)",
                (f"-{70 - 8 * number} seconds", level, message, task),
            )


def spread(store: SqliteStore) -> None:
    """Rows of a test are all of one second: those of a day lie minutes apart, and took a while."""
    moved = "strftime('%Y-%m-%dT%H:%M:%fZ', {0}, :shift)"
    with closing(sqlite3.connect(store.path)) as db, db:
        rows = db.execute("SELECT id, status FROM tasks WHERE parent_id IS NULL ORDER BY created_at DESC, rowid DESC")
        for number, (task_id, status) in enumerate(rows.fetchall()):
            open_s, ended_s = 18 * number, 420 * number
            values = {"id": task_id, "shift": f"-{open_s if status in ('Queued', 'In Progress') else ended_s} seconds"}
            columns = ("created_at", "claimed_at", "generation_started_at", "generation_processed_at")
            assignments = ", ".join(f"{column} = {moved.format(column)}" for column in columns)
            db.execute(f"UPDATE tasks SET {assignments} WHERE :id IN (id, parent_id)", values)
            db.execute(
                f"UPDATE task_events SET at = {moved.format('at')} "
                "WHERE task_id IN (SELECT id FROM tasks WHERE :id IN (id, parent_id))", values,
            )  # fmt: skip
            later = {"id": task_id, "shift": f"+{80 + 13 * (number % 5)} seconds"}
            ended = "generation_processed_at"
            db.execute(f"UPDATE tasks SET {ended} = {moved.format(ended)} WHERE id = :id", later)
            ends = "name IN ('complete', 'failed')"
            db.execute(f"UPDATE task_events SET at = {moved.format('at')} WHERE task_id = :id AND {ends}", later)
