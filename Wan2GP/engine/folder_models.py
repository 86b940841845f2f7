"""Models of the transformers library out of a local folder, strictly: no weight missing, none left over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from Wan2GP.definitions import ModelDefinition, how_to_fetch
from Wan2GP.engine.families import Place
from Wan2GP.errors import ModelUnavailable
from Wan2GP.layout import where

_SHOWN = 3


def folder_of(definition: ModelDefinition, place: Place) -> Path:
    """The folder that holds all of the model."""
    layout = where(definition, place.checkpoints)
    assert layout is not None, "a model without weights is not available"
    return layout.folder


def load_from_folder(cls: Any, definition: ModelDefinition, place: Place, dtype: torch.dtype) -> Any:
    """A model of class `cls` in evaluation mode on the place's device. Nothing is fetched.

    Raises ModelUnavailable, with the command that fetches, for weights that are missing, left over or of a wrong shape.
    """
    folder = folder_of(definition, place)
    transformers_logging.disable_progress_bar()
    try:
        model = _strictly(cls, folder, dtype)
    except (OSError, ValueError, RuntimeError, SafetensorError, ModelUnavailable) as error:
        raise unusable(definition, folder, error) from error
    return model.eval().requires_grad_(False).to(place.device)


def unusable(definition: ModelDefinition, folder: Path, error: Exception) -> ModelUnavailable:
    """The error for a folder that cannot be used, with its first line of reason and the cure."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ModelUnavailable(
        f"{definition.id} cannot be loaded from {folder}: {reason}. {how_to_fetch(definition, folder)}"
    )


def _strictly(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    model, info = cls.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    problems = [
        f"{what} {', '.join(map(str, sorted(info[kind])[:_SHOWN]))}"
        for kind, what in (("missing_keys", "it lacks"), ("unexpected_keys", "it holds what has no place:"))
        if info[kind]
    ]
    if problems:
        raise ModelUnavailable(f"the weights do not fit {cls.__name__}: {'; '.join(problems)}")
    return model
