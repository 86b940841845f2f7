"""Every task type has a sample, and every sample is run and measured by one of the modules here."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

from source.task_registry import registry


def samples(root: Path) -> set[str]:
    return {path.stem for path in (root / "samples" / "tasks").glob("*.json")}


def lists(folder: Path) -> Counter[str]:
    """How many of the modules run each sample."""
    found: Counter[str] = Counter()
    for path in sorted(folder.glob("test_samples*.py")):
        specification = importlib.util.spec_from_file_location(f"listed_{path.stem}", path)
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[specification.name] = module  # dataclasses look their module up
        specification.loader.exec_module(module)
        found.update(getattr(module, "SAMPLES", ()))
    return found


def test_every_task_type_has_a_sample(root: Path) -> None:
    assert {kind.name for kind in registry()} == {name.partition(".")[0] for name in samples(root)}


def test_every_sample_is_run_by_exactly_one_module(root: Path) -> None:
    run = lists(Path(__file__).parent)
    assert {name: run[name] for name in samples(root) | set(run)} == dict.fromkeys(samples(root), 1)
