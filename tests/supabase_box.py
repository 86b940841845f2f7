"""A GPU box of one test whose database is the local stack: the project's commands, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from box import Box
from local_stack import LocalStack, bearer

from source.edge_functions import EdgeFunctions, Token
from source.store.supabase import SupabaseStore
from source.store.types import Task

DEADLINE_S = 60.0
#: workers that look often, so that no test waits for a poll
QUICK = {
    "POLL_INTERVAL_S": "0.3", "RESCUE_INTERVAL_S": "0.5", "SUPABASE_LOOK_S": "0.2", "PROGRESS_INTERVAL_S": "0.2",
    "RETRY_DELAY_S": "0",
}  # fmt: skip
_nobody = threading.Event()


def wait_until(
    holds: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None, *,
    seconds: float = DEADLINE_S,
) -> None:  # fmt: skip
    """Look until it holds; `process` must live meanwhile."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert process is None or process.poll() is None, f"the worker ended before {what}"
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        _nobody.wait(0.02)


class SupabaseBox(Box):
    """One folder, and a token for the stack: the service key or a person's."""

    def __init__(self, root: Path, folder: Path, stack: LocalStack, token: str) -> None:
        super().__init__(root, folder)
        folder.mkdir(exist_ok=True)
        self.stack = stack
        self._environment = {
            "DB_TYPE": "supabase", "SUPABASE_URL": stack.url, "SUPABASE_ACCESS_TOKEN": token,
            "MEDIA_DIRS": str(root / "samples"), **QUICK,
        }  # fmt: skip
        #: what the database holds, seen by the service
        self.store = SupabaseStore(EdgeFunctions(stack.url, Token(stack.service_key)))

    def close(self) -> None:
        self.store.close()

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command], cwd=self.root, env=os.environ | self._environment | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @contextmanager
    def worker(self, name: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A worker with a scratch folder of its own; its log is `log(name)`. It is gone when the block ends."""
        folders = ("--worker", name, "--main-output-dir", str(self.folder / name))
        with self.log_file(name).open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "worker.py", *folders, *arguments],
                cwd=self.root, env=os.environ | self._environment | environment, text=True, stderr=log,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def log_file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def log(self, name: str) -> str:
        return self.log_file(name).read_text()

    def ends_well(self, process: subprocess.Popen[str], name: str) -> None:
        """Wait for the end of a worker."""
        assert process.wait(DEADLINE_S) == 0, self.log(name)

    def ask(self, function: str, token: str | None = None, **body: Any) -> Any:
        """The answer of an Edge Function, which must be a good one."""
        url = f"{self.stack.url}/functions/v1/{function}"
        answer = requests.post(url, headers=bearer(token or self.stack.service_key), json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """What a query of the database gives to the superuser."""
        with self.stack.database.acting() as superuser:
            return superuser.execute(statement.encode(), values).fetchall()

    def tasks(self) -> list[Task]:
        """All rows, the oldest first."""
        return sorted(self.store.tasks(limit=1000), key=lambda task: str(task.created_at))

    def completions(self) -> Counter[str]:
        """How often each task was completed, by the timeline."""
        found = self.rows("select task_id::text from task_events where name = 'complete'")
        return Counter(task for (task,) in found)

    def object_of(self, location: str) -> Path:
        """The file in the S3 server's folder behind a public URL."""
        prefix = f"{self.stack.url}/storage/v1/object/public/image_uploads/"
        assert location.startswith(prefix), location
        return self.stack.objects / location.removeprefix(prefix)

    def objects(self) -> set[str]:
        """The keys of all objects."""
        return {str(path.relative_to(self.stack.objects)) for path in files_below(self.stack.objects)}

    def undelivered(self) -> list[Path]:
        """Files of scratch and outbox; kept copies of what was delivered are none."""
        return [
            path for path in files_below(self.folder) if "delivered" not in path.parts and path.suffix != ".log"
        ]  # fmt: skip

    def add_for(self, project: str, task_type: str = "travel_orchestrator", **params: Any) -> str:
        """Queue a row by HTTP, as the service; returns its id."""
        added = self.ask("create-task", task_type=task_type, params=params, project_id=project)
        return str(added["task_id"])


def files_below(folder: Path) -> list[Path]:
    """All files, also while others remove some."""
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
