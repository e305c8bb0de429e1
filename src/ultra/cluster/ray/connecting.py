"""Connecting the program to a Ray cluster: once, by whichever placed model starts first."""

from __future__ import annotations

from threading import Lock
from typing import Final

import ray

__all__ = ["connect_program"]

_LOCK: Final = Lock()


def connect_program(address: str | None) -> None:
    """Connect the program to the cluster at this address, unless it is connected to one. Blocks.

    Raises:
        RuntimeError: it is not connected, and there is no address.
        ConnectionError: the cluster cannot be reached; or what else Ray raises.
    """
    with _LOCK:  # several models may start at once
        if ray.is_initialized():
            return
        if address is None:  # Ray would start a cluster of its own, at the worst moment
            raise RuntimeError("the program is not connected to a Ray cluster; call ray.init() first")
        ray.init(address=address, log_to_driver=False, include_dashboard=_dashboard(address))


def _dashboard(address: str) -> bool | None:
    return False if address == "local" else None  # another one's cluster has what it has
