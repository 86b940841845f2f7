"""The page of charts over what workers measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from page_site import PageSite
from use_history import record

from source.page.usage import Grid, account


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PageSite]:
    site = PageSite(tmp_path)
    yield site
    site.close()


def test_an_installation_that_has_done_nothing_says_so(site: PageSite) -> None:
    text = site.client.get("/charts").text
    assert "No worker was heard of in this time." in text and "No task ended in this time." in text
    assert "<canvas" not in text and 'class="plot"' not in text


@pytest.mark.parametrize(("span", "hours", "spans"), [("1h", 1, 61), ("6h", 6, 73), ("24h", 24, 97), ("7d", 168, 85)])
def test_the_series_are_what_the_store_has(site: PageSite, span: str, hours: int, spans: int) -> None:
    record(site.store, min(hours, 8) + 1)
    found = site.client.get(f"/charts/data.json?span={span}").json()
    charts = {each["key"]: each for each in found["charts"]}
    assert {len(each["times"]) for each in charts.values()} <= {spans - 1, spans}
    assert [each["name"] for each in charts["utilisation"]["series"]] == ["gpu-1", "gpu-2"]
    now = site.store.now()
    since_s = now.timestamp() - found["begin"]
    ended = site.store.throughput(since_s=since_s, bucket_s=found["bucket_s"])
    drawn = sum(value for each in charts["throughput"]["series"] for value in each["values"])
    assert drawn == sum(each.count for each in ended) > 0
    samples = site.store.samples(since_s=since_s, limit=10_000)
    grid = Grid(found["begin"], found["bucket_s"], len(charts["activity"]["times"]))
    assert found["gpu_seconds"] == pytest.approx(account(samples, grid).seconds)
    assert sum(found["gpu_seconds"].values()) > 3000


def test_the_tables_say_what_the_charts_show(site: PageSite) -> None:
    record(site.store, 2)
    text = site.client.get("/charts?span=1h").text
    charts = {each["key"]: each for each in site.client.get("/charts/data.json?span=1h").json()["charts"]}
    rows = text.partition('id="table-gpu_memory"')[2].partition("</table>")[0].count("<tr>") - 1
    assert rows == len(charts["gpu_memory"]["times"])
    assert 'aria-label="Tasks that ended: Complete 1' in text


def test_a_part_is_given_to_an_open_page(site: PageSite) -> None:
    part = site.client.get("/charts?span=6h", headers={"HX-Request": "true"}).text
    assert part.startswith('<div id="use"') and "<html" not in part
    assert site.client.get("/charts?span=%3Cscript%3E").status_code == 200
