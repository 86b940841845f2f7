"""LoRAs of a row: one list, each file once, every multiplier kept."""

from __future__ import annotations

from typing import Any

import pytest

from headless.options import GenerationOptions
from source.errors import InvalidInput
from source.params.base import parse_params
from source.params.generating import GeneratingParams
from source.params.lora import LoRAConfig, LoRAEntry, LoRAStatus, split_multipliers

URL = "https://example.com/loras/My%20Style.safetensors?download=true"


def knobs(raw: dict[str, Any]) -> tuple[list[str] | None, str | None]:
    options = parse_params(GeneratingParams, raw, strict=True).params.options
    return options.activated_loras, options.loras_multipliers


@pytest.mark.parametrize(
    ("raw", "names", "multipliers"),
    [
        ({"activated_loras": ["a", "b"], "loras_multipliers": "0.5 1;0"}, ["a", "b"], "0.5 1;0"),
        ({"lora_names": "a, b", "lora_multipliers": [0.5, "1,0.5;0"]}, ["a", "b"], "0.5 1,0.5;0"),
        ({"activated_loras": ["a", "b"], "loras_multipliers": "0.5"}, ["a", "b"], "0.5 1"),
        ({"activated_loras": ["a", "b"], "loras_multipliers": "0.5,0.8"}, ["a", "b"], "0.5 0.8"),
        ({"activated_loras": ["a", "b"], "loras_multipliers": "0.5, 0.8"}, ["a", "b"], "0.5 0.8"),
        ({"activated_loras": ["a", "b", "c"], "loras_multipliers": "0.5,0.8"}, ["a", "b", "c"], "0.5 0.8 1"),
        ({"activated_loras": ["a"], "loras_multipliers": "0.5,0.8"}, ["a"], "0.5,0.8"),
        ({"activated_loras": ["a", "b"], "loras_multipliers": "0.5,0.8,1"}, ["a", "b"], "0.5,0.8,1 1"),
        ({"activated_loras": ["a", "b"], "loras_multipliers": "# first\n0.5\n# second\n0.8"}, ["a", "b"], "0.5 0.8"),
        ({"activated_loras": ["a"], "loras_multipliers": "1 0.5|0.8"}, ["a"], "1 0.5|0.8"),
        ({"additional_loras": {"a": 1, "b": "1;0"}}, ["a", "b"], "1 1;0"),
        ({"additional_loras": {"a": " 1; 0.5 , 0 "}}, ["a"], "1;0.5,0"),
        ({"loras": [{"path": "a", "scale": 0.3}, {"path": "b"}]}, ["a", "b"], "0.3 1"),
        ({"activated_loras": ["a"], "additional_loras": {"b": 0.2}}, ["a", "b"], "1 0.2"),
        ({"activated_loras": ["x/a"], "additional_loras": {"y/a": 0.2}}, ["y/a"], "0.2"),
        ({"activated_loras": ["a"], "loras_multipliers": "1;0", "additional_loras": {"a": 0.2}}, ["a"], "1;0"),
        ({"activated_loras": []}, [], None),
        ({"loras_multipliers": ""}, None, ""),
    ],
)
def test_every_way_to_name_loras_ends_in_two_knobs(raw: dict[str, Any], names: Any, multipliers: Any) -> None:
    assert knobs(raw) == (names, multipliers)


def test_reading_the_result_again_changes_nothing() -> None:
    raw = {"activated_loras": ["a", "b"], "loras_multipliers": "1 1|0.5,0.2 1;0", "additional_loras": {URL: 0.4}}
    names, multipliers = knobs(raw)
    assert knobs({"activated_loras": names, "loras_multipliers": multipliers}) == (names, multipliers)
    assert (names, multipliers) == (["a", "b", URL], "1 1|0.5,0.2 1;0 0.4")


def test_a_stronger_level_replaces_each_name_and_its_multipliers_with_it() -> None:
    raw = {
        "orchestrator_details": {
            "activated_loras": ["a", "b"], "loras_multipliers": "0.1 0.2", "additional_loras": {"c": 0.3},
        },
        "individual_segment_params": {"lora_names": ["d"]},
    }  # fmt: skip
    assert knobs(raw) == (["d", "c"], "1 0.3")
    raw["individual_segment_params"] = {"loras_multipliers": "0.8 0.9", "additional_loras": {}}
    assert knobs(raw) == (["a", "b"], "0.8 0.9")


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"activated_loras": ["a"], "lora_multipliers": "1 2"}, "lora_multipliers"),
        ({"activated_loras": ["a"], "loras_multipliers": "strong"}, "loras_multipliers"),
        ({"activated_loras": ["a"], "loras_multipliers": "1;;0"}, "loras_multipliers"),
        ({"activated_loras": ["a"], "loras_multipliers": "1e9"}, "loras_multipliers"),
        ({"activated_loras": ["a"], "loras_multipliers": "1|1|1"}, "loras_multipliers"),
        ({"lora_names": ["file:///etc/passwd"]}, "lora_names"),
        ({"activated_loras": ["https://example.com/"]}, "activated_loras"),
        ({"activated_loras": ["https://[broken/a"]}, "activated_loras"),
        ({"activated_loras": 3}, "activated_loras"),
        ({"additional_loras": {"a": "nan"}}, "additional_loras"),
        ({"additional_loras": {"a": True}}, "additional_loras"),
        ({"additional_loras": {"a": "1 0"}}, "additional_loras"),
        ({"additional_loras": ["a"]}, "additional_loras"),
        ({"additional_loras": {"..": 1}}, "additional_loras"),
        ({"loras": [{"scale": 1}]}, "loras"),
        ({"loras": [{"path": "a", "weight": 1}]}, "loras.0.weight"),
    ],
)
def test_what_names_no_lora_or_no_multiplier_is_refused_by_name(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput, match=field) as caught:
        knobs(raw)
    assert caught.value.field == field


def test_a_url_is_known_by_its_decoded_file_name() -> None:
    entry = LoRAEntry.of(URL, 0.5)
    assert (entry.filename, entry.status, entry.url) == ("My Style.safetensors", LoRAStatus.PENDING, URL)
    assert LoRAConfig.from_pairs([(URL, 1.0), ("loras/My Style.safetensors", 0.2)], "x").entries == (
        LoRAEntry("My Style.safetensors", 0.2, local_path="loras/My Style.safetensors"),
    )


def test_files_of_a_name_that_says_nothing_are_different_loras() -> None:
    urls = [f"https://example.com/{name}/resolve/main/high_noise_model.safetensors" for name in ("one", "two")]
    assert len(LoRAConfig.from_pairs([(url, 1.0) for url in urls], "x").entries) == 2
    assert len(LoRAConfig.from_pairs([(urls[0], 1.0), (urls[0].replace("resolve", "blob"), 1.0)], "x").entries) == 1


def test_merging_keeps_the_order_and_the_phases_and_lets_the_second_win() -> None:
    first = LoRAConfig.from_names(["a", "b", "c"], "1;0 0.5 0.5")
    second = LoRAConfig.from_names(["c", "a", "d"], "0;1 0.7 0.9")
    merged = first.merge(second)
    assert [(entry.filename, entry.multiplier) for entry in merged.entries] == [
        ("a", "1;0"), ("b", 0.5), ("c", "0;1"), ("d", 0.9),
    ]  # fmt: skip


def test_what_is_not_downloaded_never_reaches_the_engine() -> None:
    config = LoRAConfig.from_params({"additional_loras": {URL: "1;0", "b.safetensors": 0.5}})
    assert config.has_pending_downloads
    assert config.get_pending_downloads() == {URL: "1;0"}
    assert config.to_wgp_format() == {"activated_loras": ["b.safetensors"], "loras_multipliers": "0.5"}
    done = config.mark_downloaded(URL, "/models/My Style.safetensors")
    assert not done.has_pending_downloads
    assert done.entries[0].status is LoRAStatus.DOWNLOADED
    assert done.to_wgp_format() == {
        "activated_loras": ["/models/My Style.safetensors", "b.safetensors"],
        "loras_multipliers": "1;0 0.5",
    }
    with pytest.raises(InvalidInput, match="no LoRA waits"):
        done.mark_downloaded(URL, "x")


def test_a_downloaded_file_is_kept_against_its_url() -> None:
    config = LoRAConfig.from_pairs([(URL, 1.0)], "x").mark_downloaded(URL, "/models/My Style.safetensors")
    again = config.merge(LoRAConfig.from_pairs([(URL, 0.5)], "x"))
    assert [(entry.status, entry.multiplier) for entry in again.entries] == [(LoRAStatus.DOWNLOADED, 0.5)]


def test_options_hold_the_urls_until_they_are_fetched() -> None:
    options = LoRAConfig.from_pairs([(URL, 0.5)], "x").to_options(GenerationOptions())
    assert (options.activated_loras, options.loras_multipliers) == ([URL], "0.5")
    assert LoRAConfig.from_options(options).get_pending_downloads() == {URL: 0.5}


def test_the_models_own_multipliers_stand_before_the_bar() -> None:
    assert split_multipliers("1 0.5|0.3 1;0", 2) == (["1", "0.5"], ["0.3", "1;0"])
