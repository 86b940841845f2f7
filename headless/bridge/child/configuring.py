"""How the checkout uses the machine: set in its memory, since its own way of setting it rewrites its configuration."""

from __future__ import annotations

from typing import Any

#: newer versions have one profile for each kind of output
_PROFILES = (
    "default_profile", "default_profile_video", "default_profile_image", "default_profile_audio", "profile",
)  # fmt: skip


def configure(wgp: Any, configuration: dict[str, Any]) -> None:
    """Set globals of `wgp`, and the entries of its server_config of the same names; "profile" is all of its profiles.

    The next run loads its model anew. What the version does not have is said in the log.
    """
    for name, value in configuration.items() if wgp is not None else ():
        names = _PROFILES if name == "profile" else (name,)
        found = [each for each in names if hasattr(wgp, each)]
        for each in found:
            setattr(wgp, each, value)
        known = [each for each in names if each in wgp.server_config]
        wgp.server_config.update(dict.fromkeys(known, value))
        if not found and not known:
            print(f"this version of the checkout has no setting {name}: it is left out")  # noqa: T201
        wgp.reload_needed = True
