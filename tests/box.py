"""A GPU box of one test: its database, and the project's commands run in it, as a user runs them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: a lease that a test can wait for
SHORT_LEASE = {"LEASE_S": "3", "HEARTBEAT_S": "1", "RESCUE_INTERVAL_S": "1", "POLL_INTERVAL_S": "1"}


class Box:
    """One folder with a database in it."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.database = folder / "tasks.db"

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command, "--db-file", str(self.database)],
            cwd=self.root, env=os.environ | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *command: str, timeout_s: float = 170, **environment: str) -> str:
        process = self.start(*command, **environment)
        out, err = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, err
        return out.strip()

    def add(self, task_type: str, params: dict[str, Any], dependant_on: Sequence[str] = ()) -> str:
        """Queue a task; returns its id."""
        edges = [word for task in dependant_on for word in ("--dependant-on", task)]
        return self.run("add_task.py", "--type", task_type, "--params", json.dumps(params), *edges)

    def sample(self, name: str) -> dict[str, Any]:
        """The parameters of samples/tasks/<name>.json."""
        params: dict[str, Any] = json.loads((self.root / "samples" / "tasks" / f"{name}.json").read_text())
        return params

    def queue_travel(self, **changes: Any) -> str:
        params = self.sample("travel_orchestrator")
        params["orchestrator_details"] |= changes
        return self.add("travel_orchestrator", params)

    def work(self, timeout_s: float = 170, **environment: str) -> str:
        return self.run("worker.py", *self.worker_arguments, timeout_s=timeout_s, **environment)

    @property
    def worker_arguments(self) -> tuple[str, ...]:
        return ("--main-output-dir", str(self.folder / "outputs"), "--until-idle")

    def view(self, task: str) -> dict[str, Any]:
        return json.loads(self.run("debug.py", "task", task, "--json"))

    def video(self, view: dict[str, Any]) -> Path:
        return self.folder / "public" / view["output_location"]

    def completions(self) -> Counter[str]:
        """How often each task was completed, by the timeline."""
        connection = sqlite3.connect(self.database)
        try:
            rows = connection.execute("SELECT task_id FROM task_events WHERE name = 'complete'").fetchall()
        finally:
            connection.close()
        return Counter(task for (task,) in rows)
