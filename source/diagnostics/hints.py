"""What to do about a failure: a table, by the class of the error and the words of its message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from source.store.types import Event, Status, Task


@dataclass(frozen=True)
class Hint:
    """Advice for failures of one kind; `pattern` is looked for in the message, in any case."""

    advice: str
    error_class: str | None = None
    pattern: str | None = None

    def fits(self, error_class: str | None, message: str) -> bool:
        if self.error_class is not None and self.error_class != error_class:
            return False
        return self.pattern is None or re.search(self.pattern, message, re.IGNORECASE) is not None


#: the first that fits is told; what is narrower stands before what is wider
HINTS = (
    Hint(
        "Ask for fewer frames or a smaller resolution, use a quantised model, or a GPU with more memory; "
        "docs/memory.md says what takes how much.",
        "out_of_memory",
    ),
    Hint("`python -m Wan2GP.models fetch MODEL` fetches the weights; `where` and `verify` say what is there.",
         "model_unavailable", r"missing|no weights|fetch|not fetched|cannot be loaded|there is no file"),
    Hint("`python debug.py doctor --model MODEL` says what the model lacks on this machine.", "model_unavailable"),
    Hint("`add_task.py --list-types` and `python -m Wan2GP.models list` name what there is.",
         "bad_input", r"did you mean|unknown (model|task type)|no task type|no model"),
    Hint("Read it from where the LoRA is published again: only whole safetensors files of the model's family are used. "
         "A damaged copy lies in LORAS_DIR: delete it.", None, r"\bLoRAs?\b"),
    Hint("Its machine is in a private network: where rows may name it, add it to FETCH_ALLOW of the worker.",
         None, r"FETCH_ALLOW|private network"),
    Hint("Put the file into a folder of MEDIA_DIRS of the worker, or give an http(s) address.", None, "MEDIA_DIRS"),
    Hint("The address gives no file: open it in a browser; a signed one may have expired. Queue the task again with "
         "another.", None, r"the server answered (4\d\d|status)|does not exist at|could not be resolved"),
    Hint("The file is larger than MAX_DOWNLOAD_MB of the worker, or MAX_LORA_GB for a LoRA.",
         None, r"max_download_mb|max_lora_gb|larger than"),
    Hint("`python debug.py disk` on the worker's machine says what lies there, `--clean` removes what nobody needs.",
         "disk_full"),
    Hint("Workers die of this task, or lose their GPU: look at the log before each death (`debug.py logs`), run it "
         "alone and smaller, and `debug.py retry` it when the cause is gone.", "poison"),
    Hint("The worker was killed or its machine was gone: the kernel's log (dmesg) names a process killed for memory.",
         "worker_died"),
    Hint("`scripts/gpu_diag.sh` on that machine, nvidia-smi and the kernel's log (dmesg, Xid) say what its GPU has.",
         "device_lost"),
    Hint("The engine reported nothing for HANG_S. Where steps really take that long, raise HANG_S.", "hang"),
    Hint("Set its token or program up for the worker, as the message says, then `debug.py retry`.",
         "program_unavailable"),
    Hint("`python debug.py doctor` looks at the storage; the results still lie in the worker's outbox, and a retry "
         "delivers them.", "storage"),
    Hint("`python debug.py doctor` looks at the database.", "database"),
    Hint("A fault outside of the worker, which did not pass in time: `debug.py retry` it when that is over.",
         "transient"),
    Hint("Look whether its disk and folders are there and writable: `python debug.py doctor`.", "io"),
    Hint("Correct the field that the message names and add the task again; `add_task.py --help TYPE` describes each.",
         "bad_input"),
    Hint("The engine failed: its traceback is in the worker's log (`debug.py logs TASK --level ERROR`). Where it says "
         "nothing of use, please report it with that log.", "engine"),
    Hint("A bug: please report it with the worker's log (`debug.py logs TASK --level ERROR`).", "internal"),
)  # fmt: skip

#: of what became of a claim, where that was not the end
_BY_EVENT = {
    "rescued": "A worker's lease ran out: it died, stood still for longer than LEASE_S, or could not reach the "
    "database. Its later writes were refused.",
    "hang": "An engine stood still and was given up.",
    "out_of_memory": "It did not fit into the GPU's memory once, and was repeated in little memory, which is slower.",
    "disk_full": "A disk was full meanwhile: `debug.py disk` on that machine.",
}


def hints(task: Task, events: Sequence[Event]) -> list[str]:
    """What to do about the state of a task, one sentence or two each; of a class of errors and a message that nothing
    here knows, nothing."""
    told = [_BY_EVENT[name] for name in dict.fromkeys(event.name for event in events) if name in _BY_EVENT]
    if task.status is Status.FAILED or task.error_class:
        message = task.error_message or ""
        advice = next((hint.advice for hint in HINTS if hint.fits(task.error_class, message)), None)
        told += [advice] if advice else []
    return told
