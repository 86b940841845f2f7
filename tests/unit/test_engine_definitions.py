"""Model definitions: rows of data, their faults, and whether a model can run here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from Wan2GP.definitions import ARCHITECTURES, DEFAULTS_DIR, availability, load_definitions
from Wan2GP.engine.families import FAMILIES
from Wan2GP.errors import InvalidInput, UnknownModel

REQUIRED = {
    "draft", "hunyuan", "ltxv_13B", "flux",
    "t2v", "t2v_1.3B", "t2v_2_2", "moviigen", "t2v_fusionix", "t2v_sf",
    "i2v", "i2v_720p", "i2v_fusionix", "i2v_2_2", "i2v_2_2_svi2pro", "flf2v_720p", "fun_inp", "fun_inp_1.3B",
    "vace_1.3B", "vace_14B", "vace_14B_cocktail", "vace_14B_fusionix", "vace_14B_sf",
    "vace_14B_2_2", "vace_14B_cocktail_2_2", "vace_14B_lightning_3p_2_2",
    "phantom_1.3B", "phantom_14B", "recam_1.3B", "fantasy", "sky_df_1.3B", "sky_df_14B", "sky_df_720p_14B",
    "ti2v_2_2", "ti2v_2_2_fastwan",
    "wan_2_2_vace_lightning_baseline_2_2_2", "wan_2_2_vace_lightning_baseline_3_3",
    "wan_2_2_i2v_lightning_baseline_2_2_2", "wan_2_2_i2v_lightning_baseline_3_3",
}  # fmt: skip


def write(folder: Path, name: str, document: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_the_shipped_rows_are_there_and_sound():
    found = set(load_definitions())
    assert found >= REQUIRED
    assert found == {path.stem for path in DEFAULTS_DIR.glob("*.json")}


def test_every_engine_that_an_architecture_names_exists():
    assert {a.engine for a in ARCHITECTURES.values() if a.engine} == set(FAMILIES)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UnknownModel, match=r"'vace_15B'.*'vace_14B'"):
        load_definitions()["vace_15B"]
    with pytest.raises(UnknownModel, match="There are: canny, depth_anything_v2_vitl, draft"):
        load_definitions()["zzzzzz"]


def test_aliases_lead_to_the_same_row():
    known = load_definitions()
    assert known["i2v_14B"] is known["i2v"]
    assert "i2v_14B" in known and "i2v_14B" not in list(known)


def test_a_user_file_of_the_same_name_overrides_property_by_property(tmp_path: Path):
    folder = write(tmp_path, "t2v", {"model": {"name": "Mine"}, "guidance_scale": 2})
    mine, shipped = load_definitions([folder])["t2v"], load_definitions()["t2v"]
    assert mine.name == "Mine" and mine.source == shipped.source
    assert mine.settings["guidance_scale"] == 2
    assert mine.settings["flow_shift"] == shipped.settings["flow_shift"]


def test_references_are_followed_to_the_owner_of_the_weights(tmp_path: Path):
    write(tmp_path, "a", {"model": {"name": "A", "architecture": "t2v", "URLs": "b"}})
    write(tmp_path, "b", {"model": {"name": "B", "architecture": "t2v", "URLs": "t2v"}})
    known = load_definitions([tmp_path])
    assert known["a"].weights_of == "t2v"
    assert known["a"].folder(Path("ckpts")) == known["t2v"].folder(Path("ckpts")) == Path("ckpts/t2v")


def test_references_in_a_circle_are_an_error(tmp_path: Path):
    write(tmp_path, "a", {"model": {"name": "A", "architecture": "t2v", "URLs": "b"}})
    write(tmp_path, "b", {"model": {"name": "B", "architecture": "t2v", "URLs": "a"}})
    with pytest.raises(InvalidInput, match="circle"):
        load_definitions([tmp_path])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not valid JSON"),
        ([], "JSON object"),
        ({"model": []}, "model: must be an object"),
        ({"model": {"name": "X"}}, r"model\.architecture: is missing"),
        ({"model": {"name": "X", "architecture": "t2w"}}, r"model\.architecture.*'t2v'"),
        ({"model": {"name": "X", "architectur": "t2v"}}, r"model\.architectur:.*'architecture'"),
        ({"model": {"name": 3, "architecture": "t2v"}}, r"model\.name: must be str"),
        ({"model": {"name": "X", "architecture": "t2v", "fps": 0}}, r"model\.fps: must be a whole number from 1"),
        ({"model": {"name": "X", "architecture": "t2v", "URLs": "nowhere"}}, r"model\.URLs.*'nowhere'"),
        ({"model": {"name": "X", "architecture": "t2v"}, "flow_shfit": 3}, r"flow_shfit.*'flow_shift'"),
        ({"model": {"name": "X", "architecture": "t2v"}, "flow_shift": "3"}, "flow_shift: must be a number"),
        ({"model": {"name": "X", "architecture": "t2v"}, "prompt": 3}, "prompt: must be text"),
        ({"model": {"name": "X", "architecture": "t2v"}, "send_cmd": 3}, "send_cmd"),
    ],
)
def test_a_faulty_file_is_named_with_its_key(tmp_path: Path, document, message):
    folder = write(tmp_path, "mine", document)
    with pytest.raises(InvalidInput, match=message) as caught:
        load_definitions([folder])
    assert "mine.json" in str(caught.value)


def test_missing_weights_name_the_command_and_the_models_that_work(tmp_path: Path):
    message = load_definitions().unavailable("t2v_1.3B", tmp_path, "cpu")
    assert f"python -m Wan2GP.models fetch t2v_1.3B --ckpts {tmp_path}" in message
    assert "needs a device of kind cuda" in message
    assert message.endswith(
        "(models that work here: canny, draft, flow, rife, scribble, tiny_wan_i2v, tiny_wan_t2v, tiny_wan_vace)"
    )


def test_the_draft_model_always_works(tmp_path: Path):
    for device in ("cpu", "cuda", None):
        assert load_definitions().unavailable("draft", tmp_path, device) is None


def test_an_architecture_without_an_implementation_says_so(tmp_path: Path):
    flux = load_definitions()["flux"]
    elsewhere = replace(flux, architecture=replace(flux.architecture, engine=None))
    assert "no implementation of the architecture 'flux'" in availability(elsewhere, tmp_path)


def test_a_half_fetched_folder_is_not_whole(tmp_path: Path):
    definition = load_definitions()["t2v_1.3B"]
    folder = tmp_path / "t2v_1.3B"
    write(folder, "model_index", {"_class_name": "X", "vae": ["diffusers", "V"], "transformer_2": [None, None]})
    assert f"{folder / 'vae'} is missing" in availability(definition, tmp_path)
    (folder / "vae").mkdir()
    assert f"{folder / 'vae'} is missing" in availability(definition, tmp_path)
    (folder / "vae" / "model.safetensors").write_bytes(b"weights")
    assert availability(definition, tmp_path) is None
    index = {"weight_map": {"a": "model-1-of-2.safetensors"}}
    (folder / "vae" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-1-of-2.safetensors is missing" in availability(definition, tmp_path)


def test_a_row_may_differ_from_its_architecture(tmp_path: Path):
    model = {"name": "Fast", "architecture": "t2v", "fps": 24, "frames_minimum": 9, "frames_steps": 8}
    fast = load_definitions([write(tmp_path, "fast", {"model": model})])["fast"].architecture
    assert (fast.fps, fast.min_frames, fast.frame_step) == (24, 9, 8)
    assert fast.inputs == ARCHITECTURES["t2v"].inputs


@pytest.mark.parametrize(("model", "field"), [("t2v", "VAE_URLs"), ("t2v", "text_encoder_URLs"), ("draft", "URLs")])
def test_weights_that_would_be_passed_over_are_refused(tmp_path: Path, model, field):
    folder = write(tmp_path / "rows", model, {"model": {field: ["https://example.org/mine.safetensors"]}})
    message = load_definitions([folder]).unavailable(model, tmp_path)
    assert f"cannot use model.{field}" in message and "model.source" in message


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_index_counts_as_missing_and_harms_no_other_model(tmp_path: Path, content):
    folder = tmp_path / "t2v_1.3B"
    write(folder, "model_index", content)
    known = load_definitions()
    assert f"{folder / 'model_index.json'} is missing or damaged. Fetch" in known.unavailable("t2v_1.3B", tmp_path)
    assert known.unavailable("t2v", tmp_path).endswith(
        "(models that work here: canny, draft, flow, rife, scribble, tiny_wan_i2v, tiny_wan_t2v, tiny_wan_vace)"
    )


def test_a_part_without_its_weights_is_not_whole(tmp_path: Path):
    folder = write(tmp_path / "t2v_1.3B", "model_index", {"vae": ["diffusers", "AutoencoderKLWan"]})
    write(folder / "vae", "config", {})
    message = availability(load_definitions()["t2v_1.3B"], tmp_path)
    assert f"{folder / 'vae'}/*.safetensors is missing" in message and "Wan2GP.models fetch" in message
