"""The windows of a run, each read on another thread while the one before is made. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from Wan2GP.engine.ahead import MOST_BYTES
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.engine.wan.media import no_frames, window_bytes, window_of
from Wan2GP.engine.wan.window import Frames, Span, Window

Read = Callable[[GenerationRequest, int, Span, int, Frames], Window]


class Windows:
    """What each window of a request is given. One that takes too much memory is read when its turn comes."""

    def __init__(self, request: GenerationRequest, spans: Sequence[Span], read: Read = window_of) -> None:
        self._request, self._spans, self._read = request, spans, read
        self._thread = ThreadPoolExecutor(1, "windows")
        self._next: tuple[int, Future[Window]] | None = None

    def __enter__(self) -> Windows:
        return self

    def __len__(self) -> int:
        return len(self._spans)

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def window(self, index: int, prefix: Frames) -> Window:
        """What window `index` is given beside `prefix`, the frames that were made before it; the next one is read from
        now on. Raises InvalidMedia."""
        ahead, self._next = self._next, None
        window = ahead[1].result() if ahead is not None and ahead[0] == index else self._window(index)
        if index + 1 < len(self._spans) and window_bytes(self._request, self._spans[index + 1]) <= MOST_BYTES:
            self._next = index + 1, self._thread.submit(self._window, index + 1)
        return replace(window, prefix=prefix)

    def _window(self, index: int) -> Window:
        return self._read(self._request, index, self._spans[index], len(self._spans), no_frames(self._request))
