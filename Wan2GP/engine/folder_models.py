"""Models of the transformers library out of a local folder, strictly: no weight missing, none left over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging as transformers_logging

from Wan2GP.definitions import ModelDefinition, how_to_fetch
from Wan2GP.engine.families import Place
from Wan2GP.engine.loading import typed_failure
from Wan2GP.errors import DeviceLost, ModelUnavailable, OutOfMemory
from Wan2GP.layout import where

logger = logging.getLogger(__name__)

Content = TypeVar("Content")

_SHOWN = 3


def load_from_folder(cls: Any, definition: ModelDefinition, place: Place, dtype: torch.dtype) -> Any:
    """A model of class `cls` in evaluation mode on the place's device. Nothing is fetched.

    Raises ModelUnavailable, with the command that fetches, for weights that are missing, left over or of a wrong shape.
    """
    transformers_logging.disable_progress_bar()
    model = read_folder(definition, place, lambda folder: strictly(cls, folder, dtype))
    return model.eval().requires_grad_(False).to(place.device)


def read_folder(definition: ModelDefinition, place: Place, read: Callable[[Path], Content]) -> Content:
    """What `read` makes of the model's folder. Raises ModelUnavailable, with the reason and the cure, where it cannot.

    A damaged file makes the library raise anything. The failure is raised outside the handler, so that whoever keeps
    it does not keep the half-loaded weights in its frames.
    """
    layout = where(definition, place.checkpoints)
    assert layout is not None, "a model without weights is not available"
    try:
        return read(layout.folder)
    except Exception as error:
        logger.info("%s cannot be read", layout.folder, exc_info=True)
        failure = typed_failure(error)
        if not isinstance(failure, (OutOfMemory, DeviceLost)):
            failure = _unusable(definition, layout.folder, error)
    raise failure


def _unusable(definition: ModelDefinition, folder: Path, error: Exception) -> ModelUnavailable:
    """The error for a folder that cannot be used, with its first line of reason and the cure."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
    return ModelUnavailable(
        f"{definition.id} cannot be loaded from {folder}: {reason}. {how_to_fetch(definition, folder)}"
    )


def strictly(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model of class `cls` on the CPU. Raises ModelUnavailable for weights that are missing or have no place."""
    kind = PreTrainedConfig.get_config_dict(folder, local_files_only=True)[0].get("model_type")
    if kind != cls.config_class.model_type:
        # The library would fill in the sizes of a model of its own choice, and their memory.
        raise ModelUnavailable(f"its config.json is of a {kind!r} model, not of {cls.config_class.model_type!r}")
    model, info = cls.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    problems = [
        f"{what} {', '.join(map(str, sorted(info[kind])[:_SHOWN]))}"
        for kind, what in (("missing_keys", "it lacks"), ("unexpected_keys", "it holds what has no place:"))
        if info[kind]
    ]
    if problems:
        raise ModelUnavailable(f"the weights do not fit {cls.__name__}: {'; '.join(problems)}")
    return model
