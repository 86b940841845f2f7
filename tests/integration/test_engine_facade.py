"""`Wan2GP.wgp` from outside, with the draft model: files, events, errors, cancel, residency."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from engine_runs import grey_video, picture, run_engine
from skimage.metrics import structural_similarity

from Wan2GP import wgp
from Wan2GP.errors import InvalidInput, InvalidMedia, ModelUnavailable, UnknownModel, Unsupported
from Wan2GP.media import probe_video, read_image, resize

START, END = picture(1), picture(2)
DRAFT = {
    "model_type": "draft",
    "image_start": START,
    "image_end": END,
    "resolution": "64x48",
    "video_length": 9,
    "prompt": "a walk / in the park",
    "seed": 42,
}


@pytest.fixture(autouse=True)
def engine(tmp_path: Path):
    wgp.configure(checkpoints=tmp_path / "ckpts", definitions=[], save_path=tmp_path / "out", device="cpu")
    yield
    wgp.release_model()


def test_photos_become_a_video_that_passes_through_them(samples: Path):
    size = (208, 112)
    run = run_engine(
        model_type="draft",
        image_start=str(samples / "astronaut.jpg"),
        image_end=str(samples / "chelsea.jpg"),
        resolution="208x112",
        video_length=24,
    )
    frames = run.frames()
    assert run.returned and len(run.files) == 1
    assert frames.shape == (25, 112, 208, 3)
    for frame, name in ((frames[0], "astronaut.jpg"), (frames[-1], "chelsea.jpg")):
        photo = resize(read_image(samples / name), size)
        assert structural_similarity(frame, photo, channel_axis=2) > 0.9


def test_the_file_is_named_by_time_seed_and_prompt_and_is_alone(tmp_path: Path):
    run = run_engine(**DRAFT)
    (file,) = run.files
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d\dh\d\dm\d\ds_seed42_a_walk_in_the_park\.mp4", file.name)
    assert list((tmp_path / "out").iterdir()) == [file]
    assert probe_video(file).fps == 16


def test_files_are_never_overwritten(tmp_path: Path):
    files = [run_engine(**DRAFT).files[0] for _ in range(4)]
    assert len(set(files)) == 4 and all(file.stat().st_size for file in files)


def test_events_tell_the_whole_story():
    run = run_engine(**DRAFT)
    assert run.events[0] == ("status", "Loading model Draft")
    progress = [data for data in run.data("progress") if data[1] == "decoding"]
    assert [data[0] for data in progress] == [(number, 9) for number in range(1, 10)]
    assert "ignored by draft: prompt, seed" in run.data("info")
    assert run.events[-1] == ("output", None)
    assert {name for name, _ in run.events} <= {"status", "progress", "preview", "output", "info", "error"}


def test_a_model_is_loaded_once_for_many_runs():
    first, second = run_engine(**DRAFT), run_engine(**DRAFT)
    assert first.data("status") and not second.data("status")
    assert wgp.transformer_type == "draft"
    wgp.reload_needed = True
    assert run_engine(**DRAFT).data("status")


def test_release_forgets_the_model():
    run_engine(**DRAFT)
    wgp.release_model()
    assert wgp.wan_model is None and wgp.offloadobj is None and wgp.transformer_type == ""


def test_repeats_make_one_file_each_with_a_new_seed():
    run = run_engine(**DRAFT, repeat_generation=3)
    seeds = [re.search(r"seed(\d+)", file.name)[1] for file in run.files]
    assert seeds[0] == "42" and len(set(seeds)) == 3


@pytest.mark.parametrize("way", ["flag", "interrupt", "helper"])
def test_cancel_mid_run_leaves_no_file_and_no_trace(tmp_path: Path, way: str):
    def stop(command, data, state):
        if command == "progress" and data[1] == "decoding" and data[0][0] == 3:
            if way == "flag":
                state["gen"]["abort"] = True
            elif way == "interrupt":
                wgp.wan_model._interrupt = True
            else:
                wgp.abort_generation(state)

    run = run_engine(stop, **DRAFT)
    assert run.returned and run.files == [] and run.data("error") == []
    assert list((tmp_path / "out").iterdir()) == []
    assert run.events[-1] == ("output", None)
    assert len([data for data in run.data("progress") if data[1] == "decoding"]) == 3
    assert len(run_engine(**DRAFT).frames()) == 9


def test_an_abort_from_before_the_call_returns_at_once():
    events = []
    state = {"gen": {"abort": True}}
    assert wgp.generate_media(state=state, send_cmd=lambda *event: events.append(event), **DRAFT)
    assert state["gen"]["file_list"] == []
    assert not [event for event in events if event[0] == "progress" and event[1][1] == "decoding"]


def test_faults_found_before_the_run_are_raised():
    with pytest.raises(UnknownModel, match="'draft'"):
        run_engine(model_type="drafd")
    with pytest.raises(ModelUnavailable, match=r"flux.*is missing.*models that work here: .*draft"):
        run_engine(model_type="flux", prompt="x")
    with pytest.raises(Unsupported, match="image_refs"):
        run_engine(**DRAFT, image_refs=[START])
    with pytest.raises(Unsupported, match="mode"):
        run_engine(**DRAFT, mode="edit_remux")
    with pytest.raises(InvalidInput, match="model"):
        run_engine()


def test_damaged_media_are_named(tmp_path: Path):
    broken = tmp_path / "start.png"
    broken.write_text("no picture")
    with pytest.raises(InvalidMedia, match=r"start\.png"):
        run_engine(**DRAFT | {"image_start": str(broken)})


def test_a_failure_in_the_run_is_an_error_event_with_its_exception(tmp_path: Path):
    guide, mask = grey_video(tmp_path / "g.mkv", [90] * 9), grey_video(tmp_path / "m.mkv", [255] * 9)
    values = {"model_type": "draft", "video_guide": str(guide), "video_mask": str(mask)}
    run = run_engine(**values, resolution="64x48", video_length=9)
    (error,) = run.data("error")
    assert run.returned is False and run.files == []
    assert isinstance(error, InvalidInput) and "nothing to keep" in str(error)


def test_a_call_can_be_checked_without_a_model():
    assert wgp.check_generation(**DRAFT) == ("ignored by draft: prompt, seed",)
    assert wgp.wan_model is None
    with pytest.raises(Unsupported):
        wgp.check_generation(model_type="draft", prompt="x")


def test_model_functions_answer_from_the_definitions():
    assert wgp.get_base_model_type("wan_2_2_vace_lightning_baseline_2_2_2") == "vace_14B"
    assert wgp.get_base_model_type("nothing") is None
    assert wgp.test_vace_module("vace_14B") and not wgp.test_vace_module("t2v")
    assert wgp.test_class_i2v("i2v_14B") and not wgp.test_class_i2v("t2v")
    assert wgp.get_model_min_frames_and_step("ltxv_13B") == (17, 8)
    assert wgp.get_model_fps("hunyuan") == 24
    assert wgp.get_model_family("t2v_2_2") == "wan"
    assert wgp.get_model_filename("draft") == "" and wgp.get_model_filename("vace_14B").endswith("vace_14B")
    assert wgp.get_default_settings("t2v_2_2")["flow_shift"] == 12
    assert wgp.get_default_settings("t2v_2_2")["batch_size"] == 1
    assert wgp.models_def["vace_1.3B"]["vace_class"] is True


def test_the_record_of_a_file_holds_the_seed_it_was_made_with():
    state = {"gen": {}}
    wgp.generate_media(state=state, **DRAFT | {"seed": -1}, repeat_generation=2)
    named = [int(re.search(r"seed(\d+)", file)[1]) for file in state["gen"]["file_list"]]
    assert [record["seed"] for record in state["gen"]["file_settings_list"]] == named


def test_a_dissolve_is_told_as_info(samples: Path):
    photos = {"image_start": str(samples / "coffee.jpg"), "image_end": str(samples / "rocket.jpg")}
    run = run_engine(**DRAFT | photos | {"resolution": "208x112"})
    assert "frames 1-7: the pictures show different scenes; dissolved" in run.data("info")


def test_what_callers_do_to_a_definition_harms_no_later_run(tmp_path: Path):
    (tmp_path / "rows").mkdir()
    row = {"model": {"name": "Mine", "architecture": "draft", "resolutions": ["64x48"]}, "slg_layers": [9]}
    (tmp_path / "rows" / "mine.json").write_text(json.dumps(row))
    wgp.configure(definitions=[tmp_path / "rows"])
    wgp.get_model_def("mine")["resolutions"].clear()
    wgp.get_default_settings("mine")["slg_layers"].append(4)
    assert wgp.get_model_def("mine")["resolutions"] == ["64x48"]
    assert wgp.get_default_settings("mine")["slg_layers"] == [9]
