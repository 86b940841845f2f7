"""`pip install .` as the Dockerfile does it: a wheel of the files that it copies, in an environment of its own, used
from an empty folder. The packages that it depends on are those of this environment; nothing is asked of a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ordinary_folder import ordinary_folder
from process_end import at_process_end

from source.devstack.stack import Stack
from source.devstack.state import free_ports
from Wan2GP.media import probe_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: what lies in the packages' folders and is not for users
NOT_SHIPPED = re.compile(r"/(tests|storage_tests)/|/\.|^supabase/README\.md$")


def tracked(root: Path, *places: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *places],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]


def copied_by_the_dockerfile(root: Path) -> list[str]:
    """The sources of the COPY lines of the stage that builds the wheel."""
    stage = (root / "deploy" / "Dockerfile").read_text().partition(" AS wheel\n")[2].partition("\nFROM ")[0]
    return [word for line in re.findall(r"^COPY (.+)$", stage, re.MULTILINE) for word in line.split()[:-1]]


_STOP = """
import pathlib
from source.devstack.stack import Stack
Stack(pathlib.Path(sys.argv[1])).down(erase=True)
"""


@dataclass(frozen=True)
class Installed:
    """An environment with the package, and an empty folder to use it in."""

    wheel: Path
    bin: Path
    folder: Path

    def command(self, command: str, *arguments: str, **environment: str) -> dict[str, Any]:
        """How `subprocess` starts a command here."""
        around = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        around |= {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"} | environment
        program = shutil.which(command, path=around["PATH"])
        assert program is not None
        return {"args": [program, *arguments], "cwd": self.folder, "env": around, "text": True}

    def start(self, command: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(**self.command(command, **environment), stderr=subprocess.DEVNULL)

    def does(self, command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        how = self.command(command, *arguments, **environment)
        return subprocess.run(**how, capture_output=True, timeout=200, check=False)

    def run(self, command: str, *arguments: str, **environment: str) -> str:
        """What a command prints that ends well."""
        done = self.does(command, *arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def task(self, task_id: str) -> dict[str, Any]:
        view: dict[str, Any] = json.loads(self.run("headless-wan2gp-debug", "task", task_id, "--json"))
        return view


@pytest.fixture(scope="module")
def installed(root: Path) -> Iterator[Installed]:
    with ordinary_folder("installed") as place:
        yield install(root, place)


def install(root: Path, place: Path) -> Installed:
    for name in tracked(root, *copied_by_the_dockerfile(root)):
        (place / "build" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, place / "build" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", place / "wheels", "."],
        cwd=place / "build", check=True,
    )  # fmt: skip
    [wheel] = (place / "wheels").glob("*.whl")
    venv.create(place / "venv", with_pip=False, symlinks=True)
    [library] = (place / "venv").glob("lib/python*/site-packages")
    # the folder alone: what makes this checkout importable is read by `site` and not from here
    (library / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    interpreter = place / "venv" / "bin" / "python"
    subprocess.run(
        [*pip, "--python", interpreter, "install", "--no-compile", "--no-deps", "--no-index", wheel], check=True
    )
    for script in ("entrypoint.sh", "healthcheck.sh"):
        shutil.copy2(root / "deploy" / script, interpreter.parent)
    (place / "empty").mkdir()
    return Installed(wheel, interpreter.parent, place / "empty")


def test_the_wheel_holds_all_that_the_packages_hold_and_nothing_else(root: Path, installed: Installed) -> None:
    names = [name for name in zipfile.ZipFile(installed.wheel).namelist() if ".dist-info/" not in name]
    ours = tracked(root, "source", "headless", "Wan2GP", "supabase", "worker.py", "add_task.py", "debug.py")
    wanted = [name for name in ours if not NOT_SHIPPED.search(name)]
    assert sorted(names) == sorted(re.sub(r"^supabase/", "source/supabase/", name) for name in wanted)


def test_what_is_imported_is_the_wheels(installed: Installed) -> None:
    said = installed.run(
        "python", "-c", "import source, headless, Wan2GP, worker; print(source.__file__, worker.__file__)"
    )
    assert said.count(str(installed.bin.parent)) == 2


@pytest.mark.parametrize("command", ["headless-wan2gp-worker", "headless-wan2gp-add", "headless-wan2gp-debug"])
def test_each_command_is_there_and_knows_its_version(installed: Installed, command: str) -> None:
    said = installed.does(command, "--version")
    assert (said.returncode, (said.stdout + said.stderr).split()[-1]) == (0, installed.wheel.name.split("-")[1])


def test_a_travel_and_a_diffusion_run_in_an_empty_folder(root: Path, installed: Installed) -> None:
    shutil.copytree(root / "samples", installed.folder / "samples", ignore=shutil.ignore_patterns("tasks"))
    params = (root / "samples" / "tasks" / "travel_orchestrator.i2v.json").read_text()
    travel = installed.run("headless-wan2gp-add", "--type", "travel_orchestrator", "--params", params)
    circle = {"model": "tiny_wan_t2v", "prompt": "a red circle moving right", "num_inference_steps": 2, "seed": 1}
    drawn = installed.run("headless-wan2gp-add", "--type", "t2v", "--params", json.dumps(circle))
    installed.run("headless-wan2gp-worker", "--until-idle")
    for task, frames in ((travel, 33), (drawn, 17)):
        view = installed.task(task)
        assert view["status"] == "Complete", view["error_message"]
        assert probe_video(installed.folder / "public" / view["output_location"]).num_frames == frames


def test_the_containers_entry_point_supervises_a_worker_whose_health_is_seen(installed: Installed) -> None:
    (installed.folder / "settings").write_text("export WORKER_ID=ship-1\n")
    settings = {"ENVIRONMENT_FILE": str(installed.folder / "settings"), "SHUTDOWN_GRACE_S": "0"}
    assert installed.does("healthcheck.sh", **settings).returncode == 1
    supervisor = installed.start("entrypoint.sh", **settings)
    try:
        while installed.does("healthcheck.sh", **settings).returncode:
            assert supervisor.poll() is None
        assert installed.does("healthcheck.sh", WORKER_ID="ship-2").returncode == 1
        supervisor.terminate()
        assert supervisor.wait(60) == 0
    finally:
        supervisor.kill()
        supervisor.wait()


@pytest.fixture
def stack_folder() -> Iterator[Path]:
    with ordinary_folder("installed-stack") as place:
        at_process_end(_STOP, place / "data")
        yield place / "data"
        Stack(place / "data").down(erase=True)


def test_the_stack_of_the_compose_file_serves_workers_out_of_the_wheel(
    installed: Installed, stack_folder: Path
) -> None:
    """What its two containers start, with the paths of this machine."""
    programs = f"{installed.bin}{os.pathsep}{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    command = installed.command("python", "-m", "source.devstack", "--folder", str(stack_folder), "run", PATH=programs)
    port = str(free_ports()["gateway"])
    with subprocess.Popen(**command | {"args": [*command["args"], "--port", port]}, stdout=subprocess.PIPE) as stack:
        assert stack.stdout is not None
        assert "answers" in stack.stdout.readline()
        settings = {"ENVIRONMENT_FILE": str(stack_folder / "environment"), "DB_TYPE": "supabase"}
        worker = installed.start("entrypoint.sh", **settings, WORKER_ID="of-the-fleet", SHUTDOWN_GRACE_S="0")
        try:
            while installed.does("healthcheck.sh", **settings, WORKER_ID="of-the-fleet").returncode:
                assert worker.poll() is None
            worker.terminate()
            assert worker.wait(60) == 0
        finally:
            worker.kill()
            worker.wait()
            stack.terminate()
        assert stack.wait(60) == 0


def test_the_migrations_and_functions_come_along(root: Path, installed: Installed) -> None:
    asked = "from source.store.supabase_schema import SUPABASE, newest_migration; print(SUPABASE, newest_migration())"
    folder, newest = installed.run("python", "-c", asked).split()
    assert Path(folder).is_relative_to(installed.bin.parent)
    assert newest == max(path.name for path in (root / "supabase" / "migrations").glob("*.sql"))[: len(newest)]
    for name in ("config.toml", "bootstrap.sql", "functions/deno.lock", "gateway/main.ts"):
        assert (Path(folder) / name).read_bytes() == (root / "supabase" / name).read_bytes()
