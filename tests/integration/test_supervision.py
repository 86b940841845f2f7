"""`worker.py --supervise`: a worker that dies is replaced, one that is told to stop is not; by real processes."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process_end import ROOT
from worker_floor import Floor

from source.doctor.fitness import check_fitness, fitness_checks
from source.doctor.machine import ffmpeg_at_once
from source.errors import ConfigurationError
from source.settings import load_settings
from source.store.types import Status
from source.supervision import MAX_DELAY_S, Pace

#: a supervisor over Python code that stands for a worker; its probes come from a file, one line each, "" is well
SUPERVISOR = """
import logging, sys
from pathlib import Path
from source.supervision import Pace, Supervisor

logging.basicConfig(level=logging.INFO, format="%(message)s")
code, probes = sys.argv[1], Path(sys.argv[2])

def probe():
    lines = probes.read_text().split("|")
    probes.write_text("|".join(lines[1:]))
    print("probed", flush=True)
    return lines[0] or None

sys.exit(Supervisor([sys.executable, "-c", code], Pace(0.01, 30, 20), probe).run())
"""

#: counts its starts in a file, and dies as that says: one word a start
WORKER = """
import os, signal, sys, threading
from pathlib import Path

fates = Path({fates!r})
fate, *rest = fates.read_text().split()
fates.write_text(" ".join(rest))
print("worker", fate, flush=True)
if fate == "stays":
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    def with_supervisor():
        os.read(0, 1)
        print("alone", flush=True)
        told.set()
    threading.Thread(target=with_supervisor, daemon=True).start()
    print("ready", flush=True)
    told.wait()
    sys.exit(0)
if fate == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    threading.Event().wait()
if fate.startswith("SIG"):
    os.write(0, b".")
    os.kill(os.getpid(), getattr(signal, fate))
sys.exit(int(fate))
"""


@contextmanager
def supervisor(folder: Path, fates: str, probes: str = "", code: str = SUPERVISOR) -> Iterator[subprocess.Popen[str]]:
    (folder / "fates").write_text(fates)
    (folder / "probes").write_text(probes)
    worker = WORKER.format(fates=str(folder / "fates"))
    process = subprocess.Popen(
        [sys.executable, "-c", code, worker, str(folder / "probes")], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], line: str) -> list[str]:
    assert process.stdout is not None
    seen: list[str] = []
    for each in process.stdout:
        seen.append(each.strip())
        if seen[-1] == line:
            return seen
    raise AssertionError(f"{line!r} never came: {seen}")


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.split("\n")[:-1], err


def test_a_worker_that_dies_is_replaced_after_a_probe_and_one_that_is_idle_is_not(tmp_path: Path) -> None:
    with supervisor(tmp_path, "SIGKILL 2 3 4 0") as process:
        code, out, err = ended(process)
    starts = [f"worker {fate}" for fate in ("SIGKILL", "2", "3", "4", "0")]
    assert code == 0
    assert out == [line for start in starts for line in ("probed", start)]
    assert "the worker was ended by SIGKILL" in err and "the worker ended with exit code 3" in err
    assert "3 workers in a row died" in err


def test_a_worker_that_cannot_be_started_is_started_later(tmp_path: Path) -> None:
    """The program is there from the second probe on."""
    program = tmp_path / "program"
    code = SUPERVISOR.replace("[sys.executable, ", f"[{str(program)!r}, ").replace(
        "return lines[0] or None", f"lines[0] and Path({str(program)!r}).symlink_to(sys.executable)"
    )
    with supervisor(tmp_path, "0", probes="|there", code=code) as process:
        status, out, err = ended(process)
    assert (status, out) == (0, ["probed", "probed", "worker 0"])
    assert "no worker could be started" in err


@pytest.mark.slow
def test_the_death_of_a_worker_that_lived_for_long_is_the_first_one_again(tmp_path: Path) -> None:
    with supervisor(tmp_path, "3 3 3 0", code=SUPERVISOR.replace("Pace(0.01, 30,", "Pace(0.01, 0,")) as process:
        code, out, err = ended(process)
    assert (code, out.count("worker 3")) == (0, 3)
    assert err.count("another one starts in 0.0 s") == 3 and "in a row" not in err


def test_a_wrong_configuration_is_not_tried_again(tmp_path: Path) -> None:
    with supervisor(tmp_path, "1 0") as process:
        code, out, _ = ended(process)
    assert (code, out) == (1, ["probed", "worker 1"])


def test_no_worker_is_started_while_the_device_does_not_compute(tmp_path: Path) -> None:
    with supervisor(tmp_path, "3 0", probes="|CUDA error|it hangs|") as process:
        code, out, err = ended(process)
    assert (code, out) == (0, ["probed", "worker 3", "probed", "probed", "probed", "worker 0"])
    assert "no worker is started: CUDA error" in err


def test_sigterm_is_passed_on_and_the_worker_stops_gently(tmp_path: Path) -> None:
    with supervisor(tmp_path, "stays 0") as process:
        read_until(process, "ready")
        process.send_signal(signal.SIGTERM)
        code, out, _ = ended(process)
    assert (code, out) == (0, [])


def test_sigterm_ends_a_wait_for_the_device(tmp_path: Path) -> None:
    code = SUPERVISOR.replace("Pace(0.01,", "Pace(600,").replace("return lines[0] or None", "return 'it is lost'")
    with supervisor(tmp_path, "0", code=code) as process:
        read_until(process, "probed")
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0


def test_a_killed_supervisor_takes_its_worker_along_gently(tmp_path: Path) -> None:
    with supervisor(tmp_path, "stays 0") as process:
        read_until(process, "ready")
        process.kill()
        assert read_until(process, "alone") == ["alone"]


def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    with supervisor(tmp_path, "deaf 0", code=SUPERVISOR.replace("30, 20)", "30, 0.2)")) as process:
        read_until(process, "ready")
        process.send_signal(signal.SIGTERM)
        code, _, err = ended(process)
    assert code == 0
    assert "did not stop and is killed" in err


def test_a_worker_whose_interpreter_stands_still_is_replaced(tmp_path: Path) -> None:
    """It gave a sign of life, and then no more: as one that is stopped, or that never lets go of the interpreter."""
    code = SUPERVISOR.replace("30, 20)", "30, 20, 0.5)")
    with supervisor(tmp_path, "SIGSTOP 0", code=code) as process:
        code, out, err = ended(process)
    assert (code, out) == (0, ["probed", "worker SIGSTOP", "probed", "worker 0"])
    assert "gave no sign of life" in err and "ended by SIGKILL" in err


def test_the_wait_doubles_up_to_a_bound() -> None:
    pace = Pace(1.0, 300.0, 60.0)
    assert [pace.delay_s(deaths) for deaths in (1, 2, 3, 9)] == [1, 2, 4, 256]
    assert pace.delay_s(10) == pace.delay_s(1000) == MAX_DELAY_S


@pytest.mark.parametrize("ending", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_the_real_worker_stops_with_its_supervisor(tmp_path: Path, ending: signal.Signals) -> None:
    floor = Floor(tmp_path)
    task = floor.add("comfy", workflow="{}")
    command = [sys.executable, "worker.py", "--supervise", "--device", "cpu", "--db-file", str(floor.settings.db_file)]
    process = subprocess.Popen(
        [*command, "--main-output-dir", str(tmp_path / "outputs")], cwd=ROOT, text=True, stderr=subprocess.PIPE
    )
    try:
        row = floor.wait_for(task, Status.FAILED)
        process.send_signal(ending)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (0 if ending is signal.SIGTERM else -signal.SIGKILL), err
    assert row.error_class == "bad_input"
    floor.wait_until(lambda: [worker.status for worker in floor.store.workers()] == ["stopped"])
    floor.close()


# ---- fitness


def test_a_machine_that_can_run_no_task_is_refused_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = load_settings(db_file=tmp_path / "tasks.db", main_output_dir=tmp_path / "file" / "outputs", device="cpu")
    with pytest.raises(ConfigurationError) as refused:
        check_fitness(settings)
    assert "disk: " in str(refused.value) and "->" in str(refused.value)


#: with a disk of 64 KB that is full, in a namespace of its own
FULL = """
mount -t tmpfs -o size=64k full "$1" || exit 77
mkdir "$1/outputs" && { head -c 1M /dev/zero > "$1/fill" 2>&- || true; } && shift && "$@"
"""
ALONE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", FULL, "sh")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare")
@pytest.mark.parametrize(("database", "code"), [("elsewhere", 0), ("full", 2)])
def test_a_full_disk_is_no_wrong_configuration(tmp_path: Path, database: str, code: int) -> None:
    """It makes a worker wait, or its supervisor try again."""
    full, file = tmp_path / "full", tmp_path / database / "tasks.db"
    for folder in (full, file.parent):
        folder.mkdir(exist_ok=True)
    work = [sys.executable, "worker.py", "--until-idle", "--device", "cpu", "--db-file", str(file)]
    worked = subprocess.run(
        [*ALONE, str(full), *work, "--main-output-dir", str(full / "outputs")], cwd=ROOT, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    if worked.returncode == 77 or "unshare failed" in worked.stderr:
        pytest.skip(f"this user may not mount a disk: {worked.stderr}")
    assert worked.returncode == code, worked.stderr
    assert ("No space left" in worked.stderr and "no task is claimed" in worked.stderr) or code


def test_what_may_be_missing_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(db_file=tmp_path / "tasks.db", main_output_dir=tmp_path, ckpts=tmp_path / "none")
    check_fitness(settings)
    [record] = [record for record in caplog.records if record.name == "source.doctor.fitness"]
    assert "weights: nothing in" in record.message and "gpu: " in record.message


def test_the_encoders_are_tried_in_one_process(tmp_path: Path) -> None:
    assert ffmpeg_at_once().state == "ok"
    assert [check.name for check in fitness_checks(load_settings())] == ["ffmpeg", "disk", "gpu", "weights"]


# ---- deployment


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    """Its paths are those of an installation; here they stand for what this machine has."""
    text = (ROOT / "deploy" / "headless-wan2gp.service").read_text()
    text = text.replace("/opt/headless-wan2gp/.venv/bin/python", sys.executable)
    text = text.replace("User=headless", f"User={getpass.getuser()}")
    unit = tmp_path / "headless-wan2gp.service"
    unit.write_text(text.replace("/opt/headless-wan2gp", str(ROOT)))
    looked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in looked.stderr.splitlines() if unit.name in line]
    assert not complaints, looked.stderr


def test_the_entry_point_becomes_the_supervisor(tmp_path: Path) -> None:
    started = subprocess.run(
        [str(ROOT / "deploy" / "entrypoint.sh"), "--version"], capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert f"{started.stdout}{started.stderr}".startswith("worker.py ")
