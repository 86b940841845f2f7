"""The suggested alerts name metrics and labels that exist, and the documentation says what to do about each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from headless.accounting import Activity
from source.diagnostics.workers import STYLES
from source.metrics import names
from source.store.types import OpenState

ROOT = Path(__file__).resolve().parents[2]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus-alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
#: what is exposed beside ours, or made by Prometheus itself
OTHERS = {"up", "process_resident_memory_bytes", "process_start_time_seconds"}
EXPOSED = {metric.exposed: metric for metric in (*names.WORKER, *names.DATABASE)}
#: the values of labels that are compared with
VALUES = {"state": {*OpenState}, "health": {*STYLES}, "activity": {*Activity}, "reason": {"retry", "release"}}
#: PromQL's words
WORDS = {
    "and", "or", "by", "sum", "min", "max", "rate", "increase", "delta", "changes", "time", "min_over_time", "instance",
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_exists(rule: dict[str, Any]) -> None:
    expression = re.sub(r'"[^"]*"', '""', rule["expr"])
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", expression)
    asked = set(re.findall(r"[a-z_][a-z0-9_]*", bare)) - WORDS
    assert asked and asked <= EXPOSED.keys() | OTHERS
    assert all(bare.count(left) == bare.count(right) for left, right in ("()", "[]", "{}"))
    for name, inside in re.findall(r"([a-z_][a-z0-9_]*)\{([^}]*)\}", rule["expr"]):
        for label, value in re.findall(r'([a-z_]+)=~?"([^"]*)"', inside):
            assert label == "job" or label in EXPOSED[name].labels
            assert set(value.split("|")) <= VALUES.get(label, {value})
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info") and rule["annotations"]["summary"]


def test_each_alert_is_explained_and_no_other() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| ([A-Z]\w+) \| .+ \| .+ \|$", page, re.MULTILINE)
    assert told == [rule["alert"] for rule in RULES]


def test_names_follow_the_conventions() -> None:
    for metric in EXPOSED.values():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name) and not metric.name.endswith(("_total", "_ms", "_mb"))
        assert metric.meaning and all(re.fullmatch(r"[a-z_]+", label) for label in metric.labels)
