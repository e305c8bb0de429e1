"""Calling the code of clients, which may be anybody's: what it raises is classified."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Final, cast

from ultra._support.log import get_logger
from ultra.bridge.interruption import is_interruption
from ultra.clients.classify import classify
from ultra.errors import ClientCrashed, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["CLASSIFIED", "closed", "closer", "outcome", "told"]

log = get_logger("ultra.clients")


class _Classified:
    """Turns exceptions of the client's code, and of nothing else, into `ModelError`.

    What passes is what interrupts the call from outside, real cancellation and KeyboardInterrupt; and
    `ClientCrashed`, which is no failed call, but the end of the client.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, ClientCrashed) or is_interruption(error):
            return
        if isinstance(error, ModelError) and classify(error) is error:
            return
        raise classify(error) from error  # not by a name, since this frame is in its traceback


CLASSIFIED: Final = _Classified()


async def outcome(call: Callable[[], object]) -> object:
    """Return what `call` gives, awaited where it is a coroutine. Raises `ModelError`."""
    with CLASSIFIED:
        given = call()
        return await given if isawaitable(given) else given


async def closed(resource: object) -> None:
    """Close `resource` by its ``aclose`` or ``close``, if it has one. Raises `ModelError`."""
    with CLASSIFIED:
        close = closer(resource)
    if close is not None:
        await outcome(close)


def closer(resource: object) -> Callable[[], object] | None:
    """Return the method that closes `resource`; None: it has none."""
    for name in ("aclose", "close"):
        close = getattr(resource, name, None)
        if callable(close):
            return cast("Callable[[], object]", close)
    return None


def told(client: object, name: str) -> object:
    """Return what the client says of itself under this name; None if it says nothing, or raises."""
    try:
        return getattr(client, name, None)
    except KeyboardInterrupt:
        raise
    except BaseException:
        log.debug("attribute of a client cannot be read", attribute=name, exc_info=True)
        return None
