"""The restart window: whether one more restart is within the intensity, and what crashed before it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultra.supervisor.spec import RestartIntensity

__all__ = ["CountedRestart", "RestartWindow"]


class CountedRestart:
    """One restart that an intensity allowed, after the crash `crash`.

    `time` is when the child began anew, infinite until then.
    """

    __slots__ = ("crash", "time")

    def __init__(self, crash: Exception) -> None:
        self.crash = crash
        self.time = inf


class RestartWindow:
    """Counts restarts against an intensity.

    A restart counts from its decision on until `within` seconds after the child began anew: backoff, and
    siblings that stop first, put time between the two, and it is the restarts that must not come too
    often. As in OTP, a restart exactly `within` seconds ago still counts.
    """

    __slots__ = ("_restarts", "intensity")

    def __init__(self, intensity: RestartIntensity) -> None:
        self.intensity = intensity
        self._restarts: list[CountedRestart] = []

    def admit(self, now: float, crash: Exception) -> CountedRestart | None:
        """Count one more restart; None, and nothing counted, if it would be one too many."""
        if len(self._restarts) >= self.intensity.max_restarts:
            self._forget_before(now - self.intensity.within)
            if len(self._restarts) >= self.intensity.max_restarts:
                return None
        restart = CountedRestart(crash)
        self._restarts.append(restart)
        return restart

    @property
    def crashes(self) -> list[Exception]:
        """The crashes whose restarts counted when `admit` last gave None, oldest first."""
        return [restart.crash for restart in self._restarts]

    def _forget_before(self, threshold: float) -> None:
        self._restarts = [restart for restart in self._restarts if restart.time >= threshold]

    def clear(self) -> None:
        """Forget all restarts."""
        self._restarts.clear()
