"""Shared fixtures. Tests read no environment of the machine and patch nothing of ours."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from source.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"


# Shared machines stall: time is no property of ours here.
hypothesis_settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("ours")


def pytest_collection() -> None:
    """Imports make much that stays and little garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What the imports brought stays, so no collection of garbage looks at it again. With all of torch and diffusers
    one takes a third of a second, and whoever lets a model go asks for one: it was most of the time of such tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of ours leaks in from the shell, and no test talks to a model hub."""
    names = {name.upper() for name in Settings.model_fields} | {"WORKER_ID", "WAN2GP_CACHE"}
    for name in names & {name.upper() for name in os.environ}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    yield


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of sample media."""
    return SAMPLES


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """What a test configures of logging is taken back."""
    loggers = [logging.getLogger(name) for name in (None, "source", "source.trail", "headless", "Wan2GP")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
    logging.captureWarnings(False)
