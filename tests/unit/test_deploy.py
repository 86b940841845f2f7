"""The files of deploy/ and of the hosted CI fit the repository. `make check` looks at what they say to Docker;
tests/acceptance/test_installed_package.py does the image's steps."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from headless.options import aliases
from source.settings import Settings

#: read by deploy/entrypoint.sh, and not by the settings
OF_THE_ENTRY_POINT = {"ENVIRONMENT_FILE"}
COMPOSE = ("compose.yaml", "compose.gpu.yaml")


@pytest.fixture
def dockerfile(root: Path) -> str:
    return (root / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def compose(root: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((root / "deploy" / name).read_text(encoding="utf-8"))
    return loaded


def test_all_that_the_dockerfile_copies_is_there_and_reaches_docker(root: Path, dockerfile: str) -> None:
    copied = [
        source
        for words in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in [word for word in words.split() if not word.startswith("--")][:-1]
    ]
    assert len(copied) > 10
    let_through = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in copied:
        assert (root / source).exists(), source
        assert any(source == name or source.startswith(f"{name}/") for name in let_through), source
    assert [name for name in let_through if not any(fnmatch(source, f"{name}*") for source in copied)] == []


def test_containers_run_as_nobody_special(dockerfile: str) -> None:
    stages = dockerfile.split("\nFROM ")[1:]
    assert [re.findall(r"^USER (\d+)$", stage, re.MULTILINE)[-1:] for stage in stages] == [[], ["10001"], ["10001"], []]


def test_what_compose_builds_and_mounts_is_declared(root: Path, dockerfile: str) -> None:
    stages = set(re.findall(r" AS (\w+)$", dockerfile, re.MULTILINE))
    declared = compose(root, "compose.yaml")
    for service in declared["services"].values():
        assert service["build"]["target"] in stages
        assert (root / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert {mount.partition(":")[0] for mount in service["volumes"]} <= set(declared["volumes"])


def test_what_compose_sets_are_settings(root: Path) -> None:
    known = {name.upper() for name in aliases(Settings)} | OF_THE_ENTRY_POINT
    files = [compose(root, name) for name in COMPOSE]
    given = {name for each in files for service in each["services"].values() for name in service.get("environment", {})}
    assert {"DB_TYPE", "WORKER_ID", "ENVIRONMENT_FILE"} <= given <= known


def test_each_gpu_has_one_worker(root: Path) -> None:
    services = compose(root, "compose.gpu.yaml")["services"].values()
    devices = [service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for service in services]
    names = [service["environment"]["WORKER_ID"] for service in services]
    assert len({*map(tuple, devices)}) == len(devices) == len(set(names)) == len(names)


def test_the_hosted_ci_does_what_ci_run_does(root: Path) -> None:
    script = (root / ".ci" / "run").read_text(encoding="utf-8")
    commands = [
        line for line in script.splitlines() if line and not line.startswith(("#", "set ", "cd "))
    ]  # fmt: skip
    workflow = yaml.safe_load((root / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["ci"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == commands
    assert len(commands) >= 4


@pytest.mark.parametrize("script", ["entrypoint.sh", "healthcheck.sh"])
def test_scripts_of_the_container_are_read_by_a_plain_shell(root: Path, script: str) -> None:
    assert subprocess.run(["sh", "-n", root / "deploy" / script], check=False).returncode == 0
