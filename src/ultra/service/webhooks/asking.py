"""Which address is told of the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.config.webhook import is_address
from ultra.service.problems import Problem

if TYPE_CHECKING:
    from ultra.service.core import Service

__all__ = ["webhook_of"]


def webhook_of(service: Service, asked: str | None = None) -> str | None:
    """Return the address for a run in the background, None: nobody is told. `asked`: what its request names.

    Raises:
        Problem: requests may name none, it is no address, or the journal keeps no notices.
    """
    webhook = service.settings.webhook
    if asked is not None and (webhook is None or not webhook.per_request):
        text = "webhook: requests name none here; per_request in [serve.webhook] allows it"
        raise Problem.bad_request(text, code="unsupported_value", param="webhook")
    if asked is not None and not is_address(asked):
        text = "webhook: it must be an address such as https://example.org/hooks/ultra"
        raise Problem.bad_request(text, param="webhook")
    url = asked or (None if webhook is None else webhook.url)
    if url is not None and not service.orchestrator.has_deliveries:
        text = "webhook: the journal of this service keeps no notices"
        raise Problem.bad_request(text, code="unsupported_value", param="webhook")
    return url
