"""Runs a program, and ends it with all that it started when the process that asked for it is gone.

    python keeper.py PROGRAM ARGUMENT …

Its standard input is a pipe whose other end that process alone holds: however it ends, the pipe closes. It leads a
process group of its own, hands on the descriptors that it was given, and needs nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    """The program's exit code; 128 + the signal that ended it, as shells count."""
    if os.getpgrp() != os.getpid():
        raise SystemExit("the keeper must lead a process group of its own")
    # asked to stop, the group is: the program ends by that, and its keeper after it
    signal.signal(signal.SIGTERM, lambda *_: None)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = program.wait()
    return 128 - code if code < 0 else code


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
