"""What follows when a child crashes: who is restarted, when, and whether at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.errors import RestartLimitExceeded
from ultra.supervisor.intensity import RestartWindow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from ultra.supervisor.child import Child
    from ultra.supervisor.spec import OnExcess, RestartIntensity, Strategy

__all__ = ["RestartPolicy"]


class RestartPolicy:
    """Makes one supervisor's decisions, and carries none of them out."""

    def __init__(
        self, strategy: Strategy, intensity: RestartIntensity, on_excess: OnExcess, random: Random
    ) -> None:
        self.strategy: Strategy = strategy
        self.intensity = intensity
        self.on_excess: OnExcess = on_excess
        self._random = random
        self._window = RestartWindow(intensity)

    def delay(self, child: Child, error: Exception, now: float) -> float | None:
        """Count the crash of `child`: seconds until it is to be restarted, or None if it is not to be."""
        if now - child.ready_at >= child.backoff.reset_after:
            child.crashes_in_a_row = 0
        child.crashes_in_a_row += 1
        delay = child.backoff.delay(child.crashes_in_a_row, self._random)
        child.counted = self._window.admit(now, error)
        return None if child.counted is None else delay

    def group(self, child: Child, children: Iterable[Child]) -> list[Child]:
        """Which of `children` are restarted with `child`, itself included, in their order."""
        if self.strategy == "one_for_one":
            return [child]
        members = list(children)
        return members if self.strategy == "one_for_all" else members[members.index(child) :]

    def excess(self, child: Child, error: Exception) -> RestartLimitExceeded:
        """What to say of a crash for which `delay` was None."""
        crashes = [*self._window.crashes, error]
        return RestartLimitExceeded(child.path, self.intensity.max_restarts, self.intensity.within, crashes)

    def forget(self) -> None:
        """Begin to count anew."""
        self._window.clear()
