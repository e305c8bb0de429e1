"""What follows when a child crashes: who is restarted, when, and whether the restart intensity allows it."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from ultra.errors import RestartLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from ultra.supervisor.child import Child
    from ultra.supervisor.spec import OnExcess, RestartIntensity, RestartStrategy

__all__ = ["CountedRestart", "RestartPolicy", "RestartWindow"]


LEAST_TIDIED: Final = 8
"""How many restarts are counted before those that count no longer are looked for."""


class CountedRestart:
    """One restart that an intensity has allowed, after the crash `crash`.

    `time` is when the child was started again; infinity until then.
    """

    __slots__ = ("crash", "time")

    def __init__(self, crash: Exception) -> None:
        self.crash = crash
        self.time = inf


class RestartWindow:
    """Count restarts against an intensity.

    A restart counts from the decision until `within` seconds after the child was started again. Backoff,
    and siblings that stop first, put time between the two, and it is the restarts that must not come too
    often. As in OTP, a restart exactly `within` seconds ago still counts.
    """

    __slots__ = ("_restarts", "_tidy_at", "intensity")

    def __init__(self, intensity: RestartIntensity) -> None:
        self.intensity = intensity
        self._restarts: deque[CountedRestart] = deque()
        self._tidy_at = LEAST_TIDIED

    def admit(self, now: float, crash: Exception) -> CountedRestart | None:
        """Count one more restart; return None, and count nothing, if it would be one too many."""
        threshold = now - self.intensity.within
        while self._restarts and self._restarts[0].time < threshold:
            self._restarts.popleft()
        if len(self._restarts) >= min(self.intensity.max_restarts, self._tidy_at):
            self._forget_before(threshold)
            # Twice as many before the next look: so looking costs no more than counting, however many there
            # are, and at most half of the crashes that are kept in memory count no longer.
            self._tidy_at = max(LEAST_TIDIED, 2 * len(self._restarts))
            if len(self._restarts) >= self.intensity.max_restarts:
                return None
        restart = CountedRestart(crash)
        self._restarts.append(restart)
        return restart

    @property
    def crashes(self) -> list[Exception]:
        """The crashes whose restarts counted when `admit` last returned None, oldest first."""
        return [restart.crash for restart in self._restarts]

    def _forget_before(self, threshold: float) -> None:
        self._restarts = deque(restart for restart in self._restarts if restart.time >= threshold)

    def clear(self) -> None:
        """Forget all restarts."""
        self._restarts.clear()


class RestartPolicy:
    """Make the decisions of one supervisor; the supervision loop carries them out."""

    def __init__(
        self, strategy: RestartStrategy, intensity: RestartIntensity, on_excess: OnExcess, random: Random
    ) -> None:
        self.strategy: RestartStrategy = strategy
        self.intensity = intensity
        self.on_excess: OnExcess = on_excess
        self._random = random
        self._window = RestartWindow(intensity)

    def delay(self, child: Child, error: Exception, now: float) -> float | None:
        """Count the crash of `child`; return the seconds until its restart, or None for no restart."""
        if now - child.started_at >= child.backoff.reset_after:
            child.crashes_in_a_row = 0
        child.crashes_in_a_row += 1
        delay = child.backoff.delay(child.crashes_in_a_row, self._random)
        child.pending_restart = self._window.admit(now, error)
        return None if child.pending_restart is None else delay

    def group(self, child: Child, children: Iterable[Child]) -> list[Child]:
        """Return those of `children` that are restarted with `child`, itself included, in their order."""
        if self.strategy == "one_for_one":
            return [child]
        members = list(children)
        return members if self.strategy == "one_for_all" else members[members.index(child) :]

    def excess(self, child: Child, error: Exception) -> RestartLimitExceeded:
        """Return the error for a crash for which `delay` was None."""
        crashes = [*self._window.crashes, error]
        return RestartLimitExceeded(child.path, self.intensity.max_restarts, self.intensity.within, crashes)

    def forget(self) -> None:
        """Forget all crashes and restarts so far."""
        self._window.clear()
