"""The settings of `ultra serve`, the section `[serve]`."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

from ultra._support.checks import check_count, check_flag, check_seconds

__all__ = ["KeepAlive", "ServeConfig"]

KeepAlive: TypeAlias = Literal["chunk", "comment", "off"]
"""What a stream of chat completions sends while there is nothing to say: chunks without text, or comments.

The other protocols have one form each, and are silent only with ``off``.
"""

_POSITIVE: Final = ("commit_after", "keepalive_interval", "body_timeout", "timeout")
_NOT_NEGATIVE: Final = ("drain_grace", "linger", "remember_failures", "remember_results")
_COUNTS: Final = ("max_body", "max_nesting", "max_running")


class ServeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the service behaves; times are seconds.

    Attributes:
        keepalive: what streams of chat completions send in silence.
        keepalive_interval: the longest silence of a stream.
        commit_after: how long a stream waits for an error before it answers 200; later errors are told in it.
        timeout: for runs of which neither the ensemble nor the request says how long they may take.
        max_body: bytes of a request's body.
        max_nesting: how deep the JSON of a request may be nested.
        body_timeout: how long a client may take to send its body.
        max_running: how many requests are answered at once; more are refused with status 503.
        drain_grace: how long requests under way may go on after SIGTERM.
        linger: how long a run goes on without a client, so that one that timed out can ask again and join it.
        remember_failures: how long the failure of a run that cost money is given again for an equal request.
        remember_results: the same of results, for requests with an `Idempotency-Key`.
        join: whether equal requests that are under way at once share one run.

    Raises:
        BadCall: a value is not allowed.
    """

    keepalive: KeepAlive = "chunk"
    keepalive_interval: float = 15.0
    commit_after: float = 2.0
    timeout: float = 600.0
    max_body: int = 32 * 2**20
    max_nesting: int = 64
    body_timeout: float = 30.0
    max_running: int = 1000
    drain_grace: float = 30.0
    linger: float = 1.0
    remember_failures: float = 5.0
    remember_results: float = 600.0
    join: bool = True

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            check_seconds(name, getattr(self, name), positive=True)
        for name in _NOT_NEGATIVE:
            check_seconds(name, getattr(self, name))
        for name in _COUNTS:
            check_count(name, getattr(self, name))
        check_flag("join", self.join)
