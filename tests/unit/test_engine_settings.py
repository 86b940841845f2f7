"""The engine's settings: what this engine does, what happens anyway, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headless.orchestrator import MemoryPlan
from source.errors import ConfigurationError
from source.settings import load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_profile_and_budgets_are_taken_from_flags_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGP_PROFILE", "4")
    monkeypatch.setenv("RAM_BUDGET_GB", "1.5")
    settings = load_settings(wgp_preload_policy="p, U")
    assert (settings.wgp_profile, settings.ram_budget_gb, settings.gpu_budget_gb) == (4, 1.5, None)
    assert settings.preload_policy == {"P", "U"}
    assert MemoryPlan(ram_gb=1.5, cache_mb=3).budgets().host_bytes == 3 * 2**29


@pytest.mark.parametrize(
    "met",
    [
        {"wgp_attention_mode": "auto"}, {"wgp_compile": ""}, {"wgp_vae_config": 0}, {"wgp_boost": 2},
        {"wgp_preload": 0}, {"wgp_transformer_quantization": "bf16"}, {"wgp_transformer_quantization": "fp8"},
        {"wgp_vae_precision": 16}, {"wgp_vae_precision": 32}, {"vae_channels_last": True},
        {"wgp_mixed_precision": 0},
    ],
    ids=str,
)  # fmt: skip
def test_what_happens_anyway_may_be_asked_for(met: dict[str, object]) -> None:
    load_settings(**met)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"wgp_profile": 6}, "wgp_profile: "),
        ({"wgp_transformer_quantization": "int8"}, "'int8' cannot be met: .* are widened .* give 'bf16' or 'fp8'"),
        ({"wgp_preload": 2000}, "wgp_preload 2000 cannot be met: .* keeps nothing there; leave it out, or give 0"),
        ({"wgp_boost": 1}, "no boost"),
        ({"wgp_preload_policy": "P,X"}, "letters P, S and U, not X"),
    ],
    ids=str,
)
def test_what_would_not_act_is_refused_and_says_why(asked: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        load_settings(**asked)


def test_a_checkout_is_told_them_by_its_own_names() -> None:
    settings = load_settings(
        wan_dir=Path("w"), wgp_profile=4, wgp_transformer_quantization="int8", wgp_preload=2000, wgp_vae_precision=16,
        wgp_preload_policy="U,P",
    )  # fmt: skip
    assert settings.for_checkout == {
        "profile": 4, "transformer_quantization": "int8", "preload_in_VRAM": 2000, "vae_precision": "16",
        "preload_model_policy": ["P", "U"],
    }  # fmt: skip


def test_the_worker_has_the_flags_that_workers_of_wan2gp_know(root: Path) -> None:
    told = subprocess.run([sys.executable, root / "worker.py", "--help"], capture_output=True, text=True, check=True)
    names = "attention-mode compile profile vae-config boost preload transformer-quantization transformer-dtype-policy"
    for name in (*names.split(), "text-encoder-quantization", "vae-precision", "mixed-precision", "preload-policy"):
        assert f"--wgp-{name} " in told.stdout
