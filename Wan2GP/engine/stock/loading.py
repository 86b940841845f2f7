"""A pipeline of diffusers out of a local folder, strictly: every weight has its place and every place its weight."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import logging as diffusers_logging
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from Wan2GP.definitions import ModelDefinition
from Wan2GP.engine.families import Place
from Wan2GP.engine.folder_models import read_folder, strictly
from Wan2GP.engine.loading import weights_dtype
from Wan2GP.engine.residency.memory import Memory
from Wan2GP.engine.residency.placement import Form, Placement
from Wan2GP.engine.residency.shared import SharedParts
from Wan2GP.engine.stock.remembering import Remembering
from Wan2GP.errors import ModelUnavailable
from Wan2GP.layout import where
from Wan2GP.memory_profiles import profile_of
from Wan2GP.weights.configs import transformer_config
from Wan2GP.weights.transformers import transformer_from_files

#: where the classes that a folder names may come from: nothing else is imported because a file says so
_LIBRARIES = ("diffusers", "transformers")


def load_pipeline(cls: type[DiffusionPipeline], definition: ModelDefinition, place: Place) -> Any:
    """A pipeline of class `cls` in evaluation mode: bfloat16 on an accelerator, float32 on a CPU. Nothing is fetched.

    Where the accelerator cannot hold all parts at once, each is there only while it works. Prompts are encoded once.
    Raises ModelUnavailable, with the command that fetches, for weights that are missing, left over, of a wrong shape or
    not numbers.
    """
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline = read_folder(definition, place, lambda folder: cls(**_parts(cls, folder, definition, place)))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.placement = placed(pipeline, place)
    layout = where(definition, place.checkpoints)
    assert layout is not None, "it was read from there"
    pipeline.remembering = Remembering(pipeline, place.memory, layout.folder)
    pipeline.encode_prompt = pipeline.remembering.prompts(pipeline)
    return pipeline


def placed(pipeline: Any, place: Place) -> Placement:
    """All parts on the device where they fit, else one after the other by hooks, or layer by layer."""
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    memory: Memory = place.memory
    placement = memory.placement(modules, torch.device(place.device), profile_of(place.profile))
    if placement.form is Form.VISITING:
        pipeline.enable_model_cpu_offload(device=place.device)
    else:
        placement.bring()
    return placement


def _parts(cls: type[DiffusionPipeline], folder: Path, definition: ModelDefinition, place: Place) -> dict[str, Any]:
    """The arguments of the pipeline's class, as the folder's index lists them; a transformer of its own file first."""
    dtype = weights_dtype(place.device)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    wanted = inspect.signature(cls.__init__).parameters
    found: dict[str, Any] = _own_transformer(definition, place, dtype)
    for name in (wanted.keys() & index.keys()) - found.keys():
        listed = index[name]
        if not isinstance(listed, list):
            found[name] = listed
        elif listed[0] is not None:
            found[name] = _part(folder / name, *listed, dtype=dtype, shared=place.memory.shared)
    for name, parameter in wanted.items():
        if name != "self" and parameter.default is inspect.Parameter.empty and name not in found:
            raise ModelUnavailable(f"its model_index.json has no {name}")
    return found


def _own_transformer(definition: ModelDefinition, place: Place, dtype: torch.dtype) -> dict[str, Any]:
    """The transformer of a model that has it in a file or folder of its own; nothing for others."""
    layout = where(definition, place.checkpoints)
    if layout is None or not definition.transformers[0]:
        return {}
    config = transformer_config(definition.architecture_name, [layout.transformer])
    cls = getattr(diffusers, config["_class_name"])
    files = [layout.transformer]
    shared: SharedParts = place.memory.shared
    return {
        "transformer": shared.part(
            cls, files, (dtype, config), lambda: transformer_from_files(files, config=config, cls=cls, dtype=dtype)
        )
    }


def _part(folder: Path, library: str, name: str, *, dtype: torch.dtype, shared: SharedParts) -> Any:
    if library not in _LIBRARIES:
        raise ModelUnavailable(f"{folder.name} is of {library}.{name}; classes come from {' and '.join(_LIBRARIES)}")
    cls = getattr(importlib.import_module(library), name, None)
    if cls is None:
        raise ModelUnavailable(f"{folder.name} is a {library}.{name}, which the installed {library} does not have")
    if issubclass(cls, ModelMixin):
        return shared.part(cls, [folder], dtype, lambda: network(cls, folder, dtype))
    if issubclass(cls, PreTrainedModel):
        return shared.part(cls, [folder], dtype, lambda: strictly(cls, folder, dtype).eval().requires_grad_(False))
    return cls.from_pretrained(folder, local_files_only=True)


def network(cls: type[Any], folder: Path, dtype: torch.dtype) -> Any:
    """A transformer or VAE of diffusers on the CPU. Raises ModelUnavailable for weights that do not fit it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("_class_name") != cls.__name__:
        raise ModelUnavailable(f"{folder.name}/config.json is of a {config.get('_class_name')}, not a {cls.__name__}")
    return transformer_from_files([folder], config=config, cls=cls, dtype=dtype)
