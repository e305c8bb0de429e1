"""How a supervisor treats its children: restart types, strategies, intensity, backoff.

The terms and their meaning are those of Erlang/OTP's `supervisor`; backoff is Akka's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from ultra._support.checks import check_choice, check_count, check_number, check_seconds
from ultra.actors.runtime.actor import Actor, ActorOptions

if TYPE_CHECKING:
    from random import Random

__all__ = [
    "Backoff",
    "ChildSpec",
    "OnExcess",
    "Restart",
    "RestartIntensity",
    "RestartStrategy",
]

Restart = Literal["permanent", "transient", "temporary"]
"""Which ends of a child lead to a restart: all; crashes only; none."""

RestartStrategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Which children are restarted with one that crashed: no other; all; those that start after it."""

OnExcess = Literal["escalate", "isolate"]
"""What follows a crash that the restart intensity does not allow.

escalate: the supervisor stops its children and fails itself. isolate: the child that crashed is down
until it is revived, and the others go on.
"""


class RestartIntensity(Struct, frozen=True):
    """At most `max_restarts` restarts in any period of `within` seconds, counted per supervisor."""

    max_restarts: int = 3
    within: float = 5.0

    def __post_init__(self) -> None:
        check_count("max_restarts", self.max_restarts, least=0)
        check_seconds("within", self.within, positive=True)


class Backoff(Struct, frozen=True, kw_only=True):
    """How long to wait before a restart [s]: `initial`, times `factor` for each crash in a row.

    The wait is never longer than `maximum`, and varied by up to `jitter` times itself, so that children
    that crash together do not restart together. After `reset_after` seconds without a crash, a child's
    next wait is `initial` again.
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.2
    reset_after: float = 60.0

    def __post_init__(self) -> None:
        for name in ("initial", "maximum", "reset_after"):
            check_seconds(f"backoff {name}", getattr(self, name), endless=True)
        check_number("backoff factor", self.factor, least=1, most=10)
        check_number("backoff jitter", self.jitter, most=1)

    def delay(self, crashes: int, random: Random) -> float:
        """Return the seconds to wait after the `crashes`-th crash in a row (counted from 1)."""
        wait = min(self.maximum, self.initial * self.factor ** min(crashes - 1, 100))
        return wait * (1 + self.jitter * random.uniform(-1, 1)) if wait else 0.0


class ChildSpec(Struct, frozen=True, kw_only=True):
    """All that a supervisor needs to start a child, as often as it has to."""

    name: str
    factory: Callable[[], Actor]
    options: ActorOptions
    restart: Restart = "permanent"
    backoff: Backoff = Backoff()

    def __post_init__(self) -> None:
        check_choice("restart", self.restart, Restart)
