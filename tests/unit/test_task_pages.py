"""The pages of docs/tasks/: every type, every parameter with its bounds, and none that is out of date or left over."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest

from source.params.schema import parameter_rows
from source.task_registry import TaskType, registry


@pytest.fixture
def pages(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "scripts"))
    import task_pages

    return task_pages


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root / "samples" / "tasks", tmp_path / "samples" / "tasks")
    return tmp_path


@pytest.mark.parametrize("kind", list(registry()), ids=lambda kind: kind.name)
def test_a_page_says_all_that_is_declared(kind: TaskType, root: Path, pages: ModuleType) -> None:
    page = pages.page(kind, root)
    assert kind.help in page
    assert f"| output | {kind.output} |" in page
    assert (root / "samples" / "tasks" / f"{kind.name}.json").read_text().strip() in page
    for row in parameter_rows(kind.schema()):
        if row.field in kind.params.model_fields:
            line = next(line for line in page.splitlines() if line.startswith(f"| `{row.name}` |"))
            assert row.type in line
            assert all(f"`{name}`" in line for name in row.also)
            assert ("**needed**" in line) == row.required
    for name, value in kind.defaults.items():
        assert f"| `{name}` | `{value}` |" in page
    for sample in (root / "samples" / "tasks").glob(f"{kind.name}.*.json"):
        assert f"samples/tasks/{sample.name})" in page


def test_bounds_are_visible(root: Path, pages: ModuleType) -> None:
    page = pages.page(registry().get("upscale_video"), root)
    assert "| `upscale_factor` | number above 1, up to 8 |" in page


def test_pages_that_are_missing_changed_or_left_over_are_found_and_mended(checkout: Path, pages: ModuleType) -> None:
    every = pages.stale_pages(checkout, write=True)
    assert {f"docs/tasks/{kind.name}.md" for kind in registry()} < set(every)
    assert pages.stale_pages(checkout, write=False) == []
    folder = checkout / "docs" / "tasks"
    (folder / "t2v.md").write_text("changed")
    (folder / "no_such_type.md").write_text("left over")
    expected = ["docs/tasks/t2v.md", "docs/tasks/no_such_type.md"]
    assert pages.stale_pages(checkout, write=False) == expected
    assert (folder / "t2v.md").read_text() == "changed"
    assert pages.stale_pages(checkout, write=True) == expected
    assert pages.stale_pages(checkout, write=False) == []
    assert not (folder / "no_such_type.md").exists()


def test_a_type_without_a_sample_is_refused(checkout: Path, pages: ModuleType) -> None:
    (checkout / "samples" / "tasks" / "t2v.json").unlink()
    with pytest.raises(SystemExit, match=r"t2v\.json is missing"):
        pages.task_pages(checkout)
