"""Models that stand by, the parts that they share, and what was encoded before: never anything but what the files say
now, and never another picture than without."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from control_runs import moving_square
from engine_runs import picture
from safetensors.torch import save_file
from tiny_loras import factors, linears
from tiny_models import tiny_wan_t2v, tiny_wan_vace, write_definition

from Wan2GP import wgp
from Wan2GP.definitions import load_definitions
from Wan2GP.engine.families import Cancel, Place
from Wan2GP.engine.request import parse_request
from Wan2GP.engine.residency.budgets import Budgets
from Wan2GP.engine.residency.memory import Memory
from Wan2GP.engine.residency.models import ResidentModels
from Wan2GP.engine.residency.placement import Form, stream_through
from Wan2GP.engine.residency.standby import Standby
from Wan2GP.engine.wan.model import Wan
from Wan2GP.errors import OutOfMemory

CLIP: dict[str, Any] = {
    "prompt": "a red circle", "negative_prompt": "ring", "resolution": "32x32", "video_length": 5,
    "num_inference_steps": 1, "guidance_scale": 2.0, "seed": 5,
}  # fmt: skip
PLENTY = 1 << 30


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {"a": tiny_wan_t2v(folder / "a", seed=1), "b": tiny_wan_t2v(folder / "b", seed=2)}


class Engine:
    """Resident models over definitions of this test's own, each run without files and queue."""

    def __init__(self, folder: Path, budgets: Budgets) -> None:
        self.folder = folder
        self.rows = folder / "rows"
        self.models = ResidentModels(Memory(budgets))
        self.reports: Callable[[str, int, int], None] = lambda *_: None

    def row(self, name: str, source: Path, architecture: str = "t2v_1.3B") -> None:
        write_definition(self.rows, name, architecture, source)

    def take(self, name: str, profile: int = -1) -> Any:
        definition = load_definitions([self.rows])[name]
        place = Place(self.folder, "cpu", profile, self.models.memory)
        return self.models.take(definition, place, self.reports)

    def frames(self, name: str, **values: Any) -> np.ndarray:
        model = self.take(name)
        definition = load_definitions([self.rows])[name]
        request = parse_request(CLIP | values, definition, Wan.reads, self.folder)
        return np.stack(list(model.generate(request, lambda *_: None, Cancel(lambda: False))))

    def counted(self, what: str) -> dict[str, int]:
        found: dict[str, int] = self.models.report().get(what, {})
        return found


Make = Callable[..., Engine]


@pytest.fixture
def make(tmp_path: Path, weights: dict[str, Path]) -> Iterator[Make]:
    made: list[Engine] = []

    def make_engine(**budgets: int) -> Engine:
        engine = Engine(tmp_path, Budgets(**{"host_bytes": PLENTY} | budgets))
        for name, folder in weights.items():
            engine.row(name, folder)
        made.append(engine)
        return engine

    yield make_engine
    for engine in made:
        engine.models.release()


@contextmanager
def counting(model: Wan) -> Iterator[Counter[str]]:
    """How often its encoders run: the VAE's once for each piece of a video."""
    calls: Counter[str] = Counter()
    parts = model._parts
    modules = {"text": parts.text_encoder, "latents": parts.vae.encoder}
    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
            stack.callback(handle.remove)
        yield calls


# ---- models


def test_models_within_the_budget_are_read_once_and_the_one_without_room_leaves(
    make: Make,
) -> None:
    engine = make()
    plain = engine.frames("a")
    for _ in range(3):
        engine.frames("b")
        assert np.array_equal(engine.frames("a"), plain)
    assert engine.counted("loaded") == {"a": 1, "b": 1} and engine.counted("found") == {"a": 3, "b": 2}
    size = engine.models.host_bytes
    engine.models.memory.budget(Budgets(host_bytes=size * 3 // 4))
    engine.frames("b")
    assert engine.models.ids == ("b",) and engine.counted("left") == {"a": 1}
    assert engine.models.host_bytes <= size * 3 // 4
    assert np.array_equal(engine.frames("a"), plain)


@pytest.mark.slow
def test_the_profile_for_very_little_memory_keeps_no_other_model_and_is_left_again(make: Make) -> None:
    engine = make()
    engine.take("a")
    engine.take("b", profile=5)
    assert engine.models.ids == ("b",)
    assert engine.models.profile("b").number == 5
    assert engine.take("b", profile=4) is engine.take("b", profile=5), "one of little memory is as good as another"
    assert engine.take("b") is engine.take("b") and engine.models.profile("b").number == -1
    assert engine.counted("loaded") == {"a": 1, "b": 2}


def test_a_changed_file_is_never_served_from_memory(make: Make, tmp_path: Path, weights: dict[str, Path]) -> None:
    engine = make()
    mine = Path(shutil.copytree(weights["a"], tmp_path / "mine"))
    engine.row("mine", mine)
    before = engine.frames("mine")
    file = mine / "transformer" / "diffusion_pytorch_model.safetensors"
    times, other = file.stat(), (weights["b"] / "transformer" / file.name).read_bytes()
    assert len(other) == times.st_size
    file.write_bytes(other)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = engine.frames("mine")
    assert engine.counted("changed") == {"mine": 1} and not np.array_equal(changed, before)
    row = engine.rows / "mine.json"
    row.write_text(json.dumps(json.loads(row.read_text()) | {"flow_shift": 4}))
    assert engine.take("mine") is engine.take("mine"), "defaults of settings are no weights"
    engine.row("mine", weights["a"])
    assert np.array_equal(engine.frames("mine"), before)


def test_a_model_that_stood_by_never_keeps_a_lora(make: Make, tmp_path: Path) -> None:
    engine = make()
    plain = engine.frames("a")
    transformer = engine.take("a")._parts.transformer
    pairs = factors(transformer, linears(transformer), 1)
    tensors = {f"transformer.{name}.lora_A.weight": down for name, (down, _) in pairs.items()}
    lora = tmp_path / "lora.safetensors"
    save_file(tensors | {f"transformer.{name}.lora_B.weight": up for name, (_, up) in pairs.items()}, lora)
    with_lora = {"activated_loras": [str(lora)], "loras_multipliers": "1"}
    assert not np.array_equal(engine.frames("a", **with_lora), plain)
    engine.frames("b", **with_lora)
    assert np.array_equal(engine.frames("a"), plain) and engine.counted("loaded") == {"a": 1, "b": 1}


@pytest.mark.slow
def test_what_finds_no_memory_gets_that_of_all_others(make: Make) -> None:
    engine = make()
    engine.frames("a")

    def full(phase: str, step: int, total: int) -> None:
        if engine.models.ids:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    engine.reports = full
    assert engine.take("b") and engine.models.ids == ("b",)
    assert engine.models.memory.cache.num_bytes == 0, "what was encoded before goes first"

    def always_full(phase: str, step: int, total: int) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    engine.reports = always_full
    with pytest.raises(OutOfMemory):
        engine.take("a")
    assert engine.models.ids == ()


# ---- parts


@pytest.mark.slow
def test_parts_of_the_same_bytes_are_in_memory_once(make: Make, tmp_path: Path, weights: dict[str, Path]) -> None:
    engine = make()
    copy = Path(shutil.copytree(weights["a"], tmp_path / "copy"))
    shutil.copytree(weights["b"] / "transformer", copy / "transformer", dirs_exist_ok=True)
    engine.row("same", weights["a"])
    engine.row("copy", copy)
    first, same, other = (engine.take(name)._parts for name in ("a", "same", "copy"))
    assert same.transformer is first.transformer and same.vae is first.vae
    assert other.text_encoder is first.text_encoder and other.vae is first.vae
    assert other.transformer is not first.transformer
    both = {id(part): part for parts in (first, other) for part in parts.modules.values()}.values()
    assert engine.models.host_bytes == sum(
        p.numel() * 4 for part in both for p in [*part.parameters(), *part.buffers()]
    )
    size = engine.models.host_bytes
    engine.models.drop("a")
    engine.models.drop("same")
    del first, same
    assert engine.models.host_bytes < size
    assert engine.take("copy")._parts.text_encoder is other.text_encoder


def test_what_models_share_stays_while_one_takes_the_place_of_the_other(
    make: Make, tmp_path: Path, weights: dict[str, Path]
) -> None:
    engine = make(host_bytes=1)
    mine = Path(shutil.copytree(weights["a"], tmp_path / "mine"))
    for part in ("text_encoder", "vae"):
        shutil.rmtree(mine / part)
        (mine / part).symlink_to(weights["a"] / part)
    shutil.copytree(weights["b"] / "transformer", mine / "transformer", dirs_exist_ok=True)
    engine.row("mine", mine)
    engine.take("a")
    engine.take("mine")
    assert engine.models.ids == ("mine",) and engine.counted("left") == {"a": 1}
    assert engine.counted("parts") == {"loaded": 4, "found": 2}


@pytest.mark.slow
def test_a_part_that_visits_stays_on_the_device_until_another_is_used(make: Make) -> None:
    parts = make().take("a")._parts
    placement = parts.placement
    placement.form = Form.VISITING
    placement.standbys = {name: Standby(part, torch.device("cpu"), apart=True) for name, part in parts.modules.items()}
    there: list[list[str]] = []
    for name in ("transformer", "transformer", "vae", "vae"):
        with parts.using(name) as part:
            assert part is parts.modules[name]
            there.append([each for each, standby in placement.standbys.items() if standby.on_device])
    assert there == [["transformer"], ["transformer"], ["vae"], ["vae"]]


@pytest.mark.slow
def test_a_model_that_goes_through_the_device_layer_by_layer_draws_the_same(make: Make, tmp_path: Path) -> None:
    engine = make(cache_bytes=0)
    guided = {"guidance_scale": 1.0, "NAG_scale": 3.0, "num_inference_steps": 2}
    skipping = {"slg_switch": 1, "slg_layers": [0], "slg_start_perc": 0, "slg_end_perc": 100, "num_inference_steps": 3}
    runs: list[dict[str, Any]] = [{}, guided, skipping, {}]
    plain = [engine.frames("a", **run) for run in runs]
    placement = engine.take("a").placement
    placement.form = Form.STREAMED
    for name in ("transformer", "text_encoder"):
        stream_through(placement.parts[name], torch.device("cpu"), overlapped=True, pinned=True)
        placement.standbys[name].streamed = True
    assert all(np.array_equal(engine.frames("a", **run), one) for run, one in zip(runs, plain, strict=True))


# ---- what was encoded before


def trace(tmp_path: Path) -> list[dict[str, Any]]:
    """What a person asks for in an afternoon: one negative prompt, prompts that come again, and one guide drawn with
    several seeds, strengths and references."""
    guide = str(moving_square(tmp_path / "guide.mkv", 9))
    steered = {"video_guide": guide, "video_prompt_type": "V", "video_length": 9}
    reference = {"image_refs": [picture(3, 32, 32)], "video_prompt_type": "VI"}
    return [
        steered,
        steered | {"seed": 6},
        steered | {"prompt": "a blue ring", "seed": 6},
        steered | {"control_net_weight": 0.5},
        steered | reference,
        steered | reference | {"seed": 9},
        steered | {"num_inference_steps": 2},
        steered | {"prompt": "a blue ring", "negative_prompt": "circle"},
    ]


@pytest.mark.slow
def test_encoders_run_half_as_often_or_less_and_every_frame_is_the_same(make: Make, tmp_path: Path) -> None:
    folder, runs = tiny_wan_vace(tmp_path / "vace"), trace(tmp_path)
    made: dict[int, tuple[list[np.ndarray], Counter[str]]] = {}
    for cache_bytes in (0, 1 << 26):
        engine = make(cache_bytes=cache_bytes)
        engine.row("vace", folder, "vace_1.3B")
        with counting(engine.take("vace")) as calls:
            made[cache_bytes] = [engine.frames("vace", **run) for run in runs], calls
    (without, computed), (cached, fewer) = made[0], made[1 << 26]
    assert all(np.array_equal(one, other) for one, other in zip(without, cached, strict=True))
    for name in ("text", "latents"):
        assert 0 < fewer[name] * 2 <= computed[name], (name, computed, fewer)
    assert engine.counted("text") == {"computed": 4, "found": 12}
    assert engine.models.memory.cache.num_bytes > 0


@pytest.mark.slow
def test_the_engine_tells_what_was_found_in_memory(tmp_path: Path, weights: dict[str, Path]) -> None:
    rows = write_definition(tmp_path / "rows", "a", "t2v_1.3B", weights["a"])
    wgp.configure(checkpoints=tmp_path, definitions=[rows], save_path=tmp_path / "out", device="cpu")
    try:
        for seed in (1, 2):
            assert wgp.generate_media(model_type="a", **CLIP | {"seed": seed})
        told = wgp.memory_report()
        assert told["models"] == ["a"] and told["text"]["found"] >= 2
        wgp.release_model()
        assert wgp.memory_report()["models"] == [] and wgp.memory_report()["cache_mb"] == 0
    finally:
        wgp.release_model()
        wgp.configure(definitions=[])
