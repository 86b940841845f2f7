"""Where rows come from others, they reach neither this machine's disk nor its network."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from source.comfy.places import refuse_places
from source.errors import ConfigurationError, InvalidInput, InvalidMedia, Transient
from source.loras import LoRAStore
from source.media.fetch import MediaFetcher
from source.media.places import Folders, Reach, is_public
from source.settings import load_settings
from Wan2GP.media import write_image


class Machine(ThreadingHTTPServer):
    """Serves one picture, and redirects to wherever `leads_to` says."""

    def __init__(self, picture: bytes, host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Page)
        self.picture = picture
        self.leads_to = ""
        self.requests: list[str] = []
        self.proxied = False

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Page(BaseHTTPRequestHandler):
    server: Machine

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", self.server.leads_to)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.picture)))
        self.end_headers()
        self.wfile.write(self.server.picture)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def running(machine: Machine) -> Iterator[Machine]:
    with machine:
        thread = threading.Thread(target=machine.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield machine
        finally:
            machine.shutdown()
            thread.join()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_image(tmp_path / "cat.png", np.zeros((8, 8, 3), np.uint8))


@pytest.fixture
def machine(picture: Path) -> Iterator[Machine]:
    with running(Machine(picture.read_bytes())) as server:
        yield server


def fetcher(tmp_path: Path, *, db_type: str = "supabase", **settings: Any) -> MediaFetcher:
    project = {"supabase_url": "https://abc.supabase.co", "supabase_access_token": "pat"} | settings
    folder = tmp_path / "scratch" / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    return MediaFetcher(load_settings(db_type=db_type, **project), folder, own=(folder.parent,))


def fetched(fetcher: MediaFetcher, reference: str) -> Path:
    return fetcher.fetch(reference, kind="image", field="image")


# ---- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0",
        "192.0.0.192", "168.63.129.16", "224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1",
        "::1", "::", "fe80::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "100::1", "2001::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_internet(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001:81b::200e"])
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "[::1]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    ],
)  # fmt: skip
def test_this_machine_is_not_asked_however_it_is_written(tmp_path: Path, machine: Machine, host: str) -> None:
    with pytest.raises(InvalidMedia, match=r"image: .* private network .* FETCH_ALLOW"):
        fetched(fetcher(tmp_path), f"http://{host}:{machine.port}/cat.png")
    assert not machine.requests


@pytest.mark.parametrize("address", ["64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:10.0.0.1", "fe80::1%1"])
def test_addresses_inside_addresses_are_looked_at(address: str) -> None:
    with pytest.raises(InvalidMedia, match="private network"):
        list(Reach().addresses(address, 80))


def test_a_public_address_is_connected_to_as_it_was_looked_at() -> None:
    assert list(Reach().addresses("1.1.1.1", 443)) == ["1.1.1.1"]


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.1:{port}", "127.0.0.0/8", "files.lan, 127.0.0.1"])
def test_machines_can_be_allowed(tmp_path: Path, machine: Machine, allowed: str) -> None:
    some = fetcher(tmp_path, fetch_allow=allowed.format(port=machine.port))
    assert fetched(some, f"http://127.0.0.1:{machine.port}/cat.png").is_file()


@pytest.mark.parametrize("allowed", ["127.0.0.1:1", "localhost", "10.0.0.0/8"])
def test_others_stay_refused(tmp_path: Path, machine: Machine, allowed: str) -> None:
    with pytest.raises(InvalidMedia, match="FETCH_ALLOW"):
        fetched(fetcher(tmp_path, fetch_allow=allowed), f"http://127.0.0.1:{machine.port}/cat.png")


@pytest.mark.parametrize("entry", ["http://files.lan", "files.lan/x", "10.0.0.0/8/8", "a b"])
def test_what_names_no_machine_is_refused_at_once(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"fetch_allow: .* neither host"):
        load_settings(fetch_allow=entry)


def test_ipv6_machines_can_be_allowed() -> None:
    settings = load_settings(
        db_type="supabase", supabase_url="https://abc.supabase.co", supabase_access_token="pat",
        fetch_allow="[::1]:80, fd00::/8",
    )  # fmt: skip
    reach = Reach.of(settings)
    assert reach is not None
    assert list(reach.addresses("::1", 80)) == ["::1"]
    assert list(reach.addresses("fd00::7", 443)) == ["fd00::7"]
    with pytest.raises(InvalidMedia):
        list(reach.addresses("::1", 81))


def test_the_projects_own_machine_is_asked_at_its_own_port_alone(tmp_path: Path, machine: Machine) -> None:
    own = fetcher(tmp_path, supabase_url=f"http://127.0.0.1:{machine.port}")
    assert fetched(own, f"http://127.0.0.1:{machine.port}/cat.png").is_file()
    with pytest.raises(InvalidMedia, match="FETCH_ALLOW"):
        fetched(own, f"http://127.0.0.1:{machine.port + 1}/cat.png")


def test_a_redirect_to_a_machine_inside_is_refused(tmp_path: Path, machine: Machine, picture: Path) -> None:
    with running(Machine(picture.read_bytes())) as inner:
        machine.leads_to = f"http://127.0.0.1:{inner.port}/secret"
        some = fetcher(tmp_path, fetch_allow=f"127.0.0.1:{machine.port}")
        with pytest.raises(InvalidMedia, match="FETCH_ALLOW"):
            fetched(some, f"http://127.0.0.1:{machine.port}/away")
        assert machine.requests == ["/away"] and not inner.requests


def test_no_proxy_looks_a_name_up_instead(tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{machine.port}")
    with pytest.raises(InvalidMedia, match="FETCH_ALLOW"):
        fetched(fetcher(tmp_path), "http://169.254.169.254/latest/meta-data/")
    assert not machine.requests


def test_a_name_that_nobody_knows_may_be_known_later(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="could not be downloaded"):
        fetched(fetcher(tmp_path), "http://nobody.invalid/cat.png")


def test_sqlite_rows_are_the_users_own(tmp_path: Path, machine: Machine, picture: Path) -> None:
    own = fetcher(tmp_path, db_type="sqlite")
    assert fetched(own, f"http://127.0.0.1:{machine.port}/cat.png").is_file()
    assert fetched(own, str(picture)) == picture.resolve()


def test_loras_come_from_public_machines_too(tmp_path: Path, machine: Machine) -> None:
    settings = load_settings(
        db_type="supabase", supabase_url="https://abc.supabase.co", supabase_access_token="pat",
        loras_dir=tmp_path / "loras",
    )  # fmt: skip
    with pytest.raises(InvalidMedia, match=r"activated_loras: .*FETCH_ALLOW"):
        LoRAStore(settings).for_task().resolve(f"http://127.0.0.1:{machine.port}/style.safetensors", "wan")
    assert not machine.requests


# ---- files


def test_a_file_of_this_machine_is_not_read(tmp_path: Path, picture: Path) -> None:
    some = fetcher(tmp_path)
    for reference in (str(picture), "/etc/passwd", "~/.netrc", "files/cat.png", "samples/cat.png", "../cat.png"):
        with pytest.raises(InvalidMedia, match=r"image: .* is a file path; .* MEDIA_DIRS"):
            fetched(some, reference)


def test_nothing_is_said_about_what_exists(tmp_path: Path, picture: Path) -> None:
    said = []
    for reference in (picture, picture.with_name("dog.png")):
        with pytest.raises(InvalidMedia) as failure:
            fetched(fetcher(tmp_path), str(reference))
        said.append(str(failure.value).replace(reference.name, "…"))
    assert said[0] == said[1]


def test_folders_can_be_allowed_and_links_are_followed_before(tmp_path: Path, picture: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    inside = Path(write_image(shared / "dog.png", np.zeros((8, 8, 3), np.uint8)))
    (shared / "link.png").symlink_to(picture)
    some = fetcher(tmp_path, media_dirs=str(shared))
    assert fetched(some, str(inside)) == inside.resolve()
    for reference in (shared / "link.png", shared / ".." / "cat.png"):
        with pytest.raises(InvalidMedia, match="MEDIA_DIRS"):
            fetched(some, str(reference))


def test_what_the_task_made_itself_is_read(tmp_path: Path) -> None:
    some = fetcher(tmp_path)
    made = Path(write_image(tmp_path / "scratch" / "guide.png", np.zeros((8, 8, 3), np.uint8)))
    assert fetched(some, str(made)) == made.resolve()


# ---- workflows


def workflow(**inputs: Any) -> dict[str, dict[str, Any]]:
    return {"1": {"class_type": "LoadImage", "inputs": inputs}}


@pytest.mark.parametrize(
    "named",
    ["/etc/passwd", "~/.ssh/id_rsa", "../../secret.png", r"..\secret.png", r"C:\secret.png", "http://10.0.0.1/x.png",
     "file:///etc/passwd"],
)  # fmt: skip
def test_a_workflow_that_names_files_and_addresses_itself_is_refused(named: str) -> None:
    with pytest.raises(InvalidInput, match=r"workflow: node 1 \(LoadImage\) names .* video_url or in inputs"):
        refuse_places(workflow(image=named), Folders(()))
    with pytest.raises(InvalidInput):
        refuse_places(workflow(images=[{"deep": named}]), Folders(()))
    refuse_places(workflow(image=named), Folders(None))


def test_other_workflows_are_not(tmp_path: Path) -> None:
    harmless = {"text": "a cat... and a dog", "seed": 3, "image": "cat.png", "link": ["2", 0], "many": "a\n/b"}
    refuse_places(workflow(**harmless), Folders(()))
    refuse_places(workflow(image=str(tmp_path / "cat.png")), Folders((tmp_path,)))
