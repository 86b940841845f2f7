"""`python -m Wan2GP.models`: what is listed, where things belong, and whether what is there fits."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import tiny_models

from Wan2GP import fetching
from Wan2GP.definitions import load_definitions
from Wan2GP.errors import ModelUnavailable
from Wan2GP.fetching import gigabytes
from Wan2GP.models import main


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.tiny_wan_t2v(tmp_path_factory.mktemp("weights") / "tiny")


def rows(tmp_path: Path, source: Path, **model: object) -> list[str]:
    """A row `mine` of the tiny model; returns the options that name it and an empty folder of weights."""
    folder = tmp_path / "rows"
    folder.mkdir()
    document = {"model": {"name": "Mine", "architecture": "t2v_1.3B", "source": str(source), "licence": "MIT", **model}}
    (folder / "mine.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "odd.json").write_text(
        json.dumps({"model": {"name": "Odd", "architecture": "t2v", "VAE_URLs": ["v.safetensors"]}}), encoding="utf-8"
    )
    return ["--definitions", str(folder), "--ckpts", str(tmp_path / "ckpts")]


def test_the_list_tells_what_is_ready_missing_and_refused(tmp_path: Path, tiny: Path, capsys):
    options = rows(tmp_path, tiny)
    assert main(["list", "--json", *options]) == 0
    found = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(found) == {*load_definitions(), "mine", "odd"}
    states = {name: found[name]["state"] for name in ("mine", "draft", "t2v", "odd")}
    assert states == {"mine": "ready", "draft": "ready", "t2v": "missing", "odd": "refused"}
    assert found["t2v"]["verified"] and not found["phantom_14B"]["verified"]
    assert "Wan2GP.models fetch t2v" in found["t2v"]["reason"]
    assert found["mine"]["bytes"] == sum(path.stat().st_size for path in tiny.rglob("*") if path.is_file())
    assert main(["list", *options]) == 0
    table = capsys.readouterr().out
    assert "unverified" in table and "mine" in table


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_list_shows_every_name_whole_on_any_terminal(tmp_path: Path, monkeypatch, capsys, columns: str):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["list", "--ckpts", str(tmp_path / "ckpts")]) == 0
    assert set(load_definitions()) <= {line.split(" ")[0] for line in capsys.readouterr().out.splitlines()}


def test_where_names_every_part_and_marks_what_is_missing(tmp_path: Path, tiny: Path, capsys):
    assert main(["where", "vace_14B_2_2", *rows(tmp_path, tiny)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["(missing)"] * 4
    assert lines[2].split() == ["low-noise", "expert", f"{tmp_path}/ckpts/t2v_2_2/transformer_2", "(missing)"]
    assert main(["where", "mine", *rows_of(tmp_path)]) == 0
    assert "missing" not in capsys.readouterr().out


def rows_of(tmp_path: Path) -> list[str]:
    return ["--definitions", str(tmp_path / "rows"), "--ckpts", str(tmp_path / "ckpts")]


def test_sound_weights_are_verified_with_the_config_beside_them(tmp_path: Path, tiny: Path, capsys):
    assert main(["verify", "mine", *rows(tmp_path, tiny)]) == 0
    assert "tensors fit WanTransformer3DModel" in capsys.readouterr().out


def test_a_file_that_does_not_fit_is_told_and_the_exit_code_is_1(tmp_path: Path, tiny: Path, capsys):
    weights = next((tiny / "transformer").glob("*.safetensors"))
    options = rows(tmp_path, tiny, URLs=[str(weights)])
    assert main(["verify", "mine", *options]) == 1
    message = capsys.readouterr().err
    # The real 1.3B model is expected of a single file: it has 30 layers and this one has 2.
    assert "does not fit WanTransformer3DModel: it lacks blocks.10." in message
    assert str(weights) in message


def test_damaged_weights_are_told_by_their_checksum(tmp_path: Path, tiny: Path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    name = "vae/diffusion_pytorch_model.safetensors"
    record = copy / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    record.parent.mkdir(parents=True)
    good = hashlib.sha256((copy / name).read_bytes()).hexdigest()
    record.write_text(f"{'c' * 40}\n{good}\n1.0\n", encoding="utf-8")
    assert main(["verify", "mine", *rows(tmp_path, copy)]) == 0
    assert f"{copy / name}: SHA-256 as published" in capsys.readouterr().out
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    assert main(["verify", "mine", *rows_of(tmp_path)]) == 1
    assert f"{copy / name} is not what the hub published" in capsys.readouterr().err


def test_a_file_of_unknown_origin_is_not_fetched_but_asked_for(tmp_path: Path, tiny: Path, capsys):
    assert main(["fetch", "mine", *rows(tmp_path, tiny, URLs=["lost.safetensors"])]) == 1
    assert f"put the file at {tmp_path}/ckpts/lost.safetensors" in capsys.readouterr().err


def test_what_needs_no_weights_and_what_is_no_model(tmp_path: Path, tiny: Path, capsys):
    options = rows(tmp_path, tiny)
    assert main(["fetch", "draft", *options]) == 0
    assert main(["fetch", "mien", *options]) == 1
    streams = capsys.readouterr()
    assert "draft needs no weights" in streams.out and "'mine'" in streams.err


def test_more_than_the_disk_holds_is_refused_before_a_byte_is_fetched(tmp_path: Path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(ModelUnavailable, match=r"has room for .* another folder with --ckpts"):
        fetching.check_room(tmp_path / "not" / "there", free * 2)
    fetching.check_room(tmp_path / "not" / "there", 1)


def test_sizes_are_for_people():
    assert (gigabytes(1_400_000), gigabytes(28_600_000_000)) == ("1.40 MB", "28.60 GB")
