"""The settings of `ultra serve`, the section `[serve]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

from ultra._support.checks import check_count, check_flag, check_number, check_seconds
from ultra.config.keys import KeyConfig, key_problems
from ultra.config.webhook import WebhookConfig
from ultra.errors import BadCall
from ultra.stores.opening import check_limits, without_password

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["DEFAULT_ENSEMBLE", "KeepAlive", "ServeConfig", "serve_problems"]

KeepAlive: TypeAlias = Literal["chunk", "comment", "off"]
"""What a stream of chat completions sends while there is nothing to say: chunks without text, or comments.

The other protocols have one form each, and are silent only with ``off``.
"""

DEFAULT_ENSEMBLE: Final = "ultra"
"""The ensemble of all models, which there is unless the configuration has one of that name."""

_POSITIVE: Final = ("commit_after", "keepalive_interval", "body_timeout", "idle_timeout", "timeout")
_NOT_NEGATIVE: Final = ("drain_grace", "linger", "remember_failures", "remember_results")
_COUNTS: Final = ("max_body", "max_image", "max_nesting", "max_running", "assumed_tokens")
_FLAGS: Final = ("join", "share_cache")


class ServeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the service behaves; times are seconds.

    Attributes:
        keepalive: what streams of chat completions send in silence.
        keepalive_interval: the longest silence of a stream.
        commit_after: how long a stream waits for an error before it answers 200; later errors are told in it.
        timeout: for runs of which neither the ensemble nor the request says how long they may take.
        max_body: bytes of a request's body.
        max_image: bytes of one image or document in it, decoded.
        max_nesting: how deep the JSON of a request may be nested.
        body_timeout: how long a client may take to send its body.
        idle_timeout: how long a connection may be idle between requests, and take to send the head of one.
            It must be longer than that of a load balancer ahead of it, or this closes what that still uses.
        max_running: how many requests are answered at once; more are refused with status 503.
        drain_grace: how long requests under way may go on after SIGTERM.
        linger: how long a run goes on without a client, so that one that timed out can ask again and join it.
        remember_failures: how long the failure of a run that cost money is given again for an equal request.
        remember_results: the same of results, for requests with an `Idempotency-Key`.
        join: whether equal requests that are under way at once share one run.
        keys: who may ask; empty: whoever is on this machine.
        budgets: where rates and budgets of keys are kept: ``memory``, ``sqlite:///path``, ``redis://host``.
        share_cache: whether keys get each other's kept answers.
        assumed_tokens: of an answer whose length nothing limits, where its cost is reserved.
        assumed_price: dollars for a million tokens of models whose price is not known, for budgets; 0: free.
        webhook: who is told of the ends of runs in the background.
        cors_origins: pages of which origins may ask from a browser, such as ``https://chat.example.org``;
            ``*``: all.

    Raises:
        BadCall: a value is not allowed.
    """

    keepalive: KeepAlive = "chunk"
    keepalive_interval: float = 15.0
    commit_after: float = 2.0
    timeout: float = 600.0
    max_body: int = 32 * 2**20
    max_image: int = 20 * 2**20
    max_nesting: int = 64
    body_timeout: float = 30.0
    idle_timeout: float = 75.0
    max_running: int = 1000
    drain_grace: float = 30.0
    linger: float = 1.0
    remember_failures: float = 10.0
    remember_results: float = 600.0
    join: bool = True
    keys: tuple[KeyConfig, ...] = ()
    budgets: str = "memory"
    share_cache: bool = False
    assumed_tokens: int = 2048
    assumed_price: float = 10.0
    cors_origins: tuple[str, ...] = ()
    webhook: WebhookConfig | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            check_seconds(name, getattr(self, name), positive=True)
        for name in _NOT_NEGATIVE:
            check_seconds(name, getattr(self, name))
        for name in _COUNTS:
            check_count(name, getattr(self, name))
        for name in _FLAGS:
            check_flag(name, getattr(self, name))
        check_number("assumed_price", self.assumed_price, unit="dollars for a million tokens")
        check_limits(self.budgets)
        for origin in self.cors_origins:
            if not _is_origin(origin):
                allowed = "'*', or scheme and host, such as https://chat.example.org"
                raise BadCall(f"cors_origins has {origin[:200]!r}; an origin is {allowed}")

    def __repr__(self) -> str:
        return f"ServeConfig({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown: a URL may hold a password."""
        told = [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "budgets"]
        return [*told, ("budgets", without_password(self.budgets))]


def serve_problems(
    serve: ServeConfig, models: Collection[str], ensembles: Collection[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what does not fit the rest of the configuration: places, and what is there."""
    yield from key_problems(serve.keys, [*ensembles, *models, DEFAULT_ENSEMBLE])


def _is_origin(text: str) -> bool:
    if text == "*":
        return True
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return (
        parts.scheme in {"http", "https"}
        and text == f"{parts.scheme}://{parts.netloc}"
        and bool(parts.netloc)
    )
