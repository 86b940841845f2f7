"""The page's form and uploads, as a browser asks for them: rows, files, refusals."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Response
from page_site import PageSite

from source.leftovers import Leftovers
from source.media.fetch import MediaFetcher
from source.store.types import NewTask


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PageSite]:
    site = PageSite(tmp_path, max_upload_mb=1)
    yield site
    site.close()


def upload(site: PageSite, content: bytes, name: str, kind: str = "image", token: str | None = None) -> Response:
    """What the page answers to a file."""
    csrf = site.form("/new/vace").values["csrf"] if token is None else token
    return site.client.post(
        "/uploads", params={"name": name, "kind": kind}, content=content, headers={"X-CSRF-Token": csrf}
    )


def test_every_type_is_listed_with_its_help(site: PageSite) -> None:
    text = site.client.get("/new").text
    for name, help in (
        ("travel_orchestrator", "Travel between images"),
        ("extract_frame", "Save one frame of a video"),
    ):
        assert name in text and help in text
    assert site.client.get("/new/nonsense").status_code == 404


def test_a_form_queues_a_row_and_leads_to_it(site: PageSite) -> None:
    first = site.store.add(NewTask(task_type="extract_frame", params={"input_video_path": "a.mp4"}))
    sent = site.form("/new/vace").with_changes(
        {"prompt": "a red circle", "seed": "7", "_priority": "3", "_dependant_on": first}
    )
    answer = site.client.post("/new/vace", data=sent, follow_redirects=False)
    assert answer.status_code == 303
    task = site.store.get(answer.headers["location"].removeprefix("/task?id="))
    assert (task.task_type, dict(task.params)) == ("vace", {"prompt": "a red circle", "seed": 7})
    assert (task.priority, task.dependant_on) == (3, (first,))


def test_again_with_changes_keeps_all_that_was_not_changed(site: PageSite, root: Path) -> None:
    params = json.loads((root / "samples/tasks/travel_orchestrator.structure.json").read_text())
    before = site.store.add(NewTask(task_type="travel_orchestrator", params=params, priority=5))
    sent = site.form(f"/new/travel_orchestrator?from={before}").with_changes(
        {"orchestrator_details.seed_base": "77", "orchestrator_details.structure_guidance.preprocessing": "flow"}
    )
    answer = site.client.post("/new/travel_orchestrator", data=sent, follow_redirects=False)
    task = site.store.get(answer.headers["location"].removeprefix("/task?id="))
    params["orchestrator_details"]["seed_base"] = 77
    params["orchestrator_details"]["structure_guidance"]["preprocessing"] = "flow"
    assert (task.params, task.priority) == (params, 5)


def test_a_row_of_many_entries_and_long_texts_is_taken(site: PageSite) -> None:
    count = 600
    params = {
        "model_name": "draft", "input_image_paths_resolved": ["a.png"] * (count + 1),
        "base_prompts_expanded": ["x" * 5000] * count, "segment_frames_expanded": [17] * count,
        "frame_overlap_expanded": 4, "resolution": "64x64",
    }  # fmt: skip
    before = site.store.add(NewTask(task_type="travel_orchestrator", params=params))
    sent = site.form(f"/new/travel_orchestrator?from={before}").values
    answer = site.client.post("/new/travel_orchestrator", data=sent, follow_redirects=False)
    assert answer.status_code == 303
    assert site.store.get(answer.headers["location"].removeprefix("/task?id=")).params == params


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"prompt": "x", "seed": "x"}, "f-seed-problem"),
        ({"prompt": "x", "_dependant_on": "no-such-task"}, "f-_dependant_on-problem"),
        ({"prompt": "x", "_priority": "high"}, "f-_priority-problem"),
    ],
)
def test_a_refused_form_says_why_and_adds_nothing(site: PageSite, changes: dict[str, str], where: str) -> None:
    sent = site.form("/new/vace").with_changes(changes)
    answer = site.client.post("/new/vace", data=sent)
    assert answer.status_code == 422
    assert f'id="{where}"' in answer.text
    assert site.store.tasks() == []


def test_nobody_queues_or_uploads_without_the_token_or_the_forms_mark(site: PageSite, root: Path) -> None:
    image = (root / "samples/coffee.jpg").read_bytes()
    stranger = site.visitor()
    assert stranger.get("/new", follow_redirects=False).status_code == 303
    assert stranger.post("/new/vace", data={"prompt": "x"}).status_code == 401
    assert stranger.post("/uploads", params={"name": "a.jpg", "kind": "image"}, content=image).status_code == 401
    assert site.client.post("/new/vace", data={"prompt": "x", "csrf": "other"}).status_code == 403
    assert upload(site, image, "a.jpg", token="other").status_code == 403
    assert site.store.tasks() == []
    assert not (site.settings.public_dir / "uploads").exists()


def test_an_uploaded_file_is_kept_once_and_rows_may_name_it(site: PageSite, root: Path, tmp_path: Path) -> None:
    image = (root / "samples/coffee.jpg").read_bytes()
    first = upload(site, image, "../../a cup: of <coffee>.jpg").json()
    assert upload(site, image, "a cup of coffee.jpg").json()["reference"] == first["reference"]
    assert first["reference"].startswith("uploads/") and first["reference"].endswith("_a cup of coffee.jpg")
    assert (first["kind"], first["size_bytes"]) == ("image", len(image))
    folder = site.settings.public_dir / "uploads"
    assert len(list(folder.iterdir())) == 1
    fetcher = MediaFetcher(site.settings, tmp_path / "scratch")
    assert fetcher.fetch(first["reference"], kind="image", field="image_start").read_bytes() == image
    shown = site.client.get(f"/uploads/{first['reference'].removeprefix('uploads/')}")
    assert (shown.content, shown.headers["content-type"]) == (image, "image/jpeg")


def test_a_file_is_taken_as_what_its_field_asks_for(site: PageSite, root: Path) -> None:
    video = (root / "samples/bbb_416x240_49f.mp4").read_bytes()
    assert upload(site, video, "clip.mp4", "video").json()["kind"] == "video"
    assert upload(site, video, "clip.mp4", "image").status_code == 422
    assert upload(site, (root / "samples/coffee.jpg").read_bytes(), "clip.mp4", "video").status_code == 422


@pytest.mark.parametrize(
    ("content", "name", "code", "said"),
    [
        (b"", "a.png", 422, "is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg", 422, "not the name of an image"),
        (b"GIF89a" + bytes(50), "a.gif", 422, "a.gif"),
        (b"<html>", "a.html", 422, "not the name of an image"),
        (bytes((1 << 20) + 1), "a.png", 413, "MAX_UPLOAD_MB"),
    ],
)
def test_what_is_no_image_is_refused_and_leaves_nothing(
    site: PageSite, content: bytes, name: str, code: int, said: str
) -> None:
    answer = upload(site, content, name)
    assert (answer.status_code, said in answer.json()["error"]) == (code, True), answer.text
    assert list((site.settings.public_dir / "uploads").iterdir()) == []


def test_an_upload_that_says_too_late_how_long_it_is_is_cut_off(site: PageSite) -> None:
    csrf = site.form("/new/vace").values["csrf"]
    blocks = (bytes(1 << 18) for _ in range(100))
    answer = site.client.post(
        "/uploads", params={"name": "a.png", "kind": "image"}, content=blocks, headers={"X-CSRF-Token": csrf}
    )
    assert answer.status_code == 413


def test_no_other_file_can_be_had_as_an_upload(site: PageSite) -> None:
    site.settings.public_dir.joinpath("uploads").mkdir(parents=True)
    for name in ("..%2f..%2ftasks.db", "%2e%2e%2ftasks.db", ".receiving-x", "nothing.png"):
        assert site.client.get(f"/uploads/{name}").status_code == 404


def test_uploads_that_nobody_needs_can_be_cleaned_after_a_while(site: PageSite, root: Path) -> None:
    used, unused, fresh = (
        upload(site, (root / "samples" / f"{name}.jpg").read_bytes(), f"{name}.jpg").json()["reference"]
        for name in ("coffee", "rocket", "chelsea")
    )
    site.store.add(NewTask(task_type="vace", params={"prompt": "x", "image_start": used}))
    month_ago_s = 31 * 86400
    for reference in (used, unused):
        path = site.settings.public_dir / reference
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - month_ago_s))
    found = {each.path.name: each for each in Leftovers(site.settings, site.store).found() if each.kind == "upload"}
    assert {f"uploads/{name}": each.removable for name, each in found.items()} == {
        used: False,
        unused: True,
        fresh: False,
    }
    Leftovers(site.settings, site.store).clean()
    left = {f"uploads/{path.name}" for path in (site.settings.public_dir / "uploads").iterdir()}
    assert left == {used, fresh}


def test_a_secret_of_a_row_is_queued_again_without_having_been_shown(site: PageSite) -> None:
    params = {"prompt": "a cat", "image_start": "https://a.example/cat.png?X-Amz-Signature=planted0123456789"}
    before = site.store.add(NewTask(task_type="vace", params=params))
    path = f"/new/vace?from={before}"
    assert "planted" not in site.client.get(path).text
    sent = site.form(path).with_changes({"prompt": "a dog"})
    answer = site.client.post("/new/vace", data=sent, follow_redirects=False)
    assert site.store.get(answer.headers["location"].removeprefix("/task?id=")).params == params | {"prompt": "a dog"}
    refused = site.client.post("/new/vace", data=sent | {"seed": "x"})
    assert refused.status_code == 422 and "planted" not in refused.text
