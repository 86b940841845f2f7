"""Queueing a task by the form, in a real browser: the row that is added has exactly what was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_tab import browser as browser
from browser_tab import low_contrasts, needs_chromium, picture, tab
from page_shop import TOKEN, served
from page_site import PageSite
from playwright.sync_api import Browser, Page, Route, expect

pytestmark = [pytest.mark.slow, needs_chromium]

IMAGES = ("chelsea.jpg", "coffee.jpg", "rocket.jpg")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PageSite]:
    site = PageSite(tmp_path)
    yield site
    site.close()


@pytest.fixture
def seen(browser: Browser, site: PageSite) -> Iterator[Page]:
    """A tab of who is logged in."""
    with served(site.store, site.settings) as url, tab(browser, url, TOKEN, refusals=(422,)) as page:
        page.on("filechooser", lambda chooser: None)  # so that no dialog opens before somebody waits for it
        yield page


def added(site: PageSite, page: Page) -> dict[str, object]:
    """The parameters of the row that the browser was led to."""
    expect(page).to_have_url(re.compile("/task[?]id="))
    return dict(site.store.get(page.url.rpartition("=")[2]).params)


def test_a_travel_is_queued_by_the_keyboard_alone_with_uploaded_images(site: PageSite, seen: Page, root: Path) -> None:
    seen.goto("/new")
    seen.keyboard.type("between images")  # the search box has the focus
    expect(seen.locator("#types > li:visible")).to_have_count(1)
    seen.keyboard.press("Tab")
    seen.keyboard.press("Enter")
    seen.wait_for_url("**/new/travel_orchestrator")
    seen.get_by_role("button", name="Upload several files for Input image paths").focus()
    with seen.expect_file_chooser() as chooser:
        seen.keyboard.press("Enter")
    chooser.value.set_files([root / "samples" / name for name in IMAGES])
    expect(seen.locator("img.thumb")).to_have_count(3)
    seen.get_by_role("group", name="Base prompts").get_by_role("button", name="Add").focus()
    seen.keyboard.press("Enter")
    seen.keyboard.type("a cat turns into\na cup")  # the new entry has the focus
    for label, text in (
        ("Model", "draft"),
        ("Segment frames", "17, 17"),
        ("Frame overlap", "4"),
        ("Resolution", "192x128"),
    ):
        seen.get_by_label(re.compile(rf"^{label}(\s+needed)?$")).focus()
        seen.keyboard.type(text)
    seen.get_by_label("Model type").focus()
    seen.keyboard.press("v")
    seen.evaluate("scrollTo(0, 0)")
    picture(seen, "form-light")
    seen.get_by_role("button", name="Queue the task").focus()
    seen.keyboard.press("Enter")
    params = added(site, seen)
    images = params.pop("input_image_paths_resolved")
    assert params == {
        "base_prompts_expanded": ["a cat turns into\na cup"],
        "segment_frames_expanded": [17, 17],
        "frame_overlap_expanded": 4,
        "resolution": "192x128",
        "model": "draft",
        "model_type": "vace",
    }
    assert isinstance(images, list)
    kept = [site.settings.public_dir / reference for reference in images]
    assert [path.read_bytes() for path in kept] == [(root / "samples" / name).read_bytes() for name in IMAGES]


def test_what_is_wrong_is_shown_at_its_field_and_nothing_written_is_lost(site: PageSite, seen: Page) -> None:
    seen.goto("/new/vace")
    seen.get_by_label("Find a parameter").fill("switch threshold2")
    seen.get_by_label("Switch threshold2").fill("2000")
    seen.get_by_label("Video length").fill("0")
    seen.get_by_label("Seed").fill("7")
    seen.get_by_role("button", name="Queue the task").click()
    expect(seen.get_by_role("alert")).to_contain_text("Nothing was queued")
    prompt, threshold = seen.locator("#f-prompt"), seen.locator("#f-switch_threshold2")
    expect(prompt).to_be_focused()
    expect(prompt).to_have_attribute("aria-invalid", "true")
    expect(threshold).to_be_visible()  # its section was opened
    expect(threshold).to_have_value("2000")
    expect(threshold).to_have_accessible_description(re.compile("less than or equal to 1000"))
    expect(seen.get_by_label("Seed")).to_have_value("7")
    assert low_contrasts(seen) == []
    assert site.store.tasks() == []
    prompt.fill("a red circle")
    threshold.fill("")
    seen.get_by_label("Video length").fill("17")
    seen.get_by_role("button", name="Queue the task").click()
    assert added(site, seen) == {"prompt": "a red circle", "video_length": 17, "seed": 7}


def test_entries_of_lists_in_lists_come_and_go(site: PageSite, seen: Page) -> None:
    seen.goto("/new/vace")
    seen.get_by_label("Prompt").first.fill("a red circle")
    seen.locator("summary", has_text="Sampling").click()
    seen.get_by_role("group", name="Phase config").locator("summary").click()
    phases = seen.get_by_role("group", name="Phases")
    for scale in ("3", "2", "1"):
        phases.locator(":scope > .row > .add").click()
        phases.locator(":scope > ol > li").last.get_by_label("Guidance scale").fill(scale)
    phases.locator(":scope > ol > li").nth(1).locator(":scope > .remove").click()
    second = phases.locator(":scope > ol > li").nth(1)
    second.get_by_role("button", name="Add").click()
    second.get_by_label("URL").fill("detail.safetensors")
    second.get_by_label("Multiplier").fill("0.5")
    seen.get_by_label("Steps per phase").fill("2 2")
    seen.get_by_role("button", name="Queue the task").click()
    assert added(site, seen) == {
        "prompt": "a red circle",
        "phase_config": {
            "steps_per_phase": [2, 2],
            "phases": [
                {"guidance_scale": 3},
                {"guidance_scale": 1, "loras": [{"url": "detail.safetensors", "multiplier": 0.5}]},
            ],
        },
    }


def test_a_file_that_is_no_image_is_refused_at_its_field(seen: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    seen.goto("/new/vace")
    with seen.expect_file_chooser() as chooser:
        seen.get_by_role("button", name="Upload an image for Image start").click()
    chooser.value.set_files(broken)
    expect(seen.locator(".upload-status")).to_contain_text("broken.png")
    expect(seen.locator(".upload-status")).to_have_class(re.compile("bad"))
    expect(seen.get_by_role("textbox", name="Image start")).to_have_value("")
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate((2048 << 20) + 1)
    seen.on("request", lambda request: pytest.fail("sent all the same") if request.method == "POST" else None)
    with seen.expect_file_chooser() as chooser:
        seen.get_by_role("button", name="Upload an image for Image start").click()
    chooser.value.set_files(large)
    expect(seen.locator(".upload-status")).to_contain_text("large.png has 2049 MB; at most 2048 MB")


def test_a_task_is_not_queued_before_its_file_is_there(site: PageSite, seen: Page, root: Path) -> None:
    held: list[Route] = []
    seen.route("**/uploads?*", lambda route: held.append(route))
    seen.goto("/new/vace")
    seen.get_by_label("Prompt").first.fill("a cat")
    with seen.expect_file_chooser() as chooser:
        seen.get_by_role("button", name="Upload an image for Image start").click()
    chooser.value.set_files(root / "samples" / "chelsea.jpg")
    seen.get_by_role("button", name="Queue the task").click()
    expect(seen.locator("#waits")).to_contain_text("still being uploaded")
    assert site.store.tasks() == []
    held.pop().continue_()
    expect(seen.locator("img.thumb")).to_be_visible()
    expect(seen.locator("#waits")).to_be_empty()
    seen.get_by_role("button", name="Queue the task").click()
    assert str(added(site, seen)["image_start"]).endswith("_chelsea.jpg")
