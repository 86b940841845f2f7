"""Levers that are chosen by measuring: what is kept, what may be chosen, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_loras
import torch

from Wan2GP.engine.speed.attention import NATIVE, Measured, fastest, measure_attention, set_attention
from Wan2GP.engine.speed.choices import Choices
from Wan2GP.engine.speed.compiling import compile_blocks
from Wan2GP.errors import InvalidInput, ModelUnavailable

CPU = torch.device("cpu")


def test_a_choice_is_measured_once_and_kept_for_later_processes(tmp_path: Path) -> None:
    asked: list[str] = []

    def measure() -> str:
        asked.append("x")
        return "flash"

    file = tmp_path / "weights" / "choices.json"
    assert [Choices(file).of("card A", measure) for _ in range(2)] == ["flash"] * 2
    assert Choices(file).of("card B", lambda: "native") == "native"
    assert len(asked) == 1
    assert json.loads(file.read_text()) == {"card A": "flash", "card B": "native"}


def test_choices_that_cannot_be_read_are_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "choices.json"
    file.write_text("{half of")
    assert Choices(file).of("card", lambda: "flash") == "flash"
    assert Choices(file).of("card", lambda: pytest.fail("it was kept")) == "flash"


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([Measured("flash", 0.5, 0.004)], "flash"),
        ([Measured("flash", 0.99, 0.004)], NATIVE),
        ([Measured("sage", 0.5, 0.03)], NATIVE),
        ([Measured("sage", 0.4, 0.03), Measured("flash", 0.6, 0.004), Measured("xformers", 0.8, 0.004)], "flash"),
        ([], NATIVE),
    ],
)
def test_the_fastest_kernel_that_rounds_no_worse_takes_the_place_of_torchs_own(
    others: list[Measured], chosen: str
) -> None:
    assert fastest([Measured(NATIVE, 1.0, 0.0), *others]) == chosen


def test_kernels_are_measured_by_what_they_compute(tmp_path: Path) -> None:
    own, other = measure_attention((1, 64, 2, 24), torch.float32, CPU, [NATIVE, "_native_math"], repeats=1)
    assert own.error == 0 and 0 < other.error < 1e-5
    assert min(own.seconds, other.seconds) > 0


def test_a_kernel_that_is_not_installed_is_left_out_of_a_measurement(tmp_path: Path) -> None:
    measured = measure_attention((1, 64, 2, 24), torch.float32, CPU, ["flash", NATIVE], repeats=1)
    assert [each.kernel for each in measured] == [NATIVE]


def test_a_cpu_keeps_torchs_own_kernel_and_measures_nothing(tmp_path: Path) -> None:
    assert set_attention([tiny_loras.transformer()], "auto", CPU, tmp_path) == NATIVE
    assert not list(tmp_path.iterdir())


def test_a_mode_that_cannot_run_here_is_refused(tmp_path: Path) -> None:
    model = tiny_loras.transformer()
    assert set_attention([model], "sdpa", CPU, tmp_path) == NATIVE
    with pytest.raises(ModelUnavailable, match="'sage2' does not run on cpu"):
        set_attention([model], "sage2", CPU, tmp_path)
    with pytest.raises(InvalidInput, match="no attention mode 'quick'; choose auto, sdpa, flash"):
        set_attention([model], "quick", CPU, tmp_path)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same(tmp_path: Path) -> None:
    model = tiny_loras.transformer("t2v")
    plain = tiny_loras.predict(model)
    compile_blocks(model, tmp_path, backend="eager")
    assert torch.equal(tiny_loras.predict(model), plain)


@pytest.mark.slow
def test_what_the_compiler_made_is_kept_and_taken_up(tmp_path: Path) -> None:
    from Wan2GP.engine.speed.compiling import KEPT, keep_compiled

    model = tiny_loras.transformer("t2v")
    plain = tiny_loras.predict(model)
    compile_blocks(model, tmp_path)
    assert torch.allclose(tiny_loras.predict(model), plain, atol=1e-5)
    assert keep_compiled(tmp_path) and (tmp_path / KEPT).stat().st_size > 0
    again = tiny_loras.transformer("t2v")
    compile_blocks(again, tmp_path)
    assert torch.allclose(tiny_loras.predict(again), plain, atol=1e-5)
