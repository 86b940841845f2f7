"""The samples of the task types that use other programs, run by a worker as a user runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from box import Box
from comfy_shop import asked, comfy_folder
from replicate_site import COLOUR, TOKEN, replicate_site
from same_media import same_media
from stock_runs import TinyWeights
from tiny_flux import tiny_kontext

from Wan2GP.media import probe_image, probe_video, read_image

SAMPLES = ("comfy", "magic_edit", "magic_edit.local")


@pytest.fixture
def box(root: Path, tmp_path: Path) -> Box:
    return Box(root, tmp_path)


def test_the_comfy_sample_gives_the_video_to_the_workflow_and_publishes_its_result(box: Box, root: Path) -> None:
    folder = comfy_folder(box.folder / "ComfyUI")
    sample = box.sample("comfy")
    task = box.add("comfy", sample)
    box.work(COMFY_PATH=str(folder), COMFY_PORT="0")
    view = box.view(task)
    assert view["status"] == "Complete", view
    [prompt] = asked(folder, "prompt")
    assert prompt["prompt"]["1"]["inputs"]["file"].endswith(Path(sample["video_url"]).name)
    assert probe_video(box.video(view)).num_frames == 50
    assert same_media(box.video(view), root / sample["video_url"])


def test_the_magic_edit_sample_hands_its_image_over_and_publishes_what_comes_back(box: Box) -> None:
    with replicate_site() as site:
        task = box.add("magic_edit", box.sample("magic_edit"))
        box.work(REPLICATE_API_TOKEN=TOKEN, REPLICATE_BASE_URL=site.url)
    view = box.view(task)
    assert view["status"] == "Complete", view
    assert (read_image(box.video(view)) == COLOUR).all()
    [run] = site.runs.values()
    assert (run.given["seed"], run.given["input_image"]) == (42, f"{site.url}/v1/files/file1")
    assert run.given["lora_weights"].endswith("/InScene-v1.0.safetensors")


def test_the_local_magic_edit_sample_looks_at_its_image(box: Box) -> None:
    """On random weights: the size is the one asked for, and another image makes another picture."""
    TinyWeights({"flux_dev_kontext": tiny_kontext}, lambda name: box.folder / name).write_rows(
        box.folder / "rows", "flux_dev_kontext"
    )
    sample = box.sample("magic_edit.local")
    tasks = [box.add("magic_edit", sample | change) for change in ({}, {"image_url": "samples/chelsea.jpg"})]
    box.work(FINETUNES=str(box.folder / "rows"), DEVICE="cpu")
    views = [box.view(task) for task in tasks]
    assert [view["status"] for view in views] == ["Complete"] * 2, views[0]
    made = [box.video(view) for view in views]
    info = probe_image(made[0])
    assert (info.format, info.width, info.height) == ("png", 384, 256)
    assert not np.array_equal(*(read_image(path) for path in made))
