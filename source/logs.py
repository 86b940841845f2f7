"""Logging: one configuration, the task's id in every line, secrets out.

A log file whose name ends in .jsonl holds one JSON object a line, for programs; any other one holds the lines of the
console. LOG_FORMAT=json makes the console's such objects too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.config
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from source.abbreviation import ShortValues
from source.log_files import SharedLogFile
from source.redaction import REDACTED, hidden, redact, redact_values, secrets_in
from source.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "REDACTED", "JsonLinesFormatter", "RedactingFormatter", "TaskIdFilter", "configure_logging", "logging_config",
    "redact", "redact_values", "secret_values", "task_context",
]  # fmt: skip

_task_id: ContextVar[str] = ContextVar("task_id", default="-")

LINE = "%(asctime)s %(levelname)-7s %(component)s [%(task)s] %(message)s"
#: on a terminal the first eight characters tell tasks apart, as its progress bars do
RICH_LINE = "[%(task).8s] %(message)s"
#: ending of log files for programs
JSON_LINES = ".jsonl"
FILTERS = ["task", "short"]
#: the logger of the debug trail: a file for programs holds all of it, also where the console shows none
TRAIL = "source.trail"


def secret_values(settings: Settings) -> tuple[str, ...]:
    """The values of the settings that are marked secret; of `@FILE`, what the file holds."""
    marked = (_held(value.get_secret_value()) for _, value in settings if isinstance(value, SecretStr))
    return tuple(value for value in marked if value)


def _held(secret: str) -> str:
    """A file that cannot be read holds nothing."""
    if not secret.startswith("@"):
        return secret
    try:
        return Path(secret[1:]).expanduser().read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError, RuntimeError):
        return ""


@contextlib.contextmanager
def task_context(task_id: str, params: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Lines logged inside carry this task's id, also on threads that copy the context; what its `params` hold under the
    names of secrets is in none of them."""
    token = _task_id.set(task_id)
    try:
        with hidden(secrets_in(params)):
            yield
    finally:
        _task_id.reset(token)


class TaskIdFilter(logging.Filter):
    """Gives every record the id of the task that this thread works on, and the short name of what speaks."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.task = _task_id.get()
        record.component = record.name.rpartition(".")[2]
        return True


class RedactingFormatter(logging.Formatter):
    """Redacts the whole formatted line, tracebacks included."""

    def __init__(self, fmt: str | None = None, datefmt: str | None = None, secrets: Iterable[str] = ()) -> None:
        super().__init__(fmt, datefmt)
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), self._secrets)


class JsonLinesFormatter(logging.Formatter):
    """A record as one line of JSON, without secrets.

    time (UTC, ISO 8601), level, logger, task, message; category and facts for a record of the debug trail; traceback
    where there is one.
    """

    def __init__(self, fmt: str | None = None, datefmt: str | None = None, *, secrets: Iterable[str] = ()) -> None:
        super().__init__(fmt, datefmt)
        self._secrets = tuple(secret for secret in secrets if secret)
        self._escaped = tuple(json.dumps(secret, ensure_ascii=False)[1:-1] for secret in self._secrets)

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "task": getattr(record, "task", "-"),
        }
        if hasattr(record, "category"):
            facts = json.loads(json.dumps(getattr(record, "facts", {}), default=str))
            values |= {"category": record.category, "facts": redact_values(facts)}
        values["message"] = redact(record.getMessage(), self._secrets)
        if record.exc_info:
            values["traceback"] = redact(self.formatException(record.exc_info), self._secrets)
        line = json.dumps(values, ensure_ascii=False)
        for secret in self._escaped:
            line = line.replace(secret, REDACTED)
        return line


def logging_config(settings: Settings, console: Console) -> dict[str, Any]:
    """A dictConfig: rich on a terminal, plain lines elsewhere, and the file that `log_file` names."""
    level = "DEBUG" if settings.debug else "INFO"
    levels = dict.fromkeys(("source", "headless", "Wan2GP"), level)
    handlers: dict[str, Any] = {"console": _console_handler(console, settings.log_format) | {"level": level}}
    if settings.log_file:
        handlers["file"] = _file_handler(settings, settings.log_file)
    for_programs = handlers.get("file", {}).get("formatter") == "json"
    levels[TRAIL] = "DEBUG" if for_programs else level
    secrets = secret_values(settings)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"task": {"()": TaskIdFilter}, "short": {"()": ShortValues, "secrets": secrets}},
        "formatters": {
            "line": {"()": RedactingFormatter, "fmt": LINE, "secrets": secrets},
            "rich": {"()": RedactingFormatter, "fmt": RICH_LINE, "secrets": secrets},
            "json": {"()": JsonLinesFormatter, "secrets": secrets},
        },
        "handlers": handlers,
        "loggers": {name: {"level": each} for name, each in levels.items()},
        "root": {"level": "WARNING", "handlers": list(handlers)},
    }


def configure_logging(settings: Settings, console: Console) -> None:
    """Apply `logging_config`. Creates the folder of the log file."""
    if settings.log_file:
        settings.log_file.parent.mkdir(parents=True, exist_ok=True)
    logging.config.dictConfig(logging_config(settings, console))
    logging.captureWarnings(True)


def _console_handler(console: Console, form: str) -> dict[str, Any]:
    if console.is_terminal and form == "text":
        return {
            "class": "rich.logging.RichHandler",
            "console": console,
            "show_path": False,
            "markup": False,
            "formatter": "rich",
            "filters": FILTERS,
        }
    formatter = "json" if form == "json" else "line"
    return {"class": "logging.StreamHandler", "stream": console.file, "formatter": formatter, "filters": FILTERS}


def _file_handler(settings: Settings, path: Path) -> dict[str, Any]:
    return {
        "()": SharedLogFile,
        "filename": path,
        "max_bytes": round(settings.log_file_mb * 2**20),
        "keep": settings.log_files,
        "formatter": "json" if path.suffix.lower() == JSON_LINES else "line",
        "filters": FILTERS,
    }
