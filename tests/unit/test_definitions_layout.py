"""Which file holds which part of a model: folders, single files, modules, and parts of other models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from Wan2GP.definitions import ARCHITECTURES, availability, load_definitions
from Wan2GP.errors import InvalidInput
from Wan2GP.layout import PACKAGE_DIR, where
from Wan2GP.parameters import PARAMETERS
from Wan2GP.schedules import SOLVERS

WAN = sorted(name for name, architecture in ARCHITECTURES.items() if architecture.engine == "wan")


def rows(folder: Path, **models: dict[str, object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        (folder / f"{name}.json").write_text(json.dumps({"model": {"name": name, **model}}), encoding="utf-8")
    return folder


def parts(folder: Path, *names: str) -> Path:
    """A diffusers folder with weights for these parts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(
        json.dumps({name: ["diffusers", "Part"] for name in ("vae", "text_encoder", "transformer", "transformer_2")})
    )
    for name in names:
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
        (folder / name / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_transformer_of_files_takes_its_other_parts_from_its_architectures_model(tmp_path: Path):
    definition = load_definitions()["phantom_14B"]
    places = where(definition, tmp_path)
    assert places.folder == tmp_path / "t2v"
    assert places.transformer == tmp_path / "Phantom-Wan-14B_fp16.safetensors"
    parts(tmp_path / "t2v", "vae")
    assert f"{tmp_path}/t2v/text_encoder is missing" in availability(definition, tmp_path)
    (tmp_path / "t2v" / "text_encoder").mkdir()
    (tmp_path / "t2v" / "text_encoder" / "model.safetensors").write_bytes(b"weights")
    assert f"{places.transformer} is missing" in availability(definition, tmp_path)
    places.transformer.write_bytes(b"weights")
    assert availability(definition, tmp_path) is None


def test_the_first_quantisation_that_is_there_is_used(tmp_path: Path):
    definition = load_definitions()["phantom_14B"]
    (tmp_path / "Phantom-Wan-14B_fp8_e4m3fn.safetensors").write_bytes(b"weights")
    assert where(definition, tmp_path).transformer.name == "Phantom-Wan-14B_fp8_e4m3fn.safetensors"


def test_a_borrowed_module_is_laid_over_both_experts_of_another_models_folder(tmp_path: Path):
    for name in ("vace_14B_2_2", "vace_14B_cocktail_2_2", "vace_14B_lightning_3p_2_2"):
        places = where(load_definitions()[name], tmp_path)
        assert (places.transformer, places.transformer_2) == (
            tmp_path / "t2v_2_2" / "transformer",
            tmp_path / "t2v_2_2" / "transformer_2",
        )
        assert [file.name for file in places.modules] == ["wan2.1_Vace_14B_module_mbf16.safetensors"]
        assert places.modules_2 == places.modules


def test_modules_may_differ_by_expert_and_a_file_of_a_common_name_gets_its_repositorys(tmp_path: Path):
    base = "https://huggingface.co/someone/Model/resolve/main/"
    module = {"URLs": [f"{base}high.safetensors"], "URLs2": [f"{base}low.safetensors"]}
    known = load_definitions(
        [rows(tmp_path, mine={"architecture": "vace_14B_2_2", "URLs": "t2v_2_2", "modules": [module]})]
    )
    places = where(known["mine"], tmp_path)
    assert [file.name for file in (*places.modules, *places.modules_2)] == ["high.safetensors", "low.safetensors"]
    files = {where(load_definitions()[name], tmp_path).transformer.name for name in ("fun_inp", "fun_inp_1.3B")}
    assert "Wan2.1-Fun-14B-InP-diffusion_pytorch_model.safetensors" in files and len(files) == 2


def test_experts_may_be_files_of_their_own(tmp_path: Path):
    folder = rows(
        tmp_path / "rows",
        mine={"architecture": "i2v_2_2", "URLs": ["high.safetensors"], "URLs2": [str(tmp_path / "low.gguf")]},
        again={"architecture": "i2v_2_2", "URLs": "mine"},
    )
    for name in ("mine", "again"):
        definition = load_definitions([folder])[name]
        places = where(definition, tmp_path / "ckpts")
        assert places.folder == tmp_path / "ckpts" / "i2v_2_2"
        assert (places.transformer, places.transformer_2) == (
            tmp_path / "ckpts" / "high.safetensors",
            tmp_path / "low.gguf",
        )
    parts(tmp_path / "ckpts" / "i2v_2_2", "vae", "text_encoder")
    message = availability(definition, tmp_path / "ckpts")
    assert f"{tmp_path}/ckpts/high.safetensors is missing or damaged. Put the file there." in message


def test_a_module_that_no_model_lends_is_an_error(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"model\.modules.*no module to lend"):
        load_definitions([rows(tmp_path, mine={"architecture": "vace_14B", "URLs": "t2v", "modules": ["t2v"]})])
    with pytest.raises(InvalidInput, match=r"model\.modules: refers to 'vace_15B'"):
        load_definitions([rows(tmp_path, mine={"architecture": "vace_14B", "URLs": "t2v", "modules": ["vace_15B"]})])


def test_a_source_inside_the_package_is_found_there(tmp_path: Path):
    model = {"architecture": "t2v_1.3B", "source": "package:tiny_wan/none", "fps": 8, "frames_minimum": 17}
    definition = load_definitions([rows(tmp_path, tiny={**model, "licence": "Apache-2.0"})])["tiny"]
    assert definition.folder(tmp_path) == PACKAGE_DIR / "tiny_wan" / "none"
    assert "install the package again" in availability(definition, tmp_path)
    assert (definition.architecture.fps, definition.architecture.min_frames) == (8, 17)


def test_users_rows_name_their_folder_in_the_command_that_fetches(tmp_path: Path):
    folder = rows(tmp_path / "my rows", mine={"architecture": "t2v", "source": "someone/Wan-Diffusers"})
    message = availability(load_definitions([folder])["mine"], tmp_path)
    assert f"fetch mine --ckpts {tmp_path} --definitions '{folder}'" in message


@pytest.mark.parametrize("name", WAN)
def test_every_wan_architecture_declares_what_the_engine_asks(name):
    architecture = ARCHITECTURES[name]
    assert architecture.parts_from in load_definitions()
    assert architecture.solvers and set(architecture.solvers) <= set(SOLVERS)
    assert architecture.experts == (2 if "_2_2" in name and name != "ti2v_2_2" else 1)
    assert ("image_end" in architecture.inputs) == ("E" in architecture.image_prompt_letters)
    assert ("image_start" in architecture.inputs) >= ("S" in architecture.image_prompt_letters)
    assert ("video_source" in architecture.inputs) == ("V" in architecture.image_prompt_letters)
    assert ("control_video" in architecture.inputs) == ("V" in architecture.control)
    assert ("references" in architecture.inputs) == ("I" in architecture.control)
    rule = architecture.windows
    assert rule is None or rule.overlap_min <= rule.overlap_default <= rule.overlap_max < rule.size


def test_settings_of_every_row_fit_its_architecture():
    known = load_definitions()
    for name in known:
        definition = known[name]
        architecture, settings = definition.architecture, definition.settings
        assert settings.get("guidance_phases", 1) <= architecture.phases, name
        assert settings.get("sample_solver", "") in ("", *architecture.solvers), name
        assert (settings.get("video_length", 1) - 1) % architecture.frame_step == 0, name
        assert set(settings) <= set(PARAMETERS), name
        if architecture.engine == "wan":
            width, height = map(int, settings["resolution"].split("x"))
            assert (definition.licence and definition.devices == ("cuda",)) or "package:" in str(definition.source), (
                name
            )
            assert width % 16 == 0 and height % 16 == 0, name


@pytest.mark.parametrize(
    ("model", "starts"),
    [
        ("wan_2_2_vace_lightning_baseline_2_2_2", (2, 4)),
        ("wan_2_2_vace_lightning_baseline_3_3", (3,)),
        ("wan_2_2_i2v_lightning_baseline_2_2_2", (4,)),
        ("wan_2_2_i2v_lightning_baseline_3_3", (3,)),
    ],
)
def test_presets_switch_phases_at_the_steps_of_their_names(model, starts):
    from Wan2GP.schedules import model_sigmas

    settings = load_definitions()[model].settings
    sigmas = model_sigmas(settings["sample_solver"], settings["num_inference_steps"], settings["flow_shift"])
    thresholds = [settings[name] for name in ("switch_threshold", "switch_threshold2") if name in settings]
    found = tuple(next(i for i, sigma in enumerate(sigmas) if sigma * 1000 <= threshold) for threshold in thresholds)
    assert found == starts
