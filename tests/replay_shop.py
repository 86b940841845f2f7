"""A worker with the project's task types, and `debug.py replay` on what it made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_floor import Floor

import debug
from source.provenance.record import Provenance, read_provenance
from source.store.types import NewTask, Status, Task
from source.task_registry import registry
from Wan2GP.media import read_frames, read_image

CLIP = {"model": "tiny_wan_t2v", "prompt": "a red circle", "resolution": "32x32", "video_length": 5,
        "num_inference_steps": 2}  # fmt: skip
#: the same on the fake engine
FAKE_CLIP = CLIP | {"model": "fake_t2v"}


class ReplayShop(Floor):
    """A floor whose tasks are the real ones."""

    def __init__(self, folder: Path, engine: Any = None, **settings: Any) -> None:
        super().__init__(folder, engine, ckpts=folder / "ckpts", loras_dir=folder / "loras", **settings)
        self.registry = registry()

    def worker(self, **choices: Any) -> Any:
        return super().worker(**({"weights": self.engine.weight_files} | choices))

    def run(self, task_type: str, /, dependant_on: tuple[str, ...] = (), **params: Any) -> Task:
        """Add a row, work until nothing is left, and return it, complete."""
        task = self.store.add(NewTask(task_type=task_type, params=params, dependant_on=dependant_on))
        return self.finished(task)

    def finished(self, task_id: str) -> Task:
        assert self.work() == 0
        row = self.store.get(task_id)
        assert row.status is Status.COMPLETE, row.error_message
        return row

    def record(self, row: Task) -> Provenance:
        return read_provenance(self.output(row.id))

    def frames(self, row: Task) -> np.ndarray:
        """(F, H, W, 3); a picture is one frame."""
        path = self.output(row.id)
        return read_image(path)[None] if path.suffix == ".png" else np.stack(list(read_frames(path)))


class Command:
    """`debug.py`, called in this process."""

    def __init__(self, shop: ReplayShop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._shop, self._monkeypatch, self._capsys = shop, monkeypatch, capsys

    def __call__(self, *arguments: object, db_file: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        words = ["debug.py", *map(str, arguments), "--db-file", str(db_file or self._shop.settings.db_file)]
        self._monkeypatch.setattr("sys.argv", words)
        self._monkeypatch.setenv("LORAS_DIR", str(self._shop.settings.loras_dir))
        self._monkeypatch.setenv("WAN2GP_CACHE", str(self._shop.settings.ckpts))
        self._capsys.readouterr()
        code = debug.main()
        out, err = self._capsys.readouterr()
        return code, out, err

    def replay(self, file: Path, *arguments: object) -> dict[str, Any]:
        """What was queued. Fails when the command does."""
        code, out, err = self("replay", file, "--json", *arguments)
        assert code == 0, err
        view: dict[str, Any] = json.loads(out)
        return view

    def refusal(self, file: Path, *arguments: object) -> str:
        """What the command says when it queues nothing."""
        before = len(self._shop.store.tasks(limit=1000))
        code, _, err = self("replay", file, *arguments)
        assert (code, len(self._shop.store.tasks(limit=1000))) == (1, before)
        return err
