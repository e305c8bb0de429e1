"""Connecting the program to a Ray cluster: once, by whichever placed model starts first."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final

import ray
from trio.lowlevel import start_thread_soon

from ultra.bridge.futures import result_of

if TYPE_CHECKING:
    from outcome import Outcome

__all__ = ["connect_program"]

_LOCK: Final = Lock()
_ATTEMPTS: Final[dict[str, Future[None]]] = {}
"""What is under way, by the address: one at most. Several trio runs may be in this process."""


async def connect_program(address: str | None) -> None:
    """Connect the program to the cluster at this address, unless it is connected to one. On trio.

    However many models start at once, one thread connects, and the others wait without one. It has to be a
    thread of this process: `ray.init` connects the process that calls it, and blocks meanwhile. Cancelled,
    this waits no longer, and the connecting goes on, since nothing can end it.

    Raises:
        RuntimeError: it is not connected, and there is no address.
        ConnectionError: the cluster cannot be reached; or what else Ray raises. All who waited get it.
    """
    while not ray.is_initialized():
        if address is None:  # Ray would start a cluster of its own, at the worst moment
            raise RuntimeError("the program is not connected to a Ray cluster; call ray.init() first")
        attempt, is_ours = _attempt(address)
        try:
            await result_of(attempt)
        except Exception:
            if is_ours:  # what failed for another address says nothing of this one
                raise


def _attempt(address: str) -> tuple[Future[None], bool]:
    """Return the attempt under way, or begin one; and whether it is for this address."""
    with _LOCK:
        if not _ATTEMPTS:
            attempt = Future[None]()
            start_thread_soon(partial(_connect, address), partial(_ended, address, attempt))
            _ATTEMPTS[address] = attempt  # not before: where no thread can be started, nothing is under way
        ((whose, attempt),) = _ATTEMPTS.items()
        return attempt, whose == address


def _connect(address: str) -> None:
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, include_dashboard=_dashboard(address))


def _ended(address: str, attempt: Future[None], outcome: Outcome[None]) -> None:
    with _LOCK:
        del _ATTEMPTS[address]
    try:
        attempt.set_result(outcome.unwrap())
    except BaseException as error:  # noqa: BLE001 - raised where somebody waits
        attempt.set_exception(error)


def _dashboard(address: str) -> bool | None:
    return False if address == "local" else None  # another one's cluster has what it has
