"""The shapes of the real models, as published: `configs/<part>/*.json`, in diffusers' own format. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from Wan2GP.errors import InvalidInput, did_you_mean

CONFIGS_DIR = Path(__file__).parent.parent / "configs"

#: architecture -> file of its transformer's config (both experts of two have the same)
_TRANSFORMERS: Mapping[str, str] = MappingProxyType(
    {
        "t2v": "t2v_14B",
        "t2v_1.3B": "t2v_1.3B",
        "t2v_2_2": "t2v_14B",
        "i2v": "i2v_14B",
        "i2v_2_2": "i2v_2_2",
        "i2v_2_2_svi2pro": "i2v_2_2",
        "ti2v_2_2": "ti2v_5B",
        "flf2v_720p": "flf2v_14B",
        "fun_inp": "i2v_14B",
        "fun_inp_1.3B": "i2v_1.3B",
        "vace_1.3B": "vace_1.3B",
        "vace_14B": "vace_14B",
        "vace_14B_2_2": "vace_14B",
        "phantom_1.3B": "t2v_1.3B",
        "phantom_14B": "t2v_14B",
        "recam_1.3B": "t2v_1.3B",
        "fantasy": "i2v_14B",
        "sky_df_1.3B": "sky_df_1.3B",
        "sky_df_14B": "sky_df_14B",
        "hunyuan": "hunyuan",
        "hunyuan_i2v": "hunyuan_i2v",
        "hunyuan_custom": "hunyuan_custom",
    }
)
#: architectures whose other parts always lie in a folder, with configs of their own
_TRANSFORMER_ALONE = frozenset({"hunyuan", "hunyuan_i2v", "hunyuan_custom"})


def config_for(architecture_name: str, part: str = "transformer") -> dict[str, Any]:
    """The config of one part of the real models of an architecture, with its class under `_class_name`.

    `part` is transformer, vae, text_encoder, image_encoder or scheduler. `_class_name` is that of the plain transformer
    for architectures that add layers of their own (recam_1.3B, fantasy). Raises InvalidInput for what has no config.
    """
    if architecture_name not in _TRANSFORMERS:
        hint = did_you_mean(architecture_name, _TRANSFORMERS)
        raise InvalidInput(f"there are no configs of an architecture {architecture_name!r}.{hint}")
    if architecture_name in _TRANSFORMER_ALONE:
        if part != "transformer":
            raise InvalidInput(f"there is no config of the {part} of {architecture_name}; its folder has one")
        return _read("transformer", _TRANSFORMERS[architecture_name])
    names = {
        "transformer": _TRANSFORMERS[architecture_name],
        "vae": "wan_2_2" if architecture_name == "ti2v_2_2" else "wan_2_1",
        "text_encoder": "umt5_xxl",
        "scheduler": "unipc",
    }
    if _read("transformer", names["transformer"])["image_dim"]:
        names["image_encoder"] = "clip_vit_h"
    if part not in names:
        raise InvalidInput(f"models of the architecture {architecture_name} have no {part}")
    return _read(part, names[part])


def transformer_config(architecture_name: str, files: Sequence[Path]) -> dict[str, Any]:
    """The config of the transformer that these files make up.

    It is the one beside the last of them whose class is that of the architecture, else that of the real models: the
    config of a plain transformer says nothing of the one that it becomes under a module. Of an architecture whose
    models always come as folders, it is the folder's.
    """
    shipped = architecture_name in _TRANSFORMERS
    for beside in (file / "config.json" for file in reversed(files)):
        if beside.is_file():
            own: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
            if not shipped or own.get("_class_name") == config_for(architecture_name)["_class_name"]:
                return own
    return config_for(architecture_name)


def _read(part: str, name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CONFIGS_DIR / part / f"{name}.json").read_text(encoding="utf-8"))
    return config
