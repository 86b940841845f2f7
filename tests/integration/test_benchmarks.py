"""The benchmarks run; what they measure is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def told_by(root: Path, benchmark: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, f"benchmarks/{benchmark}.py", *arguments, "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_no_op_tasks_are_counted_by_the_second(root: Path) -> None:
    told = told_by(root, "noop_tasks", "--tasks", "3", "--rounds", "1")
    assert (told["tasks"], len(told["rounds_per_s"])) == (3, 1)


@pytest.mark.slow
def test_claims_over_http_are_counted_by_the_second(root: Path) -> None:
    told = told_by(root, "supabase_claims", "--tasks", "20", "--claimers", "2")
    assert min(told["many_clients"]["claims_per_s"], told["noop_tasks_per_s"]) > 0


@pytest.mark.slow
def test_lanes_are_compared_with_one_task_after_the_other(root: Path) -> None:
    told = told_by(root, "lanes", "--tasks", "2", "--gpu", "0.1", "--rounds", "1")
    assert [row["host_to_gpu"] for row in told["rows"]] == ["1:1", "1:4", "2:1"]


@pytest.mark.slow
def test_the_order_of_claims_is_compared_with_that_of_age(root: Path) -> None:
    told = told_by(root, "affinity", "--tasks", "100", "--gpu", "0.05", "--load", "0.1", "--rounds", "1")
    by_age, ours = told["rows"]
    assert by_age["switches"] > 2 * ours["switches"]
    assert ours["passed_over"] <= 8


@pytest.mark.slow
def test_files_written_beside_the_accelerators_thread_are_compared_with_those_on_it(root: Path) -> None:
    told = told_by(root, "saving", "--frames", "9", "--size", "64x48", "--rounds", "1")
    assert [row["clip"] for row in told["rows"]] == ["as it is", "with film grain"]


@pytest.mark.slow
def test_queues_are_compared_with_huey_and_procrastinate(root: Path) -> None:
    told = told_by(root, "queues", "--tasks", "5", "--rounds", "1")
    assert [row["queue"] for row in told["rows"]] == ["SQLite, ours", "huey", "Postgres, ours", "procrastinate"]


@pytest.mark.slow
def test_several_workers_run_each_task_once(root: Path) -> None:
    told = told_by(root, "scaling", "--each", "2", "--gpu", "0.1", "--workers", "1,2")
    assert [(row["database"], row["workers"]) for row in told["rows"]] == [
        ("SQLite", 1), ("SQLite", 2), ("Postgres", 1), ("Postgres", 2),
    ]  # fmt: skip
    assert all(row["duplicates"] == 0 for row in told["rows"])


@pytest.mark.slow
def test_what_a_benchmark_prints_becomes_a_section_of_the_page(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Old\n\n## join\n\nold numbers\n", encoding="utf-8")
    command = [sys.executable, "benchmarks/collect.py", "hand_off", "--into", str(page)]
    subprocess.run(command, cwd=root, capture_output=True, timeout=170, check=False)
    written = page.read_text(encoding="utf-8")
    assert written.index("## hand_off") < written.index("| text |") < written.index("## join\n\nold numbers")


@pytest.mark.slow
def test_the_engines_levers_are_compared_with_stock_diffusers_on_a_cpu(root: Path) -> None:
    told = told_by(
        root, "engine_cpu", "--frames", "9", "--side", "64", "--steps", "10", "--clips", "1", "--rounds", "1",
        "--speed-ups", "2",
    )  # fmt: skip
    short, long = told["decode"]["memory"]
    assert min(short["streamed"], long["streamed"]) > 0
    whole, ours, theirs = told["vace"]
    assert whole["vace_blocks"] == theirs["vace_blocks"] == 2 * ours["vace_blocks"]
    assert min(row["psnr_db"] for row in told["numbers"][1:]) > 20, "one clip, 10 steps"
    assert told["lora"][-1]["taken_out_bit_for_bit"]


@pytest.mark.slow
def test_the_benchmark_of_the_accelerator_runs_to_its_end_in_small(root: Path) -> None:
    told = told_by(root, "engine_gpu", "--tiny", "--device", "cpu", "--rounds", "1", "--models", "t2v_1.3B")
    stock, chosen, compiled, *in_fp8 = told["forward"]
    assert stock["arm"] == "diffusers" and chosen["error"] == compiled["error"] == 0
    assert len(in_fp8) == 3 and all("16 of 16 layers" in row["arm"] and 0 < row["error"] < 0.05 for row in in_fp8)
    assert told["switch"][0]["arm"] == "from_pretrained" and len(told["switch"]) == 4
    assert told["lora"][-1]["taken_out_bit_for_bit"] and len(told["lora"]) == 3
    assert told["vae"][1]["mean_error_8_bit"] == told["vae"][2]["mean_error_8_bit"] == 0
    assert told["vae_compiled"][1]["mean_error_8_bit"] < 0.5
    assert {row["tokens"] for row in told["attention"]} == {256, 512}
    assert 0 <= told["idle"][0]["idle_share"] < 1


@pytest.mark.slow
def test_the_benchmark_of_the_accelerator_says_when_there_is_none(root: Path) -> None:
    command = [sys.executable, "benchmarks/engine_gpu.py", "--device", "cpu"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 1 and "add --tiny" in done.stderr
