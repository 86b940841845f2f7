"""Settings of what a worker tells those who watch it: log, samples, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class ObservationSettings(BaseSettings):
    """What is told where, and how much of it is kept."""

    save_logging: Path | None = Field(
        None,
        description="also write the log to this file; one that ends in .jsonl holds JSON, one object a line. With "
        "`DEBUG` it is logs/worker.log where nothing else is said",
    )
    log_format: Literal["text", "json"] = Field("text", description="the log on the console: `text` or `json`")
    log_file_mb: float = Field(
        20, gt=0, description="size at which the log file is put aside and a new one is begun (FILE.1, FILE.2 …)"
    )
    log_files: int = Field(5, ge=1, le=1000, description="log files kept, the current one included")
    log_lines: int = Field(100_000, ge=0, description="log lines kept in a SQLite file")
    log_days: float = Field(7, gt=0, description="days that they are kept")
    sample_hours: float = Field(24, gt=0, description="hours that samples of workers are kept in a SQLite file")
    worker_days: float = Field(
        30, gt=0, description="days after its last heartbeat that a worker's row is kept in a SQLite file"
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="the worker answers Prometheus here (docs/monitoring.md); 0 takes a free port",
    )
    metrics_host: str = Field(
        "127.0.0.1", min_length=1, description="and on this address of the machine; whoever reaches it may read"
    )
