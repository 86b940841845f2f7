"""The main job on Supabase: two worker processes share travels that add_task.py queued, on the local stack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from local_stack import local_stack
from skimage.metrics import structural_similarity
from supabase_box import SupabaseBox, wait_until

from source.store.types import Status, Task
from Wan2GP.media import probe_video, read_frame, read_image

SIZE = (96, 64)
SMALL = {"parsed_resolution_wh": f"{SIZE[0]}x{SIZE[1]}"}
#: the sample as it is but for its size; and unchained, so that its segments wait for nobody
TRAVELS = {
    "chained": (SMALL, 98, [49, 61]),
    "unchained": (SMALL | {"run_id": "apart", "chain_segments": False, "stitch": True}, 86, [49, 49]),
}
FPS = 16.0


class Finished:
    """What two workers left."""

    def __init__(self, box: SupabaseBox, travels: dict[str, str]) -> None:
        self.box = box
        self.rows = {name: box.store.get(task) for name, task in travels.items()}
        self.children = {name: box.store.children(task) for name, task in travels.items()}
        self.all = [*self.rows.values(), *(child for each in self.children.values() for child in each)]

    def segments(self, name: str) -> list[Task]:
        found = [child for child in self.children[name] if child.task_type == "travel_segment"]
        return sorted(found, key=lambda child: child.params["segment_index"])

    def video(self, row: Task) -> Path:
        assert row.status is Status.COMPLETE and row.output_location, row.error_message
        return self.box.object_of(row.output_location)


def work(
    box: SupabaseBox, travels: dict[str, dict[str, object]], token: str, project: str, names: str = "ab"
) -> dict[str, str]:
    """Queue travels when the workers are there, and have them finish. A row for later keeps the workers until then."""
    later = {"task_type": "extract_frame", "params": {}, "run_after": "2099-01-01T00:00:00Z"}
    gate = box.ask("create-task", token, project_id=project, **later)["task_id"]
    with ExitStack() as running:
        workers = {name: running.enter_context(box.worker(name, "--until-idle")) for name in names}
        wait_until(lambda: len(box.store.workers()) == len(names), "the workers are there", workers["a"])
        tasks = {name: queue(box, project, changes) for name, changes in travels.items()}
        box.ask("cancel-task", token, task_id=gate)
        for name, worker in workers.items():
            box.ends_well(worker, name)
    return tasks


def queue(box: SupabaseBox, project: str, changes: dict[str, object]) -> str:
    params = box.sample("travel_orchestrator")
    params["orchestrator_details"] |= changes
    return box.run(
        "add_task.py", "--type", "travel_orchestrator", "--params", json.dumps(params), "--project-id", project
    )


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Two travels by workers with the service key; the tests below look at them from many sides."""
    stack = local_stack()
    stack.start()
    stack.empty()
    anna = stack.person()
    box = SupabaseBox(root, tmp_path_factory.mktemp("travel"), stack, stack.service_key)
    tasks = work(box, {name: row[0] for name, row in TRAVELS.items()}, stack.service_key, anna.project_id)
    yield Finished(box, tasks)
    box.close()


def test_each_row_completes_once_by_its_first_claim(finished: Finished) -> None:
    assert len(finished.all) == 8
    assert finished.box.completions() == {row.id: 1 for row in finished.all}
    for row in finished.all:
        assert (row.status, row.claim_number, row.attempts) == (Status.COMPLETE, 1, 0), row.error_message
        names = [event.name for event in finished.box.store.events(row.id)]
        assert [names.count(name) for name in ("queued", "claimed", "complete")] == [1, 1, 1]


def test_both_workers_took_part(finished: Finished) -> None:
    assert {str(row.worker_id)[:2] for row in finished.all} == {"a-", "b-"}


@pytest.mark.parametrize("name", TRAVELS)
def test_each_video_has_exactly_the_planned_frames(finished: Finished, name: str) -> None:
    _, total, frames = TRAVELS[name]
    made = probe_video(finished.video(finished.rows[name]))
    assert (made.num_frames, made.width, made.height, float(made.fps)) == (total, *SIZE, FPS)
    segments = [probe_video(finished.video(row)) for row in finished.segments(name)]
    assert [each.num_frames for each in segments] == frames
    assert {float(each.fps) for each in segments} == {FPS}


def test_the_files_in_the_bucket_are_those_that_were_declared(finished: Finished) -> None:
    """All that lies there was declared, with its size and checksum, by the claim that completed the row."""
    box = finished.box
    declared = box.rows("select storage_path, size_bytes, sha256, md5, claim_number from task_uploads")
    assert {row[0] for row in declared} == box.objects()
    for key, size, sha256, md5, claim_number in declared:
        data = (box.stack.objects / key).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest()) == (size, sha256, md5)
        assert Path(key).name.startswith(f"{claim_number}-")
    named = {finished.video(row) for row in finished.all} | {thumbnail(finished, row) for row in finished.all}
    assert {str(path.relative_to(box.stack.objects)) for path in named} == box.objects()


def thumbnail(finished: Finished, row: Task) -> Path:
    return finished.box.object_of((row.result_data or {})["thumbnail_url"])


def test_each_thumbnail_is_a_jpeg_of_the_first_frame(finished: Finished) -> None:
    for row in finished.all:
        picture = thumbnail(finished, row)
        assert picture.read_bytes()[:3] == b"\xff\xd8\xff"
        first = read_frame(finished.video(row), 0)
        assert structural_similarity(read_image(picture), first, channel_axis=2) >= 0.95


def test_the_public_url_answers_with_the_same_bytes_and_with_parts_of_them(finished: Finished) -> None:
    row = finished.rows["chained"]
    url, data = str(row.output_location), finished.video(row).read_bytes()
    whole = requests.get(url, timeout=20)
    assert (whole.status_code, whole.content, whole.headers["Content-Type"]) == (200, data, "video/mp4")
    part = requests.get(url, headers={"Range": "bytes=1000-1999"}, timeout=20)
    assert (part.status_code, part.content) == (206, data[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(data)}"
    end = requests.get(url, headers={"Range": "bytes=-10"}, timeout=20)
    assert (end.status_code, end.content) == (206, data[-10:])


def test_nothing_is_left_in_scratch_and_outbox(finished: Finished) -> None:
    assert not finished.box.undelivered()


def test_a_worker_of_a_person_takes_that_person_s_tasks_alone(root: Path, tmp_path: Path) -> None:
    stack = local_stack()
    stack.start()
    stack.empty()
    anna, ben = stack.person(), stack.person()
    box = SupabaseBox(root, tmp_path, stack, anna.access_token)
    nobodys = box.add_for(ben.project_id)
    tasks = work(box, {"hers": SMALL}, anna.access_token, anna.project_id, names="a")
    travel = box.store.get(tasks["hers"])
    assert travel.status is Status.COMPLETE and travel.output_location
    assert probe_video(box.object_of(travel.output_location)).num_frames == 98
    assert {key.split("/")[0] for key in box.objects()} == {anna.user_id}
    assert set(box.completions().values()) == {1}
    left = box.store.get(nobodys)
    assert (left.status, left.claim_number) == (Status.QUEUED, 0)
    box.close()
