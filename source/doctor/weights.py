"""Whether the weights are there that queued tasks ask for, or the person who asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from headless.bridge.models import CheckoutModels
from headless.checkout import inspect_wan_dir
from headless.orchestrator import machine_device
from source.doctor.checks import Check, Finding, failed, well
from source.doctor.machine import module_run
from source.errors import InvalidInput, WanError
from source.settings import Settings
from source.store.base import TaskStore
from source.store.types import Status, Task
from source.task_registry import registry
from Wan2GP.definitions import availability, load_definitions

#: the newest queued rows that are looked at
MAX_ROWS = 1000
#: a model's files are hashed whole where the hub said what they should be
VERIFY_S = 1800.0

Opened = Callable[[], TaskStore]


def weight_checks(settings: Settings, opened: Opened, models: Sequence[str]) -> list[Check]:
    """One for each of `models`, down to the content of its files; without any, one for what queued rows ask for.

    A checkout fetches its weights itself: then it is only looked whether it has models of those names.
    """
    if settings.wan_dir is not None:
        return [Check(f"model {name}", partial(known, settings, name), needs="checkout") for name in models]
    if models:
        return [
            Check(f"weights of {name}", partial(verified, settings, name), timeout_s=VERIFY_S + 10) for name in models
        ]
    return [Check("weights", lambda: of_queued_rows(settings, opened), timeout_s=60, needs="database")]


def verified(settings: Settings, model: str) -> Finding:
    """What `python -m Wan2GP.models verify` says of a model that is there. Raises UnknownModel."""
    folders = _own_definitions(settings)
    definition = load_definitions(folders)[model]
    if not definition.architecture.needs_weights:
        return well("it needs none")
    reason = availability(definition, settings.ckpts)
    if reason is not None:
        return failed(reason, "")
    named = [word for folder in folders for word in ("--definitions", str(folder.absolute()))]
    done = module_run(
        "Wan2GP.models", "verify", model, "--ckpts", str(settings.ckpts.absolute()), *named, timeout_s=VERIFY_S
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"the process ended with code {done.returncode}"]
        return failed(said[0], "delete it, and fetch it again")
    return well(f"whole: {len(done.stdout.strip().splitlines())} parts fit")


def known(settings: Settings, model: str) -> Finding:
    """Whether the checkout has the model. Raises UnknownModel."""
    assert settings.wan_dir is not None
    return well(f"its architecture is {CheckoutModels(inspect_wan_dir(settings.wan_dir))[model].info.architecture}")


def of_queued_rows(settings: Settings, opened: Opened) -> Finding:
    """Whether every model is there that a queued row asks for."""
    store = opened()
    try:
        rows = store.tasks(status=Status.QUEUED, limit=MAX_ROWS)
    finally:
        store.close()
    asked = Counter(_models(rows))
    if not asked:
        return well("no queued task asks for a model; `--model NAME` looks at one")
    definitions = load_definitions(_own_definitions(settings))
    device = (settings.device or machine_device()).partition(":")[0]
    lacking = []
    for model, count in sorted(asked.items()):
        try:
            reason = availability(definitions[model], settings.ckpts, device)
        except WanError as error:
            reason = str(error)
        if reason is not None:
            lacking.append(f"{count} queued: {reason}")
    if lacking:
        return failed("\n".join(lacking), "fetch them, or cancel these tasks: a worker on this machine fails them")
    return well("there for all that is queued: " + ", ".join(f"{model} ({count})" for model, count in asked.items()))


def _models(rows: Iterable[Task]) -> Iterable[str]:
    for row in rows:
        try:
            model = registry().get(row.task_type).parse(row.params).params.model or row.model
        except InvalidInput:
            model = row.model  # its worker says what is wrong with it
        if model:
            yield model


def _own_definitions(settings: Settings) -> list[Path]:
    return [settings.finetunes] if settings.finetunes.is_dir() else []
