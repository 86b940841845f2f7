"""scripts/gpu_diag.sh, with programs and folders that stand for those of a GPU box."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEALTHY = {
    "driver_version": "580.65.06",
    "index,name,memory.total": "0, NVIDIA H100 80GB HBM3, 81559, 4, 41, 71.20, 700.00, Enabled, 0",
    "index,clocks": "0, Not Active",
    "compute-apps": "",
    "": "| NVIDIA-SMI 580.65.06    Driver Version: 580.65.06    CUDA Version: 13.0 |",
}
TORCH = "version 2.13.0\nbuilt 13.0\navailable True\ncapability 90 True\ncomputes True\n"


class GpuBox:
    """A machine of a test: device nodes, what nvidia-smi answers to each question, and what torch says."""

    def __init__(self, folder: Path) -> None:
        self.root, self.programs = folder / "root", folder / "bin"
        self.programs.mkdir()
        for node in ("nvidia0", "nvidiactl", "nvidia-uvm"):
            (self.root / "dev").mkdir(parents=True, exist_ok=True)
            (self.root / "dev" / node).touch()
        (self.root / "proc/driver/nvidia").mkdir(parents=True)
        self.module("580.65.06")
        self.smi(HEALTHY)
        self.torch(TORCH)

    def module(self, version: str) -> None:
        text = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\n"
        (self.root / "proc/driver/nvidia/version").write_text(text)

    def smi(self, answers: Mapping[str, str], code: int = 0) -> None:
        """Each answer stands under the beginning of its query."""
        cases = "".join(f"*{query}*) cat <<'E'\n{text}\nE\n;;\n" for query, text in answers.items() if query)
        usual = answers.get("", "")
        self._program("nvidia-smi", f"case \"$*\" in\n{cases}*) cat <<'E'\n{usual}\nE\n;; esac\nexit {code}\n")

    def torch(self, text: str, code: int = 0) -> None:
        self._program("python-of-a-worker", f"cat >/dev/null\ncat <<'E'\n{text}\nE\nexit {code}\n")

    def _program(self, name: str, body: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/usr/bin/env bash\n{body}")
        path.chmod(0o755)

    def examined(self, **environment: str) -> tuple[int, str, list[str]]:
        """Exit code, what it said, and the lines of it that are wrong."""
        kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        ours = {
            "PATH": f"{self.programs}:/usr/bin:/bin", "PYTHON": "python-of-a-worker", "GPU_DIAG_ROOT": str(self.root),
        }  # fmt: skip
        answer = subprocess.run(
            ["bash", "scripts/gpu_diag.sh"], cwd=ROOT, text=True, capture_output=True, env=kept | ours | environment
        )
        assert answer.stderr == ""
        wrong = [line.split("WRONG")[1].strip() for line in answer.stdout.splitlines() if "  WRONG  " in line]
        return answer.returncode, answer.stdout, wrong


@pytest.fixture
def box(tmp_path: Path) -> GpuBox:
    return GpuBox(tmp_path)


def test_a_sound_machine_is_told_of_and_nothing_is_wrong(box: GpuBox) -> None:
    code, said, wrong = box.examined()
    assert (code, wrong) == (0, [])
    for fact in ("driver 580.65.06", "CUDA up to 13.0", "GPU 0: NVIDIA H100 80GB HBM3, 4 of 81559 MiB used, 41 C",
                 "kernel module 580.65.06", "torch 2.13.0", "sm_90", "nothing is wrong"):  # fmt: skip
        assert fact in said


BOARD = HEALTHY["index,name,memory.total"]


@pytest.mark.parametrize(
    ("answers", "code", "expected"),
    [
        ({"": "Failed to initialize NVML: Driver/library version mismatch"}, 18, "restart the machine"),
        ({"": "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."}, 9, "modprobe nvidia"),
        ({"": "No devices were found"}, 6, "finds no GPU"),
        ({"": "something nobody foresaw"}, 1, "something nobody foresaw"),
        (HEALTHY | {"driver_version": "550.1"}, 0, "the library is 550.1 and the kernel module 580.65.06"),
        (HEALTHY | {"index,name,memory.total": BOARD[:-1] + "3"}, 0, "3 uncorrected ECC errors"),
        (HEALTHY | {"index,name,memory.total": BOARD.replace(" 41,", " 91,")}, 0, "91 C"),
        (HEALTHY | {"index,clocks": "0, Active"}, 0, "slowed down (hw_slowdown)"),
        (HEALTHY | {"": "CUDA Version: 12.4"}, 0, "torch needs CUDA 13.0 and the driver runs 12.4"),
    ],
)
def test_what_is_wrong_with_the_driver_or_a_gpu_is_said(
    box: GpuBox, answers: dict[str, str], code: int, expected: str
) -> None:
    box.smi(answers, code)
    ended, _, wrong = box.examined()
    assert ended == 1
    assert any(expected in line for line in wrong), wrong


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("Traceback\nModuleNotFoundError: No module named 'torch'", 1, "No module named 'torch'"),
        ("version 2.13.0+cpu\nbuilt without CUDA", 0, "built without CUDA"),
        (TORCH.replace("available True", "available False"), 0, "torch sees no GPU"),
        (TORCH.replace("90 True", "61 False"), 0, "no kernels for sm_61"),
        (TORCH.replace("computes True", "computes False"), 0, "defective"),
    ],
)
def test_what_is_wrong_with_torch_is_said(box: GpuBox, text: str, code: int, expected: str) -> None:
    box.torch(text, code)
    ended, _, wrong = box.examined()
    assert (ended, len(wrong)) == (1, 1)
    assert expected in wrong[0]


def test_notes_are_no_faults(box: GpuBox) -> None:
    box.smi(HEALTHY | {"index,name,memory.total": BOARD.replace("Enabled", "Disabled").replace(" 0", " [N/A]"),
                       "compute-apps": "4711, 1024, python"})  # fmt: skip
    (box.root / ".dockerenv").touch()
    code, said, wrong = box.examined(CUDA_VISIBLE_DEVICES="0")
    assert (code, wrong) == (0, [])
    assert "persistence mode is off" in said and "process 4711 (python) holds 1024 MiB" in said and "container" in said


def test_a_machine_without_a_gpu_says_what_to_do(box: GpuBox) -> None:
    (box.programs / "nvidia-smi").unlink()
    for node in (box.root / "dev").iterdir():
        node.unlink()
    (box.root / "proc/driver/nvidia/version").unlink()
    code, _, wrong = box.examined(CUDA_VISIBLE_DEVICES="")
    assert code == 1
    expected = ("CUDA_VISIBLE_DEVICES hides every GPU", "/dev/nvidia0", "nvidia-smi")
    assert all(each in line for each, line in zip(expected, wrong, strict=True))


def test_a_missing_node_is_named_with_its_cure(box: GpuBox) -> None:
    (box.root / "dev/nvidia-uvm").unlink()
    assert "nvidia-modprobe" in box.examined()[2][0]
