"""What artists save in Wan2GP becomes rows: settings, queues with media, outputs that hold their settings."""

from __future__ import annotations

import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from box import Box
from PIL import Image
from upstream_checkouts import PARAMETERS as THEIRS
from upstream_checkouts import RENAMED

import add_task
from source.store.sqlite import SqliteStore
from source.store.types import Task
from Wan2GP.media import probe_video
from Wan2GP.parameters import PARAMETERS, PLUMBING

SETTINGS = {
    "settings_version": 2.74, "type": "WanGP v12.60", "base_model_type": "draft", "model_type": "draft",
    "prompt": "a cat", "resolution": "96x64", "video_length": 9, "seed": 7, "multi_prompts_gen_type": "PG",
}  # fmt: skip


class Desk:
    """add_task.py, called in this process against one database."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys
        self.database = folder / "base" / "tasks.db"
        self.database.parent.mkdir()

    def __call__(self, file: Path, *words: str, database: bool = True) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        where = ("--db-file", str(self.database)) if database else ()
        self._monkeypatch.setattr("sys.argv", ["add_task.py", "--from-wangp", str(file), *words, *where])
        self._capsys.readouterr()
        code = add_task.main()
        out, err = self._capsys.readouterr()
        return code, out, err

    def rows(self, file: Path, *words: str) -> list[Task]:
        """The rows that a file became."""
        code, out, err = self(file, *words)
        assert code == 0, err
        with closing(SqliteStore(self.database)) as store:
            return [store.get(task) for task in out.split()]

    def refused(self, file: Path, *words: str) -> str:
        """What is said of a file of which nothing was added and nothing kept."""
        code, out, err = self(file, *words)
        assert (code, out) == (1, "")
        assert list(self.database.parent.rglob("*")) == []
        return err

    def kept(self) -> list[Path]:
        """The media that were kept for rows."""
        return [path for path in (self.database.parent / "public").rglob("*") if path.is_file()]

    def tasks(self) -> list[Task]:
        with closing(SqliteStore(self.database)) as store:
            return store.tasks()

    def saved(self, content: Any, name: str = "settings.json") -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def queue(self, tasks: list[dict[str, Any]], media: Mapping[str, bytes], name: str = "queue.zip") -> Path:
        path = self.folder / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("queue.json", json.dumps(tasks))
            for member, content in media.items():
                archive.writestr(member, content)
        return path


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


@pytest.fixture
def picture(samples: Path) -> bytes:
    return (samples / "shapes" / "red_circle_left.png").read_bytes()


def test_settings_become_a_row_of_any_model(desk: Desk) -> None:
    (row,) = desk.rows(desk.saved(SETTINGS), "--priority", "3")
    assert (row.task_type, row.priority) == ("wgp", 3)
    assert row.params == {"model": "draft", "prompt": "a cat", "resolution": "96x64", "video_length": 9, "seed": 7}


def test_each_paragraph_of_a_prompt_is_a_row_as_it_was_a_run(desk: Desk) -> None:
    text = "# a remark\na cat\nthat sits\n\n\na dog"
    rows = desk.rows(desk.saved(SETTINGS | {"prompt": text}))
    assert [row.params["prompt"] for row in rows] == ["a cat\nthat sits", "a dog"]
    lines = desk.rows(desk.saved(SETTINGS | {"prompt": text, "multi_prompts_gen_type": 0}))
    assert [row.params["prompt"] for row in lines] == ["a cat", "that sits", "a dog"]
    (whole,) = desk.rows(desk.saved(SETTINGS | {"prompt": "a cat\n\na dog", "multi_prompts_gen_type": "PW"}))
    assert (whole.params["prompt"], whole.params["multi_prompts_gen_type"]) == ("a cat\n\na dog", "PW")


@pytest.mark.parametrize("wrap", [lambda each: [each], lambda each: {"tasks": [{"id": 4, "params": each}]}])
def test_lists_and_manifests_are_read(desk: Desk, wrap: Callable[[Any], Any]) -> None:
    assert desk.rows(desk.saved(wrap(SETTINGS)))[0].params["prompt"] == "a cat"


def test_seconds_become_frames_and_a_model_s_other_name_its_own(desk: Desk) -> None:
    settings = {
        "model_type": "t2v_14B",
        "prompt": "x",
        "video_length": "5s",
        "activated_loras": ["D:\\l\\a.safetensors"],
    }
    code, out, _ = desk(desk.saved(settings), "--dry-run")
    assert code == 0
    (row,) = json.loads(out)
    assert (row["params"]["model"], row["params"]["video_length"]) == ("t2v", 81)
    assert row["params"]["activated_loras"] == ["a.safetensors"]
    assert [note.split()[0] for note in row["notes"]] == ["video_length", "activated_loras:"]
    assert not desk.database.exists()


def test_a_queue_brings_its_media_along(desk: Desk, picture: bytes, samples: Path) -> None:
    video = (samples / "shapes" / "red_circle_48x48.mp4").read_bytes()
    tasks = [
        {"id": 1, "params": SETTINGS | {"image_start": ["task1_image_start_0.png"], "image_prompt_type": "S"}},
        {"id": 2, "params": SETTINGS | {"video_guide": "task2_video_guide_0.mp4", "video_prompt_type": "V",
                                        "image_refs": ["task2_image_refs_0.png", "task2_image_refs_1.png"]}},
    ]  # fmt: skip
    media = {
        "task1_image_start_0.png": picture, "task2_video_guide_0.mp4": video,
        "task2_image_refs_0.png": picture, "task2_image_refs_1.png": picture,
    }  # fmt: skip
    first, second = desk.rows(desk.queue(tasks, media))
    public = desk.database.parent / "public"
    assert first.params["image_start"].startswith("uploads/") and first.params["image_prompt_type"] == "S"
    assert (public / first.params["image_start"]).read_bytes() == picture
    assert (public / second.params["video_guide"]).read_bytes() == video
    assert second.params["video_prompt_type"] == "VI" and len(second.params["image_refs"]) == 2


@pytest.mark.slow
def test_a_worker_renders_a_queue_with_every_setting_that_the_newest_version_writes(
    desk: Desk, root: Path, picture: bytes, samples: Path
) -> None:
    """By diffusion: what an artist left as it was is no reason for our engine to refuse."""
    untouched = {name: PARAMETERS[name].default for name in THEIRS[RENAMED] if name in set(PARAMETERS) - PLUMBING}
    chosen = {
        "prompt": "a red circle moving right",
        "resolution": "64x64",
        "video_length": 17,
        "num_inference_steps": 2,
    }
    media = {
        "a.png": picture, "b.png": (samples / "shapes" / "red_circle_right.png").read_bytes(),
        "c.mp4": (samples / "shapes" / "red_circle_48x48.mp4").read_bytes(),
    }  # fmt: skip
    kinds = {
        "tiny_wan_t2v": {},
        "tiny_wan_i2v": {"image_start": "a.png", "image_end": ["b.png"], "image_prompt_type": "SE"},
        "tiny_wan_vace": {"video_guide": "c.mp4", "video_prompt_type": "UV"},
    }
    tasks = [
        {"id": number, "params": untouched | chosen | {"model_type": model, **more}}
        for number, (model, more) in enumerate(kinds.items())
    ]
    rows = desk.rows(desk.queue(tasks, media))
    box = Box(root, desk.database.parent)
    box.work()
    for row in rows:
        view = box.view(row.id)
        assert view["status"] == "Complete", view["error_message"]
        made = probe_video(box.video(view))
        assert (made.num_frames, made.width, made.height) == (17, 64, 64)


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "..\\evil.png", "C:evil.png", "a/../../evil.png"])
def test_a_zip_file_that_leads_out_of_itself_is_refused(desk: Desk, picture: bytes, name: str) -> None:
    queue = desk.queue([{"id": 1, "params": SETTINGS | {"image_start": name}}], {name: picture})
    assert "leads out of it" in desk.refused(queue)
    assert not (desk.folder / "evil.png").exists()


def test_a_link_in_a_zip_file_is_refused(desk: Desk) -> None:
    path = desk.queue([{"id": 1, "params": SETTINGS | {"image_start": "a.png"}}], {})
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("a.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert "is a link" in desk.refused(path)


def test_a_zip_file_that_lies_of_the_size_of_its_media_is_refused(desk: Desk) -> None:
    path = desk.queue([{"id": 1, "params": SETTINGS | {"image_start": "a.png"}}], {"a.png": bytes(3_000_000)})
    bare = bytearray(path.read_bytes())
    told = struct.pack("<I", 3_000_000)
    assert bare.count(told) == 2
    path.write_bytes(bare.replace(told, struct.pack("<I", 10)))
    assert "queue.zip" in desk.refused(path)


def test_media_larger_than_the_limit_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_UPLOAD_MB", "1")
    big = desk.queue([{"id": 1, "params": SETTINGS | {"image_start": "a.png"}}], {"a.png": bytes(3_000_000)})
    code, _, err = desk(big)
    assert code == 1 and "MAX_UPLOAD_MB" in err
    assert desk.kept() == [] and desk.tasks() == []


@pytest.mark.parametrize(
    ("params", "media", "said"),
    [
        ({"image_start": "gone.png"}, {}, "task 3: image_start: the queue names 'gone.png'"),
        ({"image_start": ["a.png", "a.png"]}, {"a.png": b"x"}, "task 3: image_start: names 2 files"),
        ({"image_start": {"path": "x"}}, {}, "task 3: image_start: must be the name of a file"),
        ({"video_guide": "v.mp4|start_frame=3,end_frame=9"}, {}, "task 3: video_guide: "),
        ({"model_type": "drafd"}, {}, "task 3: model_type: there is no model 'drafd'. Did you mean 'draft'?"),
        ({"model_type": "", "base_model_type": None}, {}, "task 3: model_type: is missing"),
        ({"num_inference_steps": "many"}, {}, "task 3: num_inference_steps"),
        ({"prompt": ["x"]}, {}, "task 3: prompt: must be a text"),
        ({"prompt": "! {A}=\"x\"\na {A}"}, {}, "task 3: prompt: has a template"),
        ({"mode": "edit_remux"}, {}, "task 3: mode: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_entry_and_setting(
    desk: Desk, params: dict[str, Any], media: dict[str, bytes], said: str
) -> None:
    tasks = [{"id": 1, "params": SETTINGS}, {"id": 3, "params": SETTINGS | params}]
    assert f"add_task.py: queue.zip: {said}" in desk.refused(desk.queue(tasks, media))


def test_a_member_that_is_no_picture_is_refused_and_nothing_is_queued(desk: Desk, picture: bytes) -> None:
    params = SETTINGS | {"image_start": "a.png", "image_prompt_type": "S"}
    code, out, err = desk(desk.queue([{"id": 1, "params": params}], {"a.png": picture[:60]}))
    assert (code, out) == (1, "") and "task 1: image_start: " in err
    assert desk.kept() == [] and desk.tasks() == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", "{", "not valid JSON"),
        ("x.json", "[]", "0 tasks"),
        ("x.json", '{"tasks": [3]}', "entry 1: must be a JSON object"),
        ("x.json", '{"params": 3}', "params: must be"),
        ("x.json", '{"seed": NaN}', "NaN"),
        ("x.json", "[" * 100_000, "not valid JSON"),
        ("x.zip", "no archive", "no intact zip"),
        ("x.txt", "{}", "neither settings"),
        ("x.mp4", "no video", "x.mp4"),
    ],
)
def test_a_file_of_another_kind_is_refused(desk: Desk, name: str, content: str, said: str) -> None:
    (desk.folder / name).write_text(content)
    message = desk.refused(desk.folder / name)
    assert said in message and f"{name}: {name}" not in message


def test_a_file_that_is_not_there_is_refused(desk: Desk) -> None:
    assert "No such file" in desk.refused(desk.folder / "gone.json")


def test_a_zip_file_without_a_queue_is_refused(desk: Desk) -> None:
    with zipfile.ZipFile(desk.folder / "q.zip", "w") as archive:
        archive.writestr("other.json", "[]")
    assert "queue.json" in desk.refused(desk.folder / "q.zip")


def with_png_text(path: Path, text: str) -> None:
    body = b"iTXtcomment" + bytes(5) + text.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    Image.new("RGB", (8, 8)).save(path)
    bare = path.read_bytes()
    at = bare.index(b"IDAT") - 4
    path.write_bytes(bare[:at] + chunk + bare[at:])


def with_exif(path: Path, text: str) -> None:
    exif = Image.Exif()
    mark = b"ASCII\0\0\0" + text.encode("ascii") if text.isascii() else b"UNICODE\0" + text.encode("utf-16le")
    exif.get_ifd(0x8769)[0x9286] = mark
    Image.new("RGB", (8, 8)).save(path, exif=exif)


def with_container_tag(path: Path, text: str) -> None:
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata["comment"] = text
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 16
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("made.png", with_png_text),
        ("made.jpg", with_exif),
        ("made.webp", with_exif),
        ("made.mp4", with_container_tag),
        ("made.mkv", with_container_tag),
    ],
)
@pytest.mark.parametrize("prompt", ["a cat", "猫が座る"])
def test_an_output_holds_the_settings_that_made_it(
    desk: Desk, name: str, write: Callable[[Path, str], None], prompt: str
) -> None:
    settings = SETTINGS | {"prompt": f"!enhanced!\n{prompt}", "seed": 11, "generation_time": 12.5}
    write(desk.folder / name, json.dumps(settings, ensure_ascii=False))
    (row,) = desk.rows(desk.folder / name)
    assert (row.params["prompt"], row.params["seed"]) == (prompt, 11)


def test_a_file_that_an_output_does_not_hold_is_named_beside_it(desk: Desk, picture: bytes) -> None:
    with_png_text(desk.folder / "made.png", json.dumps(SETTINGS | {"image_prompt_type": "S"}))
    (desk.folder / "first.png").write_bytes(picture)
    (row,) = desk.rows(desk.folder / "made.png", "--media", f"image_start={desk.folder / 'first.png'}")
    assert row.params["image_start"] == str(desk.folder / "first.png")


def test_paths_in_settings_begin_beside_their_file(desk: Desk, picture: bytes) -> None:
    (desk.folder / "first.png").write_bytes(picture)
    (row,) = desk.rows(desk.saved(SETTINGS | {"image_start": "first.png"}))
    assert row.params["image_start"] == str(desk.folder / "first.png") and row.params["image_prompt_type"] == "S"
    assert "image_start" in desk(desk.saved(SETTINGS | {"image_start": "gone.png"}))[2]
