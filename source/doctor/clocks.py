"""Whether the database's clock and ours agree."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from source.doctor.checks import Finding, doubtful, failed, well

#: seconds from which it is worth a word
NOTABLE_S = 2.0
CURE = "set the clock of this machine by NTP (`timedatectl set-ntp true`)"

Clock = Callable[[], datetime]


def machine_clock() -> datetime:
    """Now, by this machine."""
    return datetime.now(UTC)


def compared(difference_s: float, lease_s: float, told: str) -> Finding:
    """Judge a difference in seconds; `told` says between what and what."""
    if abs(difference_s) > lease_s / 2:
        return failed(told, f"{CURE}: it is more than half a lease ({lease_s:g} s)")
    if abs(difference_s) > NOTABLE_S:
        return doubtful(told, CURE)
    return well(told)
