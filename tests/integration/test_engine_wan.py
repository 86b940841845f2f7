"""Wan text-to-video end to end on tiny random weights: the real classes, the real call."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from engine_runs import run_engine
from tiny_models import tiny_wan_t2v, write_definition

from Wan2GP import wgp
from Wan2GP.engine.families import Cancel
from Wan2GP.engine.request import parse_request
from Wan2GP.engine.residency.budgets import Budgets
from Wan2GP.engine.wan.model import Wan
from Wan2GP.errors import InvalidInput, ModelUnavailable, Unsupported
from Wan2GP.media import read_image

CLIP = {"model_type": "tiny", "prompt": "a red circle", "resolution": "64x64", "video_length": 17, "seed": 5}
STEPS = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tiny_wan_t2v(tmp_path_factory.mktemp("tiny_wan"))


@pytest.fixture(autouse=True)
def engine(weights: Path, tmp_path: Path):
    folder = write_definition(
        tmp_path / "models", "tiny", "t2v_1.3B", weights, num_inference_steps=STEPS, guidance_scale=3, flow_shift=5
    )
    wgp.configure(checkpoints=tmp_path / "ckpts", definitions=[folder], save_path=tmp_path / "out", device="cpu")
    yield
    wgp.release_model()
    wgp.configure(definitions=[])


def parts():
    return wgp.wan_model._parts


def frames_of(**values) -> np.ndarray:
    """The frames as the model hands them over, before they are encoded. Loads nothing when the model is resident."""
    if wgp.transformer_type != CLIP["model_type"]:
        wgp.load_models(CLIP["model_type"])
    request = parse_request(CLIP | values, wgp.definitions()[CLIP["model_type"]], Wan.reads, Path("loras"))
    return np.stack(list(wgp.wan_model.generate(request, lambda *_: None, Cancel(lambda: False))))


@pytest.mark.parametrize(("asked", "made"), [(5, 5), (17, 17), (20, 21)])
def test_frames_are_exact(asked, made):
    frames = run_engine(**CLIP | {"video_length": asked}).frames()
    assert frames.shape == (made, 64, 64, 3)
    assert frames.std() > 5


def test_the_same_seed_gives_the_same_frames_and_another_does_not():
    first, again, other = (frames_of(seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_knobs_reach_the_model():
    base = run_engine(**CLIP).frames()
    for knob in (
        {"guidance_scale": 9.0},
        {"flow_shift": 1.0},
        {"prompt": "a blue square"},
        {"negative_prompt": "ring"},
    ):
        assert not np.array_equal(frames_of(**knob), base), knob
    run = run_engine(**CLIP, num_inference_steps=7)
    assert [data[0] for data in run.data("progress") if data[1] == "denoising"] == [(n, 7) for n in range(8)]


def test_progress_goes_through_all_phases_once_in_order():
    phases = [data[1] for data in run_engine(**CLIP).data("progress")]
    assert list(dict.fromkeys(phases)) == ["loading", "encoding", "denoising", "decoding", "saving"]
    assert phases.count("denoising") == STEPS + 1


@pytest.mark.parametrize(("phase", "step"), [("encoding", 1), ("denoising", 2), ("denoising", STEPS)])
def test_cancel_stops_before_decoding_and_the_next_run_is_unharmed(tmp_path: Path, phase, step):
    whole = frames_of()

    def stop(command, data, state):
        if command == "progress" and data[1] == phase and data[0][0] == step:
            wgp.abort_generation(state)

    run = run_engine(stop, **CLIP)
    assert run.returned and run.files == [] and run.data("error") == []
    assert "decoding" not in [data[1] for data in run.data("progress")]
    assert list((tmp_path / "out").iterdir()) == []
    assert np.array_equal(frames_of(), whole)


def test_the_model_stays_resident_between_runs():
    run_engine(**CLIP)
    resident = parts()
    assert not run_engine(**CLIP).data("status")
    assert parts() is resident


def test_release_drops_every_weight():
    run_engine(**CLIP)
    held = [weakref.ref(part) for part in (parts().transformer, parts().vae, parts().text_encoder)]
    wgp.release_model()
    assert [part() for part in held] == [None, None, None]


@pytest.mark.parametrize("ram_bytes", [None, 0])
def test_another_model_lets_the_one_before_stand_by_where_the_budget_has_room(ram_bytes):
    wgp.configure(budgets=Budgets(host_bytes=ram_bytes))
    try:
        run_engine(**CLIP)
        transformer = weakref.ref(parts().transformer)
        run_engine(model_type="draft", image_start=np.zeros((48, 64, 3), np.uint8), resolution="64x48", video_length=5)
        assert (transformer() is None) == (ram_bytes == 0)
        assert wgp.transformer_type == "draft"
    finally:
        wgp.configure(budgets=Budgets())


def test_image_mode_makes_stills():
    run = run_engine(**CLIP, image_mode=1, batch_size=2)
    stills = [read_image(file) for file in run.files]
    assert [file.suffix for file in run.files] == [".png", ".png"]
    assert all(still.shape == (64, 64, 3) for still in stills)
    assert not np.array_equal(*stills)


def test_nothing_is_written_to_the_terminal(capfd):
    wgp.release_model()
    run_engine(**CLIP)
    out, err = capfd.readouterr()
    assert "it/s" not in out + err and "%|" not in out + err


def test_what_it_cannot_honour_is_refused():
    with pytest.raises(InvalidInput, match=r"there is no LoRA .*style\.safetensors"):
        run_engine(**CLIP, activated_loras=["style.safetensors"])
    with pytest.raises(Unsupported, match="image_start"):
        run_engine(**CLIP, image_start=np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InvalidInput, match=r"sample_solver.*choose one of unipc, euler"):
        run_engine(**CLIP, sample_solver="heun")
    assert run_engine(**CLIP, motion_amplitude=1.2).data("info") == ["ignored by tiny: motion_amplitude"]


def test_damaged_weights_are_an_error_that_names_the_model(weights: Path, tmp_path: Path):
    copy = tmp_path / "damaged"
    shutil.copytree(weights, copy)
    next(copy.glob("transformer/*.safetensors")).unlink()
    wgp.configure(definitions=[write_definition(tmp_path / "more", "damaged", "t2v", copy)])
    with pytest.raises(ModelUnavailable, match="damaged"):
        run_engine(**CLIP | {"model_type": "damaged"})
    assert wgp.wan_model is None


def cut_short(folder: Path) -> None:
    weights = next(folder.glob("transformer/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])


def one_layer_more(folder: Path) -> None:
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 3}))


@pytest.mark.parametrize("harm", [cut_short, one_layer_more])
def test_weights_that_do_not_load_say_what_to_do(weights: Path, tmp_path: Path, harm):
    copy = shutil.copytree(weights, tmp_path / "damaged")
    harm(copy)
    wgp.configure(definitions=[write_definition(tmp_path / "more", "damaged", "t2v", copy)])
    with pytest.raises(ModelUnavailable, match="put a whole diffusers folder there"):
        run_engine(**CLIP | {"model_type": "damaged"})
    assert wgp.wan_model is None


def test_a_missing_part_is_found_before_anything_is_loaded(weights: Path, tmp_path: Path):
    copy = tmp_path / "partial"
    copy.mkdir()
    shutil.copy(weights / "model_index.json", copy)
    assert "vae" in json.loads((copy / "model_index.json").read_text())
    wgp.configure(definitions=[write_definition(tmp_path / "more", "partial", "t2v", copy)])
    with pytest.raises(ModelUnavailable, match="is missing"):
        run_engine(**CLIP | {"model_type": "partial"})
