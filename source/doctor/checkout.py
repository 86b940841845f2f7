"""The upstream checkout that is the engine where the settings name one."""

from __future__ import annotations

import time

from headless.bridge.orchestrator import UpstreamOrchestrator
from headless.checkout import inspect_wan_dir
from headless.orchestrator import machine_device
from source.doctor.checks import Check, Finding, State, doubtful, failed, well
from source.settings import Settings, child_environment

#: an import of a whole application from a slow disk
IMPORT_S = 600.0
ADVICE = "set WAN_DIR to the folder of a checkout, or leave it out for the built-in engine (docs/upstream.md)"


def checkout_checks(settings: Settings) -> list[Check]:
    """None without a checkout; else what it is, and whether its interpreter can import it."""
    if settings.wan_dir is None:
        return []
    return [
        Check("checkout", lambda: shape(settings), ADVICE),
        Check("checkout import", lambda: imported(settings), "install it with its own environment (docs/upstream.md), "
              "or name its Python with WAN_PYTHON", IMPORT_S, needs="checkout"),
    ]  # fmt: skip


def upstream_engine(settings: Settings) -> UpstreamOrchestrator:
    """The engine in the checkout that the settings name. Raises InvalidInput, saying what was looked for."""
    assert settings.wan_dir is not None
    return UpstreamOrchestrator(
        settings.wan_dir,
        environment=child_environment(),
        python=settings.wan_python,
        device=settings.device,
        tools=settings.main_output_dir / "tools",
        settings=settings.for_checkout,
    )


def shape(settings: Settings) -> Finding:
    """Which one it is and how it is driven, read from its text. Raises InvalidInput."""
    assert settings.wan_dir is not None
    found = inspect_wan_dir(settings.wan_dir)
    python = settings.wan_python or found.python
    if not python.is_file():
        return failed(f"there is no Python {python}", "set WAN_PYTHON to the interpreter of its environment")
    told = f"{found}, driven by {python}"
    if settings.device is None and machine_device() == "cpu":
        return doubtful(f"{told}; this machine has no GPU that the worker sees", "Wan2GP asks CUDA when it is imported")
    return well(told)


def shape_at_once(settings: Settings) -> Finding:
    """The same for a worker that starts: one that is well is logged by the engine. Raises InvalidInput."""
    found = shape(settings)
    return found if found.state is not State.OK else well("")


def imported(settings: Settings) -> Finding:
    """Start its interpreter, as a worker would. Raises WanError."""
    started = time.monotonic()
    with upstream_engine(settings) as engine:
        engine.start()
        return well(f"imported in {time.monotonic() - started:.0f} s; {len(engine.models())} models")
