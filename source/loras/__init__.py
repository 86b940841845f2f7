"""LoRAs that a task names become local files: found in the allowed folders, or downloaded once and kept.

    loras/wan/style.safetensors           a file of the user's, or a download
    loras/wan/.downloads/index.json       which URL each download came from, its size, checksum and last use
    loras/wan/.downloads/<key>.part       a download on its way, continued after an interruption
    loras/wan/.downloads/<key>.lock       held by the one who downloads that URL

One folder a model family (`ModelInfo.lora_folder`). Files of the user's are never changed and never deleted.
"""

from source.loras.store import LoRAStore, TaskLoRAs

__all__ = ["LoRAStore", "TaskLoRAs"]
