"""The page over a database of its own, asked as a browser asks it, and what a browser would send of a form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from page_shop import TOKEN
from starlette.testclient import TestClient

from source.page.access import Access
from source.page.app import page
from source.settings import Settings
from source.store.base import TaskStore
from source.store.sqlite import SqliteStore


class PageSite:
    """A page with a token over an SQLite file in `folder`, or over another store; `client` is logged in."""

    def __init__(self, folder: Path, store: TaskStore | None = None, **settings: Any) -> None:
        self.settings = Settings(db_file=folder / "tasks.db", main_output_dir=folder / "outputs", **settings)
        self.store = store or SqliteStore(self.settings.db_file)
        self.app = page(self.store, self.settings, Access(TOKEN))
        self.client = self.visitor()
        self.client.post("/login", data={"token": TOKEN})

    def visitor(self) -> TestClient:
        """Somebody who has not logged in."""
        return TestClient(self.app, base_url="http://127.0.0.1", headers={"Accept": "text/html"})

    def form(self, path: str) -> SentForm:
        """The form of a page, as it stands."""
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return SentForm(answer.text)

    def close(self) -> None:
        """Close the database."""
        self.store.close()


class SentForm(HTMLParser):
    """A page's form `.task-form` as a browser without scripts has it: `pairs`, what it would send; `inputs`, the
    attributes of what can be filled in; `ids` and `texts` (of paragraphs) of the page; `labelled`, ids with labels.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.pairs: list[tuple[str, str]] = []
        self.inputs: list[dict[str, str]] = []
        self.ids: set[str] = set()
        self.labelled: set[str] = set()
        self.texts: dict[str, str] = {}
        self._inside = False
        self._templates = 0
        self._area: str | None = None
        self._select: str | None = None
        self._chosen = ""
        self._reading: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self._templates += tag == "template"
        self._inside = self._inside or (tag == "form" and "task-form" in given.get("class", ""))
        if self._templates:
            return
        if "id" in given:
            self.ids.add(given["id"])
            self._reading = [given["id"]] if tag == "p" else self._reading
        if tag == "label":
            self.labelled.add(given.get("for", ""))
        if self._inside and tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self.inputs.append(given)
        if self._inside and tag == "input" and "name" in given:
            self.pairs.append((given["name"], given.get("value", "")))
        elif self._inside and tag == "textarea" and "name" in given:
            self._area, self._text = given["name"], ""
        elif tag == "select":
            self._select, self._chosen = given.get("name"), ""
        elif tag == "option" and "selected" in given:
            self._chosen = given.get("value", "")

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._text += data
        for name in self._reading:
            self.texts[name] = self.texts.get(name, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._templates -= tag == "template"
        self._inside = self._inside and tag != "form"
        if tag == "p":
            self._reading = []
        if tag == "textarea" and self._area is not None and not self._templates:
            # the first line break after the tag is no part of the text; lines are sent with CR LF
            text = re.sub(r"\r\n|\r|\n", "\n", self._text)
            self.pairs.append((self._area, text.removeprefix("\n").replace("\n", "\r\n")))
            self._area = None
        if tag == "select" and self._select and not self._templates:
            self.pairs.append((self._select, self._chosen))
            self._select = None

    @property
    def values(self) -> dict[str, str]:
        """What is sent, by name."""
        return dict(self.pairs)

    def with_changes(self, changes: Mapping[str, str]) -> dict[str, str]:
        """What is sent after somebody wrote this."""
        unknown = set(changes) - {name for name, _ in self.pairs}
        assert not unknown, unknown
        return self.values | dict(changes)
