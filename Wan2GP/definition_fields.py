"""What a file of a model definition may hold: the fields of its `model` object, and setting defaults. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Wan2GP.errors import InvalidInput, did_you_mean
from Wan2GP.parameters import PARAMETERS, PLUMBING

#: fields of the `model` object, with the types they may have
MODEL_FIELDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "architecture": (str,),
    "description": (str,),
    "source": (str,),
    "wheel_files": (dict,),
    "parts": (dict,),
    "devices": (list,),
    "visible": (bool,),
    "URLs": (list, str),
    "URLs2": (list, str),
    "modules": (list, str),
    "lends": (list,),
    "loras": (list, str),
    "loras_multipliers": (list, str),
    "preload_URLs": (list, str),
    "VAE_URLs": (list, str),
    "text_encoder_URLs": (list, str),
    "text_encoder_folder": (str,),
    "source2": (str,),
    "module_source": (str,),
    "finetune_source_model": (str,),
    "auto_quantize": (bool,),
    "attention": (dict,),
    "compile": (list, bool),
    "group": (str,),
    "image_outputs": (bool,),
    "profiles_dir": (list,),
    "settings_dir": (list,),
    "guidance_max_phases": (int,),
    "lock_guidance_phases": (bool,),
    "configs": (dict,),
    "teacache_coefficients": (list,),
    "magcache_ratios": (list,),
    "resolutions": (list,),
    "resolutions_categories": (list,),
    "frames_minimum": (int,),
    "frames_steps": (int,),
    "fps": (int,),
    "custom_settings": (list,),
    "infos": (str,),
    "audio_encoder": (str,),
    "refining": (dict,),
    "licence": (str,),
    "verified": (bool,),
}

#: fields of the `model` object that stand in for what its architecture declares
DECLARED = {
    "fps": "fps",
    "frames_minimum": "min_frames",
    "frames_steps": "frame_step",
    "image_outputs": "image_output",
    "guidance_max_phases": "phases",
}


def check_field(path: Path, key: str, value: Any) -> None:
    """Raises InvalidInput that names the file and the key, for a key or a value that the `model` object cannot have."""
    if key not in MODEL_FIELDS:
        raise InvalidInput(f"{path}: model.{key}: there is no such field.{did_you_mean(key, MODEL_FIELDS)}")
    if not isinstance(value, MODEL_FIELDS[key]):
        kinds = " or ".join(kind.__name__ for kind in MODEL_FIELDS[key])
        raise InvalidInput(f"{path}: model.{key}: must be {kinds}, not {type(value).__name__}")
    if key in DECLARED and key != "image_outputs" and (isinstance(value, bool) or value < 1):
        raise InvalidInput(f"{path}: model.{key}: must be a whole number from 1, not {value!r}")


def check_setting(path: Path, key: str, value: Any) -> None:
    """The same for a setting default."""
    if key not in PARAMETERS or key in PLUMBING:
        known = set(PARAMETERS) - PLUMBING
        raise InvalidInput(f"{path}: {key}: there is no such setting.{did_you_mean(key, known)}")
    default = PARAMETERS[key].default
    number = isinstance(default, (int, float))
    if number and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise InvalidInput(f"{path}: {key}: must be a number, not {value!r}")
    if isinstance(default, str) and not isinstance(value, str):
        raise InvalidInput(f"{path}: {key}: must be text, not {value!r}")
