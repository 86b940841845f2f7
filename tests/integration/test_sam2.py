"""SAM 2 on tiny random weights: clicks and boxes become masks, equal to what the library makes of the same pixels.

No real weights are here: that a click selects what was clicked on is the published weights' doing, and not shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import picture
from tiny_models import write_definition
from tiny_sam2 import SIDE, tiny_sam2
from tiny_vision import drop_weights

from headless.generation import CancelToken, GenerationTask, Progress
from headless.model_management import HeadlessTaskQueue
from headless.options import GenerationOptions
from headless.orchestrator import WanOrchestrator
from Wan2GP import wgp
from Wan2GP.engine.masks.edges import drawn
from Wan2GP.errors import GenerationCancelled, InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import probe_video, read_frames, read_image, write_image, write_video

#: more frames than the network's memory reaches
SIZE, FRAMES = (96, 64), 20
CLICK = {"frame": 3, "object": 1, "points": [[20, 30], [80, 50]], "labels": [1, 0]}
BOX = {"frame": 7, "object": 2, "box": [10.5, 8, 60, 40], "points": [[40, 20]]}
WAIT_S = 60.0
#: from pixels of the video to pixels of the network's square
IN_SQUARE = np.array([SIDE / SIZE[0], SIDE / SIZE[1]], np.float32)


@pytest.fixture(autouse=True)
def nothing_resident() -> Iterator[None]:
    """The engine keeps one model a process: it is not left to the next test."""
    yield
    wgp.release_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam2(tmp_path_factory.mktemp("weights") / "sam2")


@pytest.fixture
def engine(tmp_path: Path, folder: Path) -> WanOrchestrator:
    rows = write_definition(tmp_path / "rows", "tiny_sam2", "sam2", folder)
    return WanOrchestrator(checkpoints=tmp_path / "ckpts", definitions=[rows], device="cpu")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A lossless video whose frames go over into each other."""
    first, last = picture(1, *SIZE).astype(float), picture(2, *SIZE).astype(float)
    shares = np.linspace(0, 1, FRAMES)
    frames = (np.rint(first * (1 - share) + last * share).astype(np.uint8) for share in shares)
    return write_video(tmp_path / "control.mkv", frames, fps=12, codec="ffv1").path


@pytest.fixture
def make_task(tmp_path: Path, video: Path) -> Callable[..., GenerationTask]:
    def make(task_id: str, lossless: bool = True, **knobs: Any) -> GenerationTask:
        values = {
            "video_guide": str(video), "video_length": FRAMES, "resolution": "96x64", "force_fps": "control",
            "mask_prompts": [CLICK, BOX],
        }  # fmt: skip
        options = GenerationOptions.parse({name: each for name, each in (values | knobs).items() if each is not None})
        return GenerationTask(
            id=task_id, model="tiny_sam2", options=options, output_dir=tmp_path / task_id, lossless=lossless
        )

    return make


@pytest.fixture
def make_still(tmp_path: Path, make_task: Callable[..., GenerationTask]) -> Callable[..., GenerationTask]:
    shown = write_image(tmp_path / "still.png", picture(5, *SIZE))

    def make(task_id: str, **knobs: Any) -> GenerationTask:
        given = {"video_guide": None, "video_length": None, "force_fps": None, "image_mode": 1}
        prompts = [{"points": [[20, 30]]}]
        return make_task(task_id, **given | {"image_guide": str(shown), "mask_prompts": prompts} | knobs)

    return make


def still(engine: WanOrchestrator, task: GenerationTask) -> Path:
    engine.prepare(task)
    (file,) = engine.generate(task, lambda progress: None, CancelToken()).written()
    return file


def masks(engine: WanOrchestrator, task: GenerationTask) -> np.ndarray:
    """The first channel of each frame, (F, H, W)."""
    engine.prepare(task)
    (file,) = engine.generate(task, lambda progress: None, CancelToken()).written()
    return np.stack([frame[..., 0] for frame in read_frames(file)])


def seen_by_the_library(frame: np.ndarray) -> Any:
    """A frame as the network takes it, by torch alone."""
    import torch

    values = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None]
    square = torch.nn.functional.interpolate(values, (SIDE, SIDE), mode="bilinear", antialias=True)[0] / 255.0
    mean, deviation = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (square - mean) / deviation


def library_logits(folder: Path, video: Path, frame: int, points: Any, labels: Any) -> dict[int, Any]:
    """Frame -> mask logits of one object, followed by the library itself through the whole video in memory."""
    import torch
    from transformers import Sam2VideoModel
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    model = Sam2VideoModel.from_pretrained(folder).eval()
    pixels = torch.stack([seen_by_the_library(each) for each in read_frames(video)])
    found = {}
    for reverse in (False, True):
        session = Sam2VideoInferenceSession(video=pixels, video_height=64, video_width=96, dtype=torch.float32)
        inputs = {
            "point_coords": torch.from_numpy(np.array(points, np.float32) * IN_SQUARE)[None, None],
            "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
        }
        session.add_point_inputs(session.obj_id_to_idx(1), frame, inputs)
        session.obj_with_new_inputs = [1]
        model(session, frame_idx=frame)
        for out in model.propagate_in_video_iterator(session, start_frame_idx=frame, reverse=reverse):
            found[out.frame_idx] = out.pred_masks
    return found


def enlarged(logits: Any) -> np.ndarray:
    import torch

    return torch.nn.functional.interpolate(logits, SIZE[::-1], mode="bilinear")[0, 0].numpy() > 0


def test_two_objects_are_followed_both_ways_as_the_library_follows_each(engine, make_task, folder, video) -> None:
    clicked = library_logits(folder, video, 3, [[20, 30], [80, 50]], [1, 0])
    boxed = library_logits(folder, video, 7, [[10.5, 8], [60, 40], [40, 20]], [2, 3, 1])
    assert set(clicked) == set(boxed) == set(range(FRAMES))
    wanted = np.stack([enlarged(clicked[number]) | enlarged(boxed[number]) for number in range(FRAMES)])
    made = masks(engine, make_task("both"))
    assert set(np.unique(made)) == {0, 255}
    assert np.array_equal(made > 0, wanted)
    shares = wanted.mean(axis=(1, 2))
    assert shares.min() > 0.05 and shares.max() < 0.95, "masks that say something"
    assert any((before != after).any() for before, after in pairwise(wanted)), "and that move"


def test_the_logits_are_the_librarys_and_memory_is_bounded(folder: Path, video: Path) -> None:
    import torch
    from transformers import Sam2VideoModel

    from Wan2GP.engine.masks.sam2_tracking import Tracker
    from Wan2GP.mask_prompts import parse_mask_prompts, placed

    model = Sam2VideoModel.from_pretrained(folder).eval()
    tracker = Tracker(model, "cpu", placed(parse_mask_prompts([CLICK]), FRAMES, *SIZE), FRAMES)
    frames = list(read_frames(video))
    tracker.learn(3, frames[3])
    found = {number: tracker.backwards(number, frames[number])[0] for number in (2, 1, 0)}
    tracker.turn()
    held = []
    for number in range(3, FRAMES):
        found[number] = tracker.forwards(number, frames[number])[0]
        memory = tracker._followers[0].session.output_dict_per_obj[0]
        held.append(len(memory["non_cond_frame_outputs"]))
        assert all("high_res_masks" not in each for kind in memory.values() for each in kind.values())
    assert max(held) == model.config.max_object_pointers_in_encoder
    wanted = library_logits(folder, video, 3, [[20, 30], [80, 50]], [1, 0])
    for number, logits in found.items():
        torch.testing.assert_close(logits, wanted[number], rtol=0, atol=1e-5)
    assert all((wanted[number] - wanted[number + 1]).abs().max() > 1e-3 for number in range(FRAMES - 1))


@pytest.mark.parametrize(
    ("points", "labels"), [([[20, 30]], [1]), ([[20, 30], [80, 50]], [1, 0])], ids=["one click", "two clicks"]
)
def test_a_still_gets_the_mask_of_the_librarys_image_model(engine, make_still, folder, points, labels) -> None:
    import torch
    from transformers import Sam2Model

    file = still(engine, make_still("still", mask_prompts=[{"points": points, "labels": labels}]))
    model = Sam2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        made = model(
            pixel_values=seen_by_the_library(picture(5, *SIZE))[None],
            input_points=torch.from_numpy(np.array(points, np.float32) * IN_SQUARE)[None, None],
            input_labels=torch.tensor(labels)[None, None],
            multimask_output=len(points) == 1,
        )
    best = made.pred_masks[0, 0, made.iou_scores[0, 0].argmax()]
    mask = read_image(file)
    assert file.suffix == ".png" and mask.shape == (64, 96, 3)
    assert np.array_equal(mask[..., 0] > 0, enlarged(best[None, None]))
    assert 0.02 < (mask > 0).mean() < 0.98


def test_letter_n_selects_the_rest_and_a_feather_fades_the_edge_alone(engine, make_task, make_still) -> None:
    short = {"mask_prompts": [CLICK], "video_length": 5}
    hard = masks(engine, make_task("a", **short))
    rest = masks(engine, make_task("b", video_prompt_type="VN", **short))
    assert np.array_equal(hard, 255 - rest)
    mask = read_image(still(engine, make_still("c")))[..., 0]
    soft = read_image(still(engine, make_still("d", mask_feather=3)))[..., 0]
    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(soft > 127, mask > 127), "the edge stays where it is"
    assert np.count_nonzero((soft > 0) & (soft < 255)) and np.array_equal(soft, drawn(mask > 0, 3)[..., 0])


def test_size_rate_and_count_are_those_asked_for(engine, make_task, make_still) -> None:
    with HeadlessTaskQueue(engine) as queue:
        task = make_task("a", lossless=False, video_length=9, resolution="50x38")
        info = probe_video(queue.submit(task).result(timeout=WAIT_S).output)
        assert (info.num_frames, info.width, info.height, float(info.fps)) == (9, 50, 38, 12.0)
        small = queue.submit(make_still("c", resolution="33x47")).result(timeout=WAIT_S).output
        assert read_image(small).shape == (47, 33, 3)
        assert queue.statistics().model_loads == 1


@pytest.mark.parametrize(
    ("error", "reason", "knobs"),
    [
        (InvalidInput, "mask_prompts: is missing", {"mask_prompts": None}),
        (InvalidInput, "no frame 20; there are 20", {"mask_prompts": [CLICK | {"frame": 20}]}),
        (InvalidInput, r"\(96.5, 3\) lies outside the picture of 96x64", {"mask_prompts": [{"points": [[96.5, 3]]}]}),
        (InvalidInput, "a second box around object 2", {"mask_prompts": [BOX, BOX]}),
        (InvalidInput, "video_length: 21 frames", {"video_length": 21}),
        (InvalidInput, "video_guide: is missing", {"video_guide": None}),
        (InvalidInput, "image_guide: is missing", {"image_mode": 1, "video_guide": None}),
        (Unsupported, "the letters VN alone", {"video_prompt_type": "VA"}),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused_with_its_reason(engine, make_task, error, reason, knobs) -> None:
    with pytest.raises(error, match=reason):
        engine.prepare(make_task("a", **knobs))


@pytest.mark.parametrize("phase", ["encoding", "decoding"])
def test_a_cancelled_run_stops_at_the_next_frame_and_harms_no_other(engine, make_task, tmp_path, phase) -> None:
    cancel, steps = CancelToken(), []

    def listen(progress: Progress) -> None:
        if progress.phase == phase:
            steps.append(progress.step)
            if progress.step == 2:
                cancel.cancel()

    with pytest.raises(GenerationCancelled):
        engine.generate(make_task("a"), listen, cancel)
    assert steps == [1, 2] and not list((tmp_path / "a").glob("*"))
    assert len(masks(engine, make_task("b", video_length=8))) == 8


def test_missing_and_unfitting_weights_say_how_to_fetch_them(tmp_path: Path, folder: Path, make_task) -> None:
    for name in ("sam2_hiera_large", "sam2_hiera_tiny"):
        reason = WanOrchestrator(checkpoints=tmp_path, device="cpu").describe(name).unavailable or ""
        assert f"python -m Wan2GP.models fetch {name}" in reason
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    rows = write_definition(tmp_path / "rows", "tiny_sam2", "sam2", damaged)
    lacking = drop_weights(damaged)
    with pytest.raises(ModelUnavailable, match=f"it lacks {lacking}"):
        WanOrchestrator(checkpoints=tmp_path, definitions=[rows], device="cpu").load_model("tiny_sam2", print)


def test_a_released_model_leaves_memory(engine) -> None:
    import gc

    from transformers import Sam2VideoModel

    engine.load_model("tiny_sam2", lambda progress: None)
    engine.unload_model()
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is Sam2VideoModel]
