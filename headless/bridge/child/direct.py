"""A checkout driven by its generation function, by whichever name it has."""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from headless.bridge.child.calls import Call, forget_peak, fresh_state, peak_memory_bytes
from headless.bridge.child.failures import NoStart

#: module globals that name where results go; those of the same name in server_config are read once, at import
_FOLDERS = ("save_path", "image_save_path", "audio_save_path")
#: server_config while a lossless video is wanted
LOSSLESS = {"video_output_codec": "libx264_lossless", "video_container": "mkv"}


class DirectDriver:
    """`wgp` imported, and its functions called. `root` is the checkout, and the current folder."""

    def __init__(self, root: str, entry: str) -> None:
        self._root = root
        self._wgp = wgp = import_wgp()
        if not hasattr(wgp, entry):
            raise NoStart(f"wgp has no function {entry} after its import")
        self._generate: Callable[..., Any] = getattr(wgp, entry)
        if not getattr(wgp, "models_def", None):
            raise NoStart("wgp knows no models after its import")
        self.parameters = list(inspect.signature(self._generate).parameters)
        self._resident: tuple[str, int] | None = None

    @property
    def model(self) -> str:
        """The model in memory, or the empty string. `transformer_type` says less: at import it names one already."""
        return self._wgp.transformer_type if self._resident and self._wgp.wan_model is not None else ""

    def defaults(self, model: str) -> dict[str, Any]:
        """The settings of a model as the checkout ships them, not as somebody saved them in its interface."""
        wgp = self._wgp
        if hasattr(wgp, "get_factory_settings"):
            return dict(wgp.get_factory_settings(model))
        with tempfile.TemporaryDirectory() as nowhere:
            # where no saved settings lie, they are made anew, and written beside
            kept = wgp.get_settings_file_name
            wgp.get_settings_file_name = lambda model_type: f"{nowhere}/{model_type}_settings.json"
            try:
                return dict(wgp.get_default_settings(model))
            finally:
                wgp.get_settings_file_name = kept

    def load(self, model: str, profile: int) -> bool:
        """Whether it had to be loaded. The old model goes first; without room for the new one none is left."""
        wgp = self._wgp
        if self._resident == (model, profile) and self.model == model and not wgp.reload_needed:
            return False
        self.release()
        unset = getattr(wgp, "loaded_profile", None)
        wgp.wan_model, wgp.offloadobj = wgp.load_models(model, override_profile=profile)[:2]
        wgp.transformer_type, wgp.reload_needed = model, False
        if unset is not None and wgp.loaded_profile == unset:
            # it is compared at the next run: a difference loads the model again
            wgp.loaded_profile = profile if profile > 0 else getattr(wgp, "default_profile", unset)
        self._resident = (model, profile)
        return True

    def release(self) -> None:
        """`unload_model_if_needed` does nothing by default; this does."""
        self._resident = None
        if self._wgp.wan_model is not None or self._wgp.offloadobj is not None:
            self._wgp.release_model()
            self._wgp.wan_model = self._wgp.offloadobj = None
            self._wgp.reload_needed = True
        gc.collect()

    def generate(self, call: Call) -> dict[str, Any]:
        """Run. Raises what the checkout raises; what it reports instead is in `errors`."""
        wgp = self._wgp
        record = {"id": 1, "params": {}, "repeats": 1, "prompt": call.settings.get("prompt", "")}
        state = fresh_state(call, record)
        gen = state["gen"]

        def stop() -> None:
            gen.update(abort=True, resume=True)
            if wgp.wan_model is not None:
                wgp.wan_model._interrupt = True

        def send(command: str, data: Any = None) -> None:
            call.hear(command, data, (gen.get("window_no") or 0, gen.get("total_windows") or 0))

        keywords = self._keywords(call) | {"task": record, "send_cmd": send, "state": state}
        self._check_signature(keywords)
        forget_peak(sys.modules)
        call.stop = stop
        with self._results_in(call.output_dir), changed(wgp.server_config, LOSSLESS if call.lossless else {}):
            returned = self._generate(**keywords)
        self._resident = (wgp.transformer_type, int(keywords.get("override_profile") or -1))
        if returned is False and not call.errors:
            call.errors.append("the checkout says that the generation failed, and not why")
        return {
            "files": call.files(gen["file_list"], gen["audio_file_list"], root=self._root),
            "errors": call.errors,
            "peak_memory_bytes": peak_memory_bytes(sys.modules),
        }

    def _keywords(self, call: Call) -> dict[str, Any]:
        plumbing = {
            "client_id": call.id, "model_type": call.model, "model_filename": "", "mode": "", "plugin_data": None,
        }  # fmt: skip
        known = set(self.parameters)
        values = {name: value for name, value in (call.settings | plumbing).items() if name in known}
        return values | {name: _opened(values[name]) for name in call.images}

    def _check_signature(self, keywords: dict[str, Any]) -> None:
        """Raises NoStart for a parameter that this version of the bridge gives no value."""
        needed = inspect.signature(self._generate).parameters.values()
        lacking = [each.name for each in needed if each.default is each.empty and each.name not in keywords]
        if lacking:
            raise NoStart(f"this checkout's {self._generate.__name__} wants {', '.join(lacking)}, which has no default")

    @contextlib.contextmanager
    def _results_in(self, folder: str) -> Iterator[None]:
        """Results go to `folder`, and only for now: nothing of it is written to the checkout's configuration."""
        wgp = self._wgp
        kept = {name: getattr(wgp, name) for name in _FOLDERS if hasattr(wgp, name)}
        with changed(wgp.server_config, dict.fromkeys(kept, folder)):
            for name in kept:
                setattr(wgp, name, folder)
            try:
                yield
            finally:
                for name, value in kept.items():
                    setattr(wgp, name, value)


def import_wgp() -> Any:
    """The module, under the name by which its own parts look it up. Raises NoStart."""
    sys.argv = ["wgp.py"]
    try:
        with contextlib.suppress(Exception):  # it may be out of reach, and ours is on PATH
            importlib.import_module("shared.ffmpeg_setup").download_ffmpeg()
        return importlib.import_module("wgp")
    except SystemExit as error:
        raise NoStart(f"wgp.py ended its process while it was imported (code {error.code})") from error


@contextlib.contextmanager
def changed(config: dict[str, Any], changes: dict[str, Any]) -> Iterator[None]:
    """Entries of a configuration in memory, changed for now."""
    kept = {name: config[name] for name in changes if name in config}
    config.update(changes)
    try:
        yield
    finally:
        for name in changes:
            config.pop(name, None)
        config.update(kept)


def _opened(files: str | list[str]) -> Any:
    """PIL RGB images, decoded."""
    from PIL import Image

    if isinstance(files, list):
        return [_opened(file) for file in files]
    with Image.open(files) as image:
        return image.convert("RGB")
