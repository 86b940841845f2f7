"""One frozen `Settings`. Precedence: command-line flag > environment > .env file > default.

This is the only reader of the environment. A variable has the name of its field in upper case (LEASE_S, MAX_ATTEMPTS,
POLL_INTERVAL_S …); a few older names are accepted beside it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, NoDecode, SettingsConfigDict

from headless.options import aliases
from source.addresses import is_loopback
from source.engine_settings import EngineSettings
from source.errors import ConfigurationError
from source.observation_settings import ObservationSettings


def _folders(value: Any) -> Any:
    """A list of folders written as PATH is: separated by ":" (";" on Windows)."""
    return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


def _words(value: Any) -> Any:
    """A list of texts, separated by commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _address(url: str | None) -> str | None:
    """An http(s) URL, without a slash at its end."""
    if url is not None and not re.match(r"https?://[^/\s@]+(/[^\s?#]*)?$", url):
        raise ValueError("must be an address such as https://abc.supabase.co, without user, ? and #")
    return url and url.rstrip("/")


class Settings(ObservationSettings, EngineSettings):
    """How the worker and the command-line tools behave."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    db_type: Literal["sqlite", "supabase"] = Field("sqlite", description="database backend: `sqlite` or `supabase`")
    db_file: Path = Field(Path("tasks.db"), description="SQLite file; final files go to public/files/ beside it")
    supabase_url: Annotated[str | None, AfterValidator(_address)] = Field(
        None, description="address of the Supabase project, such as https://abc.supabase.co"
    )
    supabase_access_token: SecretStr | None = Field(
        None,
        description="service key, personal access token or user JWT; `@FILE` reads it from a file, again when it is "
        "refused",
        validation_alias=AliasChoices(
            "supabase_access_token", "REIGH_ACCESS_TOKEN", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_KEY"
        ),
    )
    supabase_anon_key: SecretStr | None = Field(
        None, description="the project's publishable key; sent as `apikey` where a gateway asks for one"
    )
    supabase_video_bucket: str = Field("image_uploads", min_length=1, description="storage bucket of the results")
    supabase_allow_http: bool = Field(
        False, description="accept http:// addresses of other machines; the token then travels unencrypted"
    )
    supabase_look_s: float = Field(
        5, ge=0, description="shortest time between two looks for changes of others on Supabase; 0 looks at polls only"
    )
    supabase_edge_complete_task_url: Annotated[str | None, AfterValidator(_address)] = Field(
        None, description="another address of the function complete-task"
    )
    supabase_edge_create_task_url: Annotated[str | None, AfterValidator(_address)] = Field(
        None, description="another address of the function create-task"
    )
    supabase_edge_claim_task_url: Annotated[str | None, AfterValidator(_address)] = Field(
        None, description="another address of the function claim-next-task"
    )
    supabase_edge_update_task_url: Annotated[str | None, AfterValidator(_address)] = Field(
        None, description="another address of the function update-task-status"
    )
    supabase_edge_task_counts_url: Annotated[str | None, AfterValidator(_address)] = Field(
        None, description="another address of the function task-counts"
    )
    postgres_table_name: str = Field("tasks", description="must be `tasks`; there for older environment files")
    main_output_dir: Path = Field(Path("outputs"), description="scratch space, one folder a task")
    worker: str | None = Field(
        None, description="name of this worker", validation_alias=AliasChoices("worker", "WORKER_ID")
    )

    lease_s: float = Field(60, gt=0, description="seconds a claim lasts without a heartbeat")
    heartbeat_s: float = Field(20, gt=0, description="seconds between heartbeats")
    rescue_interval_s: float = Field(15, gt=0, description="seconds between looks for expired leases")
    poll_interval_s: float = Field(10, gt=0, description="longest wait before the table is looked at again")
    max_attempts: int = Field(3, ge=1, le=1000, description="failures and deaths before a task is given up")
    retry_delay_s: float = Field(10, ge=0, description="wait before the first retry; it doubles each time")
    max_in_flight: int = Field(
        3, ge=1, le=16, description="tasks claimed at once: one on the GPU, others being prepared or finished"
    )
    prepare_ahead_s: float = Field(
        5, ge=0, description="seconds after which a generation is claimed although another is still being prepared"
    )
    affinity_tasks: int = Field(
        8, ge=0, description="tasks of the loaded model that may go before an older one of the same owner and priority"
    )
    affinity_wait_s: float = Field(
        300, ge=0, le=2_592_000, description="seconds for which they may, or three times the longest measured load"
    )
    hang_s: float = Field(
        1800, gt=0, description="seconds without any sign of life after which an engine may be taken to hang"
    )
    hang_factor: float = Field(
        10, ge=1, description="and how many times the longest silence of that model so far it takes for that"
    )
    hang_grace_s: float = Field(
        60, ge=0, description="seconds that a hanging engine gets to stop before the worker ends itself (exit code 3)"
    )
    restart_delay_s: float = Field(
        1,
        ge=0,
        description="seconds before `worker.py --supervise` replaces a worker that died; doubled each time",
    )
    restart_healthy_s: float = Field(
        300, ge=0, description="seconds of life after which a worker's death counts as the first one again"
    )
    shutdown_grace_s: float = Field(5, ge=0, description="seconds that running tasks get to finish on SIGTERM")
    progress_interval_s: float | None = Field(
        None, ge=0, description="shortest time between two stored progress reports; default: 1, on Supabase 5"
    )
    previews: bool = Field(True, description="keep a small picture of what is generated with each task that runs")
    preview_interval_s: float | None = Field(
        None, ge=0, description="shortest time between two previews of a task; default: 2, on Supabase 5"
    )
    checkpoint_interval_s: float = Field(
        2, ge=0, description="shortest time between two kept states of a running generation; 0 keeps each step's"
    )
    checkpoint_days: float = Field(
        7, gt=0, description="days after which the kept state of an interrupted generation is removed"
    )

    outbox_days: float = Field(
        7, gt=0, description="days after which a finished result that could not be delivered is removed"
    )
    kept_outputs_gb: float = Field(
        2, ge=0, description="delivered files that a worker on Supabase keeps for tasks that go on from them"
    )

    min_free_gb: float = Field(
        1, ge=0, description="no task is claimed while less is free on the disk of scratch or results; 0 never looks"
    )
    scratch_quota_gb: float = Field(
        0,
        ge=0,
        description="no task is claimed while the scratch space holds more, beside undelivered results; 0: no limit",
    )
    outbox_quota_gb: float = Field(
        0, ge=0, description="one task at a time is claimed while undelivered results take more; 0: no limit"
    )

    wan_python: Path | None = Field(
        None, description="its Python; default: that of venv, .venv or env in its folder, else the worker's"
    )
    ckpts: Path = Field(
        Path("ckpts"), description="folder of model weights", validation_alias=AliasChoices("ckpts", "WAN2GP_CACHE")
    )
    finetunes: Path = Field(Path("finetunes"), description="folder of your own model definitions (JSON)")
    loras_dir: Path = Field(Path("loras"), description="folder of LoRA files, one folder a model family inside")
    lora_dirs: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_folders)] = Field(
        (), description="further folders whose LoRA files tasks may use, separated as in PATH; nothing is changed there"
    )
    max_lora_gb: float = Field(50, gt=0, description="largest LoRA file that is used")
    lora_cache_gb: float = Field(
        0, ge=0, description="downloaded LoRA files kept, least recently used go first; 0 keeps all"
    )
    hf_token: SecretStr | None = Field(
        None,
        description="token for private repositories of the Hugging Face hub",
        validation_alias=AliasChoices("hf_token", "HUGGING_FACE_HUB_TOKEN"),
    )
    hf_endpoint: str = Field(
        "https://huggingface.co", pattern="^https?://[^/]", description="the Hugging Face hub, or a mirror of it"
    )
    device: str | None = Field(None, description="torch device; chosen when absent")
    preload_model: str = Field("", description="model to load at start")
    mask_active_frames: bool = Field(True, description="give VACE models a mask video")
    colour_match_videos: bool = Field(False, description="match the colours of each segment of a travel to its images")

    download_timeout_s: float = Field(60, gt=0, description="longest silence of a download")
    max_download_mb: int = Field(2048, ge=1, description="largest file that is downloaded")
    media_dirs: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_folders)] = Field(
        (),
        description="on Supabase: folders whose files rows may name by path, separated as in PATH; others are refused",
    )
    fetch_allow: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = Field(
        (),
        description="on Supabase: machines of private networks that URLs of rows may lead to, separated by commas: "
        "`host`, `host:port`, or a network such as `10.1.0.0/16`",
    )
    max_upload_mb: int = Field(
        2048, ge=1, description="largest file that the page of `debug.py serve` and `add_task.py --from-wangp` take"
    )
    upload_days: float = Field(
        30, gt=0, description="days after which an uploaded file that no unfinished task names may be removed"
    )

    replicate_api_token: SecretStr | None = Field(None, description="token of Replicate, for magic_edit")
    replicate_base_url: str = Field(
        "https://api.replicate.com", pattern="^https?://[^/]", description="Replicate, or a proxy of it"
    )
    replicate_timeout_s: float = Field(900, gt=0, description="seconds after which an edit at Replicate is given up")

    comfy_url: str | None = Field(
        None, pattern="^https?://[^/]", description="a ComfyUI that runs already; without it the worker starts its own"
    )
    comfy_path: Path = Field(Path("/workspace/ComfyUI"), description="folder of the ComfyUI that the worker starts")
    comfy_port: int = Field(8188, ge=0, le=65535, description="its port, on 127.0.0.1 alone; 0 takes a free one")
    comfy_python: Path | None = Field(
        None, description="its Python; default: that of venv or .venv in its folder, else the worker's"
    )
    comfy_args: str = Field("", description="further arguments of its main.py, as on a command line")
    comfy_start_timeout_s: float = Field(120, gt=0, description="seconds that it gets to answer after a start")
    comfy_timeout_s: float = Field(3600, gt=0, description="seconds after which a workflow is stopped")
    comfy_stop_s: float = Field(
        15, ge=0, description="seconds that a cancelled workflow gets to end before the worker's ComfyUI is ended"
    )
    comfy_shares_gpu: bool | None = Field(
        None, description="whether it works on the worker's GPU; default: unless COMFY_URL names another machine"
    )

    debug: bool = Field(False, description="verbose log, also in a file; scratch folders are kept")
    skip_cleanup: bool = Field(False, description="keep scratch folders")
    page_token: SecretStr | None = Field(
        None,
        description="token of the page of `debug.py serve`, or `@FILE`: who has it may change tasks, and other "
        "machines may look",
    )
    page_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = Field(
        (), description="names that the page goes by beside this machine's own, separated by commas"
    )

    history_file: Path | None = Field(
        None,
        description="write each claim, step, upload and completion to this file, for the checker of `debug.py chaos`",
    )

    @field_validator("*", mode="after")
    @classmethod
    def _home_folder_written_out(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(cls._home_folder_written_out(each) for each in value)
        try:
            return value.expanduser() if isinstance(value, Path) else value
        except RuntimeError as error:
            raise ValueError(f"{value}: {error}") from None

    @model_validator(mode="after")
    def _heartbeats_fit_in_a_lease(self) -> Self:
        if self.heartbeat_s >= self.lease_s:
            raise ValueError(
                f"heartbeat_s ({self.heartbeat_s:g}) must be shorter than lease_s ({self.lease_s:g}), "
                "or every lease would expire between two heartbeats"
            )
        return self

    @field_validator("fetch_allow")
    @classmethod
    def _machines(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            if not re.fullmatch(r"[\w.-]+(:\d{1,5})?|\[[\da-fA-F:]+\](:\d{1,5})?|[\da-fA-F.:]+(/\d{1,3})?", entry):
                raise ValueError(f"{entry!r} is neither host, host:port nor a network such as 10.1.0.0/16")
        return entries

    @field_validator("postgres_table_name")
    @classmethod
    def _no_other_table(cls, name: str) -> str:
        if name != "tasks":
            raise ValueError(
                f"{name!r} cannot be used: the rules that no task is lost or done twice live in the database, on the "
                "table `tasks` alone; unset POSTGRES_TABLE_NAME, or give each installation a database of its own"
            )
        return name

    @model_validator(mode="after")
    def _supabase_can_be_reached(self) -> Self:
        if self.db_type == "supabase":
            if self.supabase_url is None:
                raise ValueError("db_type supabase needs the project's address: set SUPABASE_URL or --supabase-url")
            if self.supabase_access_token is None:
                raise ValueError(
                    "db_type supabase needs a token: set SUPABASE_ACCESS_TOKEN (or SUPABASE_SERVICE_ROLE_KEY), or give "
                    "--supabase-access-token @FILE"
                )
            for url in (self.supabase_url, *self.edge_function_urls.values()):
                if url.startswith("http://") and not self.supabase_allow_http and not is_loopback(url):
                    raise ValueError(
                        f"{url} would carry the token unencrypted; use https://, or set SUPABASE_ALLOW_HTTP=1 where "
                        "the network is trusted"
                    )
        return self

    @property
    def report_interval_s(self) -> float:
        """`progress_interval_s`, or what suits the database: on Supabase each report is a request."""
        usual = 5.0 if self.db_type == "supabase" else 1.0
        return usual if self.progress_interval_s is None else self.progress_interval_s

    @property
    def show_interval_s(self) -> float:
        """`preview_interval_s`, or what suits the database: on Supabase each preview is a request."""
        usual = 5.0 if self.db_type == "supabase" else 2.0
        return usual if self.preview_interval_s is None else self.preview_interval_s

    @property
    def edge_function_urls(self) -> dict[str, str]:
        """Edge functions that have an address of their own."""
        urls = {
            "complete-task": self.supabase_edge_complete_task_url,
            "create-task": self.supabase_edge_create_task_url,
            "claim-next-task": self.supabase_edge_claim_task_url,
            "update-task-status": self.supabase_edge_update_task_url,
            "task-counts": self.supabase_edge_task_counts_url,
        }
        return {function: url for function, url in urls.items() if url is not None}

    @property
    def log_file(self) -> Path | None:
        """`save_logging`; whoever asks for all of it wants to read it later, too."""
        return self.save_logging or (Path("logs/worker.log") if self.debug else None)

    @property
    def public_dir(self) -> Path:
        """The folder that `files/<name>` locations are relative to."""
        return self.db_file.resolve().parent / "public"

    @property
    def database(self) -> str:
        """What tells one database from another: its file, or the project's address."""
        return self.supabase_url or "" if self.db_type == "supabase" else str(self.db_file.resolve())

    @property
    def database_mark(self) -> str:
        """Eight letters and digits that tell this database from others in the names of files."""
        return hashlib.sha256(self.database.encode()).hexdigest()[:8]

    @property
    def keep_scratch(self) -> bool:
        return self.debug or self.skip_cleanup


def load_settings(**flags: Any) -> Settings:
    """Settings from flags (None means not given), environment, .env and defaults. Raises ConfigurationError."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise ConfigurationError("; ".join(problems)) from None


def origins(**flags: Any) -> dict[str, str]:
    """Where each setting comes from, by name: "flag", "environment", ".env" or "default"."""
    found = [
        ("flag", [name for name, value in flags.items() if value is not None]),
        ("environment", EnvSettingsSource(Settings)()),
        (".env", DotEnvSettingsSource(Settings)()),
    ]
    return {
        name: next((origin for origin, names in found if name in names), "default") for name in Settings.model_fields
    }


def is_secret(name: str, settings_class: type[Settings] = Settings) -> bool:
    """Whether the value of a setting is for nobody's eyes."""
    return SecretStr in get_args(settings_class.model_fields[name].annotation)


def child_environment(settings_class: type[Settings] = Settings) -> dict[str, str]:
    """The environment for programs of others that the worker starts: its own, less the secrets among its settings."""
    secret = {name.upper() for name, field in aliases(settings_class).items() if is_secret(field, settings_class)}
    return {name: value for name, value in os.environ.items() if name.upper() not in secret}
