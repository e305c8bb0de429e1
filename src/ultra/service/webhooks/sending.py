"""Delivering notices: signed, tried again with growing waits, and kept in the journal until they arrive."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import trio

from ultra._support.log import get_logger
from ultra._support.randomness import new_random
from ultra.bridge.trio_run import TrioRun
from ultra.clients.http.public_hosts import HostRefused, OutgoingRequest, is_public, send_checked
from ultra.errors import JournalDamaged, JournalUnavailable, UnknownRun, text_of
from ultra.service.problems import Problem
from ultra.service.responses.kept import ended_response
from ultra.service.responses.shape import shape_of
from ultra.service.webhooks.notices import notice_of, signed_headers

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from ultra.config.webhook import WebhookConfig
    from ultra.service.core import Service
    from ultra.stores.delivery_contract import Delivery
    from ultra.stores.journal_contract import RunRecord

__all__ = ["Webhooks"]

_WAITS: Final = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0)
"""Seconds until a notice is tried again, after each failure; then it is given up, after 31 hours."""

_JITTER: Final = 0.1
_TIMEOUT: Final = 15.0
_HOLD: Final = 60.0
"""Seconds for which nobody else delivers a notice: more than one try takes."""

_AT_ONCE: Final = 16
_LOOK: Final = 1.0
"""Seconds between two looks for notices that are due."""

_GONE: Final = 410
"""The status by which a receiver says that it wants no more of it, by Standard Webhooks."""

_log = get_logger("ultra.service")


class Webhooks:
    """Delivers the notices in the journal of a service, as long as it runs."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._trio_run = TrioRun()
        self._random = new_random()

    async def work(self) -> None:
        """Deliver what is due, again and again, until this is cancelled."""
        while True:
            webhook = self._service.settings.webhook
            if webhook is not None and self._service.orchestrator.has_deliveries:
                try:
                    while await self._deliver_some(webhook):
                        pass
                except JournalUnavailable as error:
                    _log.warning("journal unavailable", error=text_of(error))
            await anyio.sleep(_LOOK)

    async def _deliver_some(self, webhook: WebhookConfig) -> bool:
        """Deliver notices that are due, side by side; return whether there may be more."""
        due = await self._service.orchestrator.take_deliveries(_AT_ONCE, _HOLD)
        async with anyio.create_task_group() as tasks:
            for delivery in due:
                tasks.start_soon(self._deliver, delivery, webhook)
        return len(due) == _AT_ONCE

    async def _deliver(self, delivery: Delivery, webhook: WebhookConfig) -> None:
        settle = self._service.orchestrator.settle_delivery
        try:
            run = await self._service.orchestrator.get_run(delivery.run_id)
            body = notice_of(delivery, run, await self._state_of(run))
            problem = await self._send(delivery, body, webhook)
            again_in = None if problem is None else self._wait(delivery)
            if problem is not None:
                state = "webhook failed" if again_in is not None else "webhook given up"
                told = {"run_id": run.run_id, "attempt": delivery.attempts + 1, "again_in": again_in}
                _log.warning(state, webhook_id=delivery.id, error=problem, **told)
            await settle(delivery.id, again_in)
        except (UnknownRun, Problem, JournalDamaged):  # it was deleted, or will never be readable again
            await settle(delivery.id)
        except JournalUnavailable as error:  # it is due again when nobody holds it any more
            _log.warning("journal unavailable", error=text_of(error))
        except Exception:  # noqa: BLE001 - the others must be delivered nevertheless
            _log.exception("webhook failed", webhook_id=delivery.id)

    async def _state_of(self, run: RunRecord) -> str:
        """Return how a run ended, in the words of its protocol."""
        shape = shape_of(run.tags)
        if shape is None:
            return run.state
        status: str = (await ended_response(self._service, run, shape))["status"]
        return status

    async def _send(self, delivery: Delivery, body: bytes, webhook: WebhookConfig) -> str | None:
        """Send a notice; return what went wrong, None if it arrived, or is not wanted any more."""
        headers = signed_headers(delivery, body, webhook.secret)
        request = OutgoingRequest("POST", delivery.url, headers, _TIMEOUT, body)
        send = partial(_status_of, request, allow_private=webhook.allow_private)
        try:
            status = await self._trio_run.run(send)
        except HostRefused as refused:
            return str(refused)
        if 200 <= status < 300 or status == _GONE:  # noqa: PLR2004 - of HTTP
            return None
        return f"the receiver answered with status {status}"

    def _wait(self, delivery: Delivery) -> float | None:
        if delivery.attempts >= len(_WAITS):
            return None
        return _WAITS[delivery.attempts] * self._random.uniform(1 - _JITTER, 1 + _JITTER)


async def _status_of(request: OutgoingRequest, *, allow_private: bool) -> int:
    """Send a request, and return the status of its response. On trio."""

    def allows(address: IPv4Address | IPv6Address) -> bool:
        return allow_private or is_public(address)

    with trio.move_on_after(_TIMEOUT):
        async with send_checked(request, allows=allows) as response:
            return response.status_code
    raise HostRefused(f"there was no answer within {_TIMEOUT:g} s")
