"""A picture in a different perspective, through a whole worker on tiny models: rows, control video, result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perspective_runs import checkpoints_with_pose, rows_with_depth
from travel_shop import Workshop

from headless.generation import ModelInfo
from headless.orchestrator import WanOrchestrator
from headless.testing import FakeOrchestrator
from source.params.base import parse_params
from source.params.perspective import PerspectiveParams
from source.planning.easing import easing
from source.planning.perspective import perspective_tasks
from source.store.types import NewTask, Status, Task
from Wan2GP import wgp
from Wan2GP.drawing.skeleton import SEEN_FROM, draw_skeletons, from_json, interpolated_people
from Wan2GP.media import Frame, probe_image, probe_video, read_frame, read_frames, read_image, resize, write_image

SIZE = (64, 64)
ROW = {
    "prompt": "a red circle moving right", "model": "tiny_wan_vace", "resolution": "64x64", "num_inference_steps": 1,
    "guidance_scale": 1, "seed": 5,
}  # fmt: skip
#: a depth map: far on the left, near on the right
RAMP = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 3, 64, axis=0).repeat(3, axis=2)


#: what is refused before any child is there, and what the message says
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "i2v": ({"model": "tiny_wan_i2v"}, "use a VACE model"),
    "drawn by i2v": ({"image_model_name": "tiny_wan_i2v"}, "image_model_name: tiny_wan_i2v draws no picture"),
    "drawn by rife": ({"image_model_name": "rife"}, "draws no picture from text alone"),
    "post-processed": ({"temporal_upsampling": "rife2"}, "postprocess_video"),
    "no picture": ({"input_image_path": "nowhere.png"}, "input_image_path"),
}


class Studio:
    """What one worker made of all the rows of these tests."""

    def __init__(self, folder: Path, samples: Path) -> None:
        engine = WanOrchestrator(
            checkpoints=checkpoints_with_pose(folder / "ckpts"), definitions=[rows_with_depth(folder)], device="cpu"
        )
        self.shop = Workshop(folder, engine, skip_cleanup=True)
        person = resize(read_image(samples / "astronaut.jpg"), (256, 256))
        moved = np.full_like(person, 200)
        moved[:, 60:] = person[:, :-60]
        self.here, self.there = write_image(folder / "here.png", person), write_image(folder / "there.png", moved)
        self.near, self.far = (write_image(folder / f"{n}.png", RAMP // n) for n in (1, 2))
        self.tasks = {name: self._final(**params) for name, params in self._finals(samples).items()}
        whole = {"input_image_path": str(self.here), "image_model_name": "tiny_wan_t2v"}
        self.tasks |= {name: self._orchestrator(**whole | change) for name, (change, _) in REFUSED.items()}
        self.tasks["interrupted"] = self._orchestrator(**whole)
        self.planned = self._begin(self.tasks["interrupted"])
        self.shop.work()

    def _finals(self, samples: Path) -> dict[str, dict[str, Any]]:
        cat = str(samples / "chelsea.jpg")
        pair = {"input_image_path": str(self.here), "target_image_path": str(self.there)}
        depths = {
            "perspective_type": "depth", "input_image_path": str(self.near), "start_depth_path": str(self.near),
            "end_depth_path": str(self.far), "output_video_frames": 21, "use_mask_for_first_frame": False,
        }  # fmt: skip
        return {
            "linear": pair | {"output_video_frames": 16, "fps_helpers": 10},
            "ease_in": pair | {"easing": "ease_in"},
            "without a mask": pair | {"use_mask_for_first_frame": False},
            "depth": depths,
            "nobody": {"input_image_path": cat, "target_image_path": cat},
            "nobody there": pair | {"target_image_path": cat},
        }

    def _final(self, **params: Any) -> str:
        return self.shop.add("dp_final_gen", ROW | params)

    def _orchestrator(self, **params: Any) -> str:
        return self.shop.add("different_perspective_orchestrator", ROW | params)

    def _begin(self, parent: str) -> tuple[NewTask, ...]:
        """The worker died after some children were there: the rows are the same ones, whoever adds them."""
        row = self.shop.store.get(parent)
        children = perspective_tasks(row, parse_params(PerspectiveParams, row.params).params, "tiny_wan_t2v")
        self.shop.store.add_many(children[:3])
        return children

    def row(self, name: str) -> Task:
        return self.shop.store.get(self.tasks[name])

    def done(self, name: str) -> Task:
        row = self.row(name)
        assert row.status is Status.COMPLETE, row.error_message
        return row

    def scratch(self, name: str) -> Path:
        row = self.done(name)
        [folder] = (self.shop.settings.main_output_dir / row.task_type).glob(f"{row.id}-*")
        return folder

    def guide(self, name: str) -> np.ndarray:
        return frames_of(self.scratch(name) / "perspective_guide.mkv")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("studio"), samples)
    yield studio
    studio.shop.store.close()
    wgp.release_model()
    wgp.configure(definitions=[])


def frames_of(path: Path) -> np.ndarray:
    return np.stack(list(read_frames(path)))


def picture_of(photo: Path) -> Frame:
    return resize(read_image(photo), SIZE)


@pytest.mark.parametrize("curve", ["linear", "ease_in"])
def test_the_pose_moves_from_one_picture_to_the_other(studio: Studio, curve: str) -> None:
    guide, mask = studio.guide(curve), frames_of(studio.scratch(curve) / "perspective_mask.mkv")
    assert guide.shape == mask.shape == (17, 64, 64, 3)
    assert np.array_equal(guide[0], picture_of(studio.here))
    assert not mask[0].any() and (mask[1:] == 255).all()
    people = []
    for answer in sorted(studio.scratch(curve).glob("engine/*.txt"), key=lambda path: path.stat().st_mtime_ns):
        found, (width, height) = from_json(json.loads(answer.read_text()))
        people.append([each.scaled(64 / width, 64 / height) for each in found])
    for number in range(1, 17):
        share = easing(curve)(number / 16)
        drawn = draw_skeletons(interpolated_people(people[0], people[1], share), SIZE, SEEN_FROM)
        assert np.array_equal(guide[number], drawn)
    nose = [interpolated_people(*people, easing(curve)(n / 16))[0].joints["nose"].x for n in (0, 8, 16)]
    assert nose[2] - nose[0] == pytest.approx(15, abs=3)
    assert nose[1] - nose[0] == pytest.approx(7.5 if curve == "linear" else 3.75, abs=1.5)


def test_the_result_is_the_last_frame_and_the_whole_video_stands_beside_it(studio: Studio) -> None:
    row = studio.done("linear")
    made = studio.shop.video(row)
    assert (probe_image(made).width, probe_image(made).height, made.name) == (64, 64, f"{row.id}_perspective.png")
    assert row.result_data is not None
    assert (row.result_data["num_frames"], row.result_data["fps"]) == (17, 10)
    output, video = (studio.shop.folder / "public" / each for each in row.result_data["outputs"])
    assert output == made
    info = probe_video(video)
    assert (info.num_frames, info.fps, info.width, info.height, info.codec) == (17, 10, 64, 64, "h264")
    [generated] = studio.scratch("linear").glob("engine/*.mkv")
    assert np.array_equal(read_image(made), read_frame(generated, -1))
    first, last = (read_frame(generated, n).astype(int) - picture_of(studio.here) for n in (0, -1))
    assert np.abs(first).mean() < np.abs(last).mean()


def test_without_the_mask_the_first_frame_is_a_pose_too(studio: Studio) -> None:
    assert (studio.guide("without a mask")[0] == 0).all(axis=-1).mean() > 0.5
    assert not (studio.scratch("without a mask") / "perspective_mask.mkv").exists()


def test_depth_maps_are_interpolated(studio: Studio) -> None:
    guide = studio.guide("depth")
    assert len(guide) == 21
    assert np.array_equal(guide[0], RAMP) and np.array_equal(guide[-1], RAMP // 2)
    assert (np.diff(guide.mean(axis=(1, 2, 3))) < 0).all()


def test_a_fan_out_that_is_repeated_adds_nothing_and_each_row_runs_once(studio: Studio) -> None:
    store, parent = studio.shop.store, studio.done("interrupted")
    rows = store.children(parent.id)
    assert sorted(each.id for each in rows) == sorted(each.id for each in studio.planned)
    assert all(each.status is Status.COMPLETE for each in rows), [each.error_message for each in rows]
    assert [event.name for each in (parent, *rows) for event in store.events(each.id)].count("complete") == 6
    assert parent.output_location == store.get(studio.planned[-1].id).output_location
    picture, extracted = (studio.shop.video(store.get(studio.planned[n].id)) for n in (1, 2))
    assert np.array_equal(read_image(picture), read_image(extracted))


def failed(row: Task, error_class: str = "bad_input") -> str:
    assert (row.status, row.error_class) == (Status.FAILED, error_class)
    return row.error_message or ""


def test_a_picture_without_people_is_refused_where_poses_are_wanted(studio: Studio) -> None:
    assert failed(studio.row("nobody")).startswith("input_image_path: shows no person")


def test_where_nobody_is_found_in_the_other_picture_the_pose_fades_and_it_says_so(studio: Studio) -> None:
    row, guide = studio.done("nobody there"), studio.guide("nobody there")
    assert any("nobody was found" in warning for warning in studio.shop.warnings(row))
    assert guide[8].any() and not guide[16].any()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_before_any_child(studio: Studio, name: str) -> None:
    row = studio.row(name)
    assert REFUSED[name][1] in failed(row)
    assert not studio.shop.store.children(row.id)


@pytest.mark.parametrize(("architecture", "stills"), [("qwen_image_edit_20B", True), ("ltxv_13B", False)])
def test_a_model_that_takes_the_inputs_but_cannot_be_led_is_refused_before_any_child(
    tmp_path: Path, architecture: str, stills: bool
) -> None:
    inputs = frozenset({"text", "control_video", "mask", "references"})
    model = ModelInfo(name="other", architecture=architecture, inputs=inputs, fps=16, image_output=stills)
    shop = Workshop(tmp_path, FakeOrchestrator([model]))
    near = str(write_image(tmp_path / "near.png", RAMP))
    row = shop.run("different_perspective_orchestrator", ROW | {"input_image_path": near, "model": "other"})
    assert failed(row) == "model: other makes no video of a control video, its mask and a reference; use a VACE model"
    assert not shop.store.children(row.id)
    shop.store.close()


def test_a_model_that_is_not_here_is_named_before_any_child(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, WanOrchestrator(checkpoints=tmp_path / "empty", device="cpu"))
    near = str(write_image(tmp_path / "near.png", RAMP))
    kinds = ({"input_image_path": near, "perspective_type": kind} for kind in ("depth", "pose"))
    tasks = [shop.add("different_perspective_orchestrator", ROW | kind) for kind in kinds]
    shop.work()
    depth, pose = (shop.store.get(task) for task in tasks)
    assert "depth_anything_v2_vitl" in failed(depth, "model_unavailable")
    assert "pose_joints" in failed(pose, "model_unavailable")
    shop.store.close()
