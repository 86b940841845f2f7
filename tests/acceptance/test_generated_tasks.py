"""scripts/generate_test_tasks.py: rows with synthetic pictures, run by a worker, their videos measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import generate_test_tasks
import synthetic_scenes

from source.store.sqlite import SqliteStore
from Wan2GP.media import VideoInfo, probe_image, probe_video

SMALL = ("--model", "draft", "--frames", "17", "--overlap", "4", "--size", "96x64")
TRAVELS = {"one_image": 17, "three_images": 34, "continue_to_one": 34, "continue_to_two": 51}


def generate(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/generate_test_tasks.py", *words]
    return subprocess.run(command, cwd=root, text=True, capture_output=True)


def test_the_usual_rows_are_the_four_travels_of_the_predecessor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate_test_tasks.main(["one_image", "continue_to_two", "--folder", str(tmp_path)]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert tuple(TRAVELS) == synthetic_scenes.TRAVELS
    assert [file.parent.name for file in files] == ["one_image", "continue_to_two"]
    details = [json.loads(file.read_text())["orchestrator_details"] for file in files]
    assert [each["num_new_segments_to_generate"] for each in details] == [1, 2]
    for each in details:
        assert set(each["segment_frames_expanded"]) == {81}
        assert set(each["frame_overlap_expanded"]) <= {12}
        assert (each["seed_base"], each["parsed_resolution_wh"], each["model_name"]) == (11111, "500x500", "vace_14B")
        assert {probe_image(path).width for path in each["input_image_paths_resolved"]} == {500}
    assert probe_video(details[1]["continue_from_video_resolved_path"]).num_frames == 81


@pytest.mark.slow
def test_all_are_listed_and_printed_and_none_is_queued(root: Path, tmp_path: Path) -> None:
    names = [line.split()[0] for line in generate(root, "--list").stdout.splitlines()]
    answer = generate(root, "--all", "--dry-run", "--folder", str(tmp_path / "made"), *SMALL)
    assert answer.returncode == 0, answer.stderr
    refused = {"uni3c_basic", "uni3c_strength_test", "travel_orchestrator_uni3c"}
    assert {row["name"] for row in json.loads(answer.stdout)} == set(names) - refused
    assert {line.split()[0] for line in answer.stderr.splitlines()} == refused
    assert set(TRAVELS) | {"uni3c_baseline", "qwen_image_style"} <= {row["name"] for row in json.loads(answer.stdout)}
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(names)


def test_a_name_that_there_is_not_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate_test_tasks.main(["four_images", "--folder", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert (out, list(tmp_path.iterdir())) == ("", [])
    assert "'four_images'" in err and "three_images" in err


@pytest.fixture
def database(root: Path, tmp_path: Path) -> Iterator[Path]:
    """A database at which a worker works."""
    path = tmp_path / "tasks.db"
    SqliteStore(path).close()
    worker = subprocess.Popen(
        [sys.executable, "worker.py", "--db-file", str(path), "--main-output-dir", str(tmp_path / "outputs")],
        cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield path
    worker.terminate()
    worker.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_worker_runs_them_and_each_video_has_its_frames(
    root: Path, tmp_path: Path, database: Path, samples: Path
) -> None:
    where = ("--folder", str(tmp_path / "made"), "--db-file", str(database))
    answer = generate(root, *SMALL, *where, "--wait", "--timeout", "120")
    assert answer.returncode == 0, answer.stderr
    for name, frames in TRAVELS.items():
        made = probe_video(tmp_path / "made" / name / "result.mp4")
        assert (made.num_frames, made.width, made.height) == (frames, 96, 64), name
    # the two example scripts, at the same worker
    joined = example(
        root, "join_clips", database, tmp_path / "joined.mp4", "--clip1", str(samples / "bbb_416x240_49f.mp4"),
        "--clip2", str(samples / "bbb_320x180_audio.mp4"), "--gap-frames", "21", "--resolution", "320x176",
    )  # fmt: skip
    assert (joined.num_frames, joined.width, joined.height) == (31 + 21 + 32, 320, 176)
    source = samples / "bbb_320x180_keyframes.mp4"
    mended = example(
        root, "inpaint_frames", database, tmp_path / "mended.mp4", "--video", str(source), "--start-frame", "20",
        "--end-frame", "33",
    )  # fmt: skip
    assert mended.num_frames == probe_video(source).num_frames


def example(root: Path, name: str, database: Path, output: Path, *words: str) -> VideoInfo:
    """What scripts/NAME_example.py wrote, with the draft model."""
    usual = (
        "--output",
        str(output),
        "--db-file",
        str(database),
        "--prompt",
        "x",
        "--model",
        "draft",
        "--timeout",
        "60",
    )
    command = [sys.executable, f"scripts/{name}_example.py", *words, *usual]
    made = subprocess.run(command, cwd=root, text=True, capture_output=True)
    assert (made.returncode, made.stdout) == (0, f"{output}\n"), made.stderr
    return probe_video(output)
