"""`python -m Wan2GP.models fetch` against a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from Wan2GP.definitions import load_definitions
from Wan2GP.engine.lora.request import parse_loras

ROOT = Path(__file__).parents[2]
REPOSITORY = "someone/Tiny-Diffusers"
COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Serves one repository, and plain files under /plain/; may cut answers short."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files = files
        #: files that stand outside the repository
        self.plain: dict[str, bytes] = {}
        #: file -> bytes after which its next answer breaks off
        self.cuts: dict[str, int] = {}
        #: whether answers about plain files say how long those are
        self.says_length = True
        #: (file, value of the Range header) of every request for content
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(content=False)

    def do_GET(self) -> None:
        self._answer(content=True)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _answer(self, content: bool) -> None:
        path = urlsplit(self.path).path
        tree = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.server.files.items()
        ]
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            return self._json(tree)
        if path.startswith(f"/api/models/{REPOSITORY}"):
            return self._json(
                {"id": REPOSITORY, "sha": COMMIT, "siblings": [{"rfilename": entry["path"]} for entry in tree]}
            )
        name = path.partition("/plain/")[2] or path.partition("/resolve/")[2].partition("/")[2]
        data = (self.server.plain if "/plain/" in path else self.server.files).get(name)
        return self.send_error(404) if data is None else self._file(name, data, content)

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _file(self, name: str, data: bytes, content: bool) -> None:
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if self.server.says_length or "/plain/" not in self.path:
            self.send_header("Content-Length", str(len(data) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not content:
            return
        self.server.asked.append((name, wanted))
        cut = self.server.cuts.pop(name, None)
        self.wfile.write(data[start : None if cut is None else start + cut])
        self.close_connection = True


@pytest.fixture
def hub() -> Iterator[Hub]:
    parts = {"vae": ["diffusers", "AutoencoderKLWan"], "transformer": ["diffusers", "WanTransformer3DModel"]}
    files = {
        "model_index.json": json.dumps({"_class_name": "WanPipeline", **parts}).encode(),
        "README.md": b"read me",
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": os.urandom(300_000),
        "transformer/config.json": b"{}",
        # The hub's library writes ten megabytes at a time.
        "transformer/diffusion_pytorch_model.safetensors": os.urandom(12_000_000),
        "split/mine.safetensors": os.urandom(1_500_000),
    }
    server = Hub(files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def models(hub: Hub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    places = ["--ckpts", str(tmp_path / "ckpts"), "--definitions", str(tmp_path / "rows")]
    return subprocess.run(
        [sys.executable, "-m", "Wan2GP.models", *arguments, *places],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def row(tmp_path: Path, name: str, **model: object) -> None:
    (tmp_path / "rows").mkdir(exist_ok=True)
    document = {"model": {"name": name, "licence": "MIT", **model}}
    (tmp_path / "rows" / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")


def test_a_whole_repository_comes_resumed_where_it_was_cut_off_and_is_not_fetched_twice(hub, tmp_path: Path):
    row(tmp_path, "tiny", architecture="t2v_1.3B", source=REPOSITORY)
    cut = "transformer/diffusion_pytorch_model.safetensors"
    hub.cuts[cut] = 11_000_000
    done = models(hub, tmp_path, "fetch", "tiny")
    assert done.returncode == 0, done.stderr
    assert "published under: MIT" in done.stdout and "tiny is complete" in done.stdout
    asked = [wanted for name, wanted in hub.asked if name == cut]
    assert len(asked) == 2 and asked[0] is None and asked[1].startswith("bytes=1")
    folder = tmp_path / "ckpts" / "tiny"
    for name in hub.files.keys() - {"README.md"}:
        assert (folder / name).read_bytes() == hub.files[name]
    assert not (folder / "README.md").exists()
    count = len(hub.asked)
    assert models(hub, tmp_path, "fetch", "tiny").returncode == 0
    assert len(hub.asked) == count


def test_a_single_file_of_the_hub_comes_flat_beside_the_parts_of_its_base(hub, tmp_path: Path):
    row(tmp_path, "t2v", source=REPOSITORY)
    row(
        tmp_path,
        "mine",
        architecture="t2v",
        URLs=[f"https://huggingface.co/{REPOSITORY}/resolve/main/split/mine.safetensors"],
    )
    done = models(hub, tmp_path, "fetch", "mine")
    assert done.returncode == 0, done.stderr
    ckpts = tmp_path / "ckpts"
    assert (ckpts / "mine.safetensors").read_bytes() == hub.files["split/mine.safetensors"]
    assert (ckpts / "t2v" / "vae" / "diffusion_pytorch_model.safetensors").is_file()
    assert not list((ckpts / "t2v" / "transformer").glob("*"))
    where = models(hub, tmp_path, "where", "mine")
    assert f"{ckpts}/mine.safetensors\n" in where.stdout and "missing" not in where.stdout


def test_what_enlarges_latents_for_a_second_pass_comes_with_its_model(hub, tmp_path: Path):
    row(tmp_path, "mine", architecture="ltxv_13B", source=REPOSITORY, refining={"upsampler": REPOSITORY})
    hub.files["latent_upsampler/config.json"] = b"{}"
    done = models(hub, tmp_path, "fetch", "mine")
    assert done.returncode == 0, done.stderr
    beside = tmp_path / "ckpts" / REPOSITORY.rpartition("/")[2]
    assert [path.name for path in beside.iterdir() if not path.name.startswith(".")] == ["latent_upsampler"]
    assert (beside / "latent_upsampler" / "config.json").read_bytes() == b"{}"
    assert f"upsampler           {beside}\n" in models(hub, tmp_path, "where", "mine").stdout


def test_a_plain_address_is_resumed_by_the_next_call(hub, tmp_path: Path):
    row(tmp_path, "t2v", source=REPOSITORY)
    row(tmp_path, "mine", architecture="t2v", URLs=[f"{hub.url}/plain/alone.safetensors"])
    hub.plain["alone.safetensors"] = os.urandom(1_500_000)
    hub.cuts["alone.safetensors"] = 600_000
    broken = models(hub, tmp_path, "fetch", "mine")
    assert broken.returncode == 1 and "alone.safetensors" in broken.stderr, broken.stderr
    partial = tmp_path / "ckpts" / "alone.safetensors.partial"
    held = partial.stat().st_size
    assert 0 < held <= 600_000
    assert models(hub, tmp_path, "fetch", "mine").returncode == 0
    assert hub.asked[-1] == ("alone.safetensors", f"bytes={held}-")
    assert (tmp_path / "ckpts" / "alone.safetensors").read_bytes() == hub.plain["alone.safetensors"]
    assert not partial.exists()


def test_a_partial_file_that_cannot_be_continued_is_begun_anew(hub, tmp_path: Path):
    row(tmp_path, "t2v", source=REPOSITORY)
    row(tmp_path, "mine", architecture="t2v", URLs=[f"{hub.url}/plain/alone.safetensors"])
    hub.plain["alone.safetensors"] = os.urandom(50_000)
    hub.says_length = False
    (tmp_path / "ckpts").mkdir()
    (tmp_path / "ckpts" / "alone.safetensors.partial").write_bytes(bytes(60_000))
    done = models(hub, tmp_path, "fetch", "mine")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ckpts" / "alone.safetensors").read_bytes() == hub.plain["alone.safetensors"]


def test_the_loras_of_a_model_come_under_the_names_that_the_engine_looks_for(hub, tmp_path: Path):
    row(tmp_path, "t2v", source=REPOSITORY)
    names = ["one/high_noise_model.safetensors", "two/high_noise_model.safetensors", "my%20style.safetensors"]
    addresses = [f"{hub.url}/plain/{name}?download=true" for name in names]
    row(tmp_path, "mine", architecture="t2v", source=REPOSITORY, loras=addresses)
    hub.plain = {name: os.urandom(1000) for name in names}
    done = models(hub, tmp_path, "fetch", "mine", "--loras", str(tmp_path / "loras"))
    assert done.returncode == 0, done.stderr
    definition = load_definitions([tmp_path / "rows"])["mine"]
    found = parse_loras({}, definition, tmp_path / "loras").files
    assert [file.read_bytes() for file in found] == [hub.plain[name] for name in names]


@pytest.mark.parametrize("served", [True, False])
def test_a_key_in_an_address_is_not_shown(hub, tmp_path: Path, served: bool):
    row(tmp_path, "t2v", source=REPOSITORY)
    row(tmp_path, "mine", architecture="t2v", URLs=[f"{hub.url}/plain/alone.safetensors?token=swordfish"])
    if served:
        hub.plain["alone.safetensors"] = os.urandom(50_000)
    done = models(hub, tmp_path, "fetch", "mine")
    assert done.returncode == (0 if served else 1), done.stderr
    assert "plain/alone.safetensors" in done.stdout + done.stderr
    assert "swordfish" not in done.stdout + done.stderr


def test_what_the_hub_does_not_have_is_said_in_one_line(hub, tmp_path: Path):
    row(tmp_path, "lost", architecture="t2v", source="someone/Lost")
    done = models(hub, tmp_path, "fetch", "lost")
    assert done.returncode == 1
    assert "someone/Lost could not be fetched" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["qwen2_5_vl_7b", "depth_anything_v2_vitl"])
def test_a_model_in_transformers_format_is_listed_missing_fetched_and_verified(hub, tmp_path: Path, name: str):
    row(tmp_path, name, source=REPOSITORY)
    lists = load_definitions()[name].architecture.folder_files
    shards = {f"model-0000{part}-of-00002.safetensors": tensors_file(part) for part in (1, 2)}
    index = {"weight_map": {f"part.{part}": shard for part, shard in enumerate(shards, start=1)}}
    hub.files = {listed: b"{}" for listed in lists} | shards
    hub.files |= {"model.safetensors.index.json": json.dumps(index).encode(), "README.md": b"read me"}
    assert state(hub, tmp_path, name) == "missing"
    done = models(hub, tmp_path, "fetch", name)
    assert done.returncode == 0 and f"{name} is complete" in done.stdout, done.stderr
    folder = tmp_path / "ckpts" / name
    assert {path.name for path in folder.iterdir() if path.is_file()} == hub.files.keys() - {"README.md"}
    assert state(hub, tmp_path, name) == "ready"
    assert models(hub, tmp_path, "where", name).stdout.split() == ["model", str(folder)]
    verified = models(hub, tmp_path, "verify", name)
    assert verified.returncode == 0 and verified.stdout.count("SHA-256 as published") >= 2, verified.stderr
    (folder / next(iter(shards))).unlink()
    assert state(hub, tmp_path, name) == "missing"


def tensors_file(part: int) -> bytes:
    from safetensors.numpy import save

    return save({f"part.{part}": np.full(8, part, np.float32)})


def state(hub: Hub, tmp_path: Path, name: str) -> str:
    listed = models(hub, tmp_path, "list", "--json")
    return next(each["state"] for each in json.loads(listed.stdout) if each["id"] == name)


def test_the_chaining_model_shares_the_folder_of_its_base_and_brings_its_loras(hub, tmp_path: Path):
    row(tmp_path, "i2v_2_2", source=REPOSITORY, URLs=[], URLs2=[])
    names = [url.rsplit("/", 1)[1] for url in load_definitions()["i2v_2_2_svi2pro"].model["loras"]]
    row(tmp_path, "i2v_2_2_svi2pro", loras=[f"{hub.url}/plain/{name}" for name in names])
    hub.plain = {name: os.urandom(1000) for name in names}
    done = models(hub, tmp_path, "fetch", "i2v_2_2_svi2pro", "--loras", str(tmp_path / "loras"))
    assert "someone/Tiny-Diffusers" in done.stdout
    assert (tmp_path / "ckpts" / "i2v_2_2" / "model_index.json").is_file()
    assert not (tmp_path / "ckpts" / "i2v_2_2_svi2pro").exists()
    assert {path.name: path.read_bytes() for path in (tmp_path / "loras" / "wan").iterdir()} == hub.plain
