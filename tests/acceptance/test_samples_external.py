"""The samples of the task types that use other programs, run by a worker as a user runs it."""

from __future__ import annotations

from pathlib import Path

from box import Box
from comfy_shop import asked, comfy_folder

from Wan2GP.media import probe_video

SAMPLES = ("comfy",)


def test_the_comfy_sample_gives_the_video_to_the_workflow_and_publishes_its_result(root: Path, tmp_path: Path) -> None:
    folder = comfy_folder(tmp_path / "ComfyUI")
    box = Box(root, tmp_path)
    sample = box.sample("comfy")
    task = box.add("comfy", sample)
    box.work(COMFY_PATH=str(folder), COMFY_PORT="0")
    view = box.view(task)
    assert view["status"] == "Complete", view
    [prompt] = asked(folder, "prompt")
    assert prompt["prompt"]["1"]["inputs"]["file"].endswith(Path(sample["video_url"]).name)
    assert probe_video(box.video(view)).num_frames == 50
    assert box.video(view).read_bytes() == (root / sample["video_url"]).read_bytes()
