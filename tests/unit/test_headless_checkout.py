"""What --wan-dir says about a folder, without importing anything from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headless.checkout import inspect_wan_dir
from Wan2GP.errors import InvalidInput

Checkout = Callable[..., Path]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A folder that looks like an upstream checkout; its code raises when it is imported."""

    def make(function: str = "generate_video", version: str | None = "8.55", definitions: int = 2) -> Path:
        head = f'WanGP_version = "{version}"\n' if version else ""
        (tmp_path / "wgp.py").write_text(f"{head}raise SystemExit\ndef {function}(task, send_cmd):\n    pass\n")
        (tmp_path / "defaults").mkdir()
        for number in range(definitions):
            (tmp_path / "defaults" / f"model_{number}.json").write_text("{}")
        return tmp_path

    return make


@pytest.mark.parametrize("function", ["generate_video", "generate_media"])
def test_a_checkout_is_described(checkout: Checkout, function: str) -> None:
    found = inspect_wan_dir(checkout(function))
    assert (found.version, found.entry, found.definitions) == ("8.55", function, 2)


def test_the_api_of_newer_checkouts_is_preferred(checkout: Checkout) -> None:
    path = checkout("generate_media", version="12.61")
    (path / "shared").mkdir()
    (path / "shared" / "api.py").write_text("raise SystemExit")
    assert inspect_wan_dir(path).entry == "shared/api"


def test_a_checkout_without_a_version_is_still_one(checkout: Checkout) -> None:
    assert inspect_wan_dir(checkout(version=None)).version == "unknown"


def test_what_is_missing_is_named(checkout: Checkout, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^wan_dir: there is no folder .*nowhere"):
        inspect_wan_dir(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"wgp\.py is missing"):
        inspect_wan_dir(tmp_path)
    checkout("something_else", definitions=0)
    with pytest.raises(InvalidInput, match=r"defaults/\*\.json is missing"):
        inspect_wan_dir(tmp_path)
    (tmp_path / "defaults" / "t2v.json").write_text("{}")
    with pytest.raises(InvalidInput, match="neither generate_video nor generate_media"):
        inspect_wan_dir(tmp_path)


def test_a_damaged_configuration_is_said_before_the_checkout_stops_at_it(checkout: Checkout) -> None:
    path = checkout()
    (path / "wgp_config.json").write_text("")
    with pytest.raises(InvalidInput, match=r"^wan_dir: .*wgp_config\.json cannot be read .*remove it"):
        inspect_wan_dir(path)


def test_the_interpreter_is_that_of_its_own_environment(checkout: Checkout) -> None:
    path = checkout()
    assert inspect_wan_dir(path).python == Path(sys.executable)
    (path / ".venv" / "bin").mkdir(parents=True)
    (path / ".venv" / "bin" / "python").write_text("")
    assert inspect_wan_dir(path).python == path / ".venv" / "bin" / "python"
