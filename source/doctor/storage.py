"""Whether the bucket of results takes a file and gives it back, to whoever gets its address."""

from __future__ import annotations

import secrets
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel, ValidationError

from source.doctor.checks import Finding, doubtful, failed, well
from source.edge_functions import EdgeFunctions
from source.errors import RefusedUpload, StorageUnavailable, WanError
from source.media.download import DownloadRules, opened, received, refuse_status
from source.settings import Settings
from source.storage import unwatched
from source.upload import remove, upload

SILENCE_S = 20.0
SECRETS = (
    "check the functions' secrets S3_ENDPOINT, S3_REGION, S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY and STORAGE_BUCKET"
)


class _Probe(BaseModel):
    """Where one small object may be put, read and removed."""

    size_bytes: int
    upload_url: str
    upload_headers: dict[str, str]
    download_url: str
    removal_url: str


def round_trip(door: EdgeFunctions, settings: Settings) -> Finding:
    """Write one object by a signed address, read it back, compare, remove it."""
    try:
        probe = _Probe.model_validate(door.call("probe-storage", {}))
    except ValidationError:
        return failed("probe-storage answers something else", "deploy it: `supabase functions deploy probe-storage`")
    except WanError as error:
        return failed(str(error), SECRETS)
    content = secrets.token_hex(probe.size_bytes // 2).encode()
    started = time.monotonic()
    try:
        _put(content, probe)
    except (StorageUnavailable, RefusedUpload) as error:
        return failed(str(error), f"{SECRETS}; the S3 endpoint must be reachable from this machine")
    try:
        came_back = _read(probe)
    except WanError as error:
        return failed(str(error), "make the bucket public, or set the functions' secret STORAGE_PUBLIC to false")
    finally:
        left = _removed(probe)
    if came_back != content:
        return failed("what was read back is not what was uploaded", "look what stands between: a cache, a proxy")
    told = f"{len(content)} bytes there and back in {time.monotonic() - started:.2f} s"
    if left:
        return doubtful(f"{told}; {left}", "remove it by hand, in the folder probes")
    return _of_bucket(told, probe, settings)


def _put(content: bytes, probe: _Probe) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.txt"
        path.write_bytes(content)
        upload(path, probe.upload_url, probe.upload_headers, len(content), unwatched)


def _read(probe: _Probe) -> bytes:
    rules = DownloadRules(timeout_s=SILENCE_S, max_bytes=1 << 20, max_text="1 MB")
    with opened(probe.download_url, rules) as response:
        refuse_status(response.status_code, probe.download_url)
        return b"".join(received(response, probe.download_url, rules))


def _removed(probe: _Probe) -> str:
    """What is left behind, or nothing."""
    try:
        remove(probe.removal_url, "the probe")
    except (StorageUnavailable, RefusedUpload) as error:
        return str(error)
    return ""


def _of_bucket(told: str, probe: _Probe, settings: Settings) -> Finding:
    """A worker knows files of its own project by their address."""
    ours = f"{settings.supabase_url}/storage/v1/object/public/{settings.supabase_video_bucket}/"
    if "/object/public/" in probe.download_url and not probe.download_url.startswith(ours):
        return doubtful(
            f"{told}; but addresses do not begin with {ours}",
            "SUPABASE_URL and SUPABASE_VIDEO_BUCKET must be what the functions have (SUPABASE_URL, STORAGE_BUCKET)",
        )
    return well(told)
