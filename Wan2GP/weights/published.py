"""Lists of names and shapes that were published, as digests, and the digest of any such list.

DiffSynth-Studio recognises checkpoints by the MD5 of their sorted names and shapes in the original layout; the digests
below are those that its model table gives for the repositories named beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

#: definition -> digest of the transformer (of either expert) in the original layout
DIGESTS: Mapping[str, str] = MappingProxyType(
    {
        "t2v_1.3B": "9269f8db9040a9d860eaca435be61814",  # Wan-AI/Wan2.1-T2V-1.3B
        "t2v": "aafcfd9672c3a2456dc46e1cb6e52c70",  # Wan-AI/Wan2.1-T2V-14B
        "i2v": "6bfcfb3b342cb286ce886889d519a77e",  # Wan-AI/Wan2.1-I2V-14B-480P
        "fun_inp": "6bfcfb3b342cb286ce886889d519a77e",  # alibaba-pai/Wan2.1-Fun-14B-InP
        "fun_inp_1.3B": "6d6ccde6845b95ad9114ab993d917893",  # alibaba-pai/Wan2.1-Fun-1.3B-InP
        "flf2v_720p": "3ef3b1f8e1dab83d5b71fd7b617f859f",  # Wan-AI/Wan2.1-FLF2V-14B-720P
        "i2v_2_2": "5b013604280dd715f8457c6ed6d6a626",  # Wan-AI/Wan2.2-I2V-A14B
        "ti2v_2_2": "1f5ab7703c6fc803fdded85ff040c316",  # Wan-AI/Wan2.2-TI2V-5B
        "vace_1.3B": "a61453409b67cd3246cf0c3bebad47ba",  # iic/VACE-Wan2.1-1.3B-Preview
        "vace_14B": "7a513e1f257a861512b1afd387a8ecd9",  # Wan-AI/Wan2.1-VACE-14B
    }
)


def digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """MD5 of the names and of the names with their shapes, sorted, as DiffSynth-Studio computes it."""
    named = [f"{name}:{'_'.join(map(str, shape))}" for name, shape in shapes.items()]
    return hashlib.md5(",".join(sorted([*shapes, *named])).encode(), usedforsecurity=False).hexdigest()
