"""docs/licences.md tells of everything that is shipped and installed, and nothing unexpected is among it."""

from __future__ import annotations

import subprocess
import sys
from email.message import Message
from importlib.metadata import Distribution
from pathlib import Path

import pytest


@pytest.fixture
def licences(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(root / "scripts"))
    import licences

    yield licences
    for name in ("licences", "tables"):
        sys.modules.pop(name, None)


class Package(Distribution):
    """One whose metadata say what a test wants them to say."""

    def __init__(self, **said: str) -> None:
        self._said = said

    @property
    def metadata(self) -> Message:
        message = Message()
        for name, value in self._said.items():
            message[name.replace("_", "-")] = value
        return message

    def read_text(self, filename: str) -> None: ...

    def locate_file(self, path: object) -> Path:
        raise NotImplementedError


def test_every_installed_package_stands_on_the_page_with_its_licence(licences) -> None:
    page = licences.PAGE.read_text(encoding="utf-8")
    found = licences.lists()
    assert len(found["worker"]) > 50
    assert [row for each in found.values() for row in licences.rows(each) if licences.table_line(row) not in page] == []


def test_no_package_is_under_a_licence_that_nobody_has_looked_at(licences) -> None:
    found = licences.lists()
    assert licences.unexpected(found["worker"]) == licences.unexpected(found["extras"]) == []
    assert not set(found["worker"]) & set(licences.TOLD)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ({"License_Expression": "Apache-2.0 OR BSD-2-Clause"}, "Apache-2.0 OR BSD-2-Clause"),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"License": "Apache License\nVersion 2.0, and two hundred lines more"}, "Apache-2.0"),
        ({"License": "MIT", "Classifier": "License :: OSI Approved :: BSD License"}, "MIT"),
    ],
)
def test_a_licence_is_read_where_the_package_says_it(licences, said: dict[str, str], means: str) -> None:
    package = Package(Name="ours", **said)
    assert licences.licence(package) == means
    assert licences.unexpected({"ours": package}) == []


@pytest.mark.parametrize("said", [{"License_Expression": "AGPL-3.0-only"}, {"License": "ask us"}, {}])
def test_what_nobody_has_looked_at_is_named(licences, said: dict[str, str]) -> None:
    assert licences.unexpected({"theirs": Package(Name="theirs", **said)})[0].startswith("theirs: ")


def test_each_licence_file_of_others_in_the_repository_is_linked_from_the_page(root: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    theirs = [name for name in listed if "LICENSE" in Path(name).name.upper() and name != "LICENSE"]
    page = (root / "docs" / "licences.md").read_text(encoding="utf-8")
    assert [name for name in theirs if f"(../{name})" not in page] == []


def test_each_sample_medium_has_a_source_and_a_licence(root: Path) -> None:
    told = (root / "samples" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    media = [path for path in (root / "samples").iterdir() if path.suffix in (".jpg", ".png", ".mp4", ".wav", ".json")]
    assert len(media) > 5
    assert [path.name for path in media if path.name not in told] == []
