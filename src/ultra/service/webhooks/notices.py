"""What a webhook says of a run, and its signature."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ultra.errors import MissingExtra
from ultra.service.responses.conversation import RESPONSE
from ultra.service.responses.shape import PROTOCOL

if TYPE_CHECKING:
    from ultra.stores.delivery_contract import Delivery
    from ultra.stores.journal_contract import RunRecord

__all__ = ["notice_of", "signed_headers"]

_SECONDS: Final = "webhook-timestamp"


def notice_of(delivery: Delivery, run: RunRecord, state: str) -> bytes:
    """Return the body that tells how a run ended: in the form of OpenAI's webhooks, without its answer.

    It is the same each time, so that a receiver gets one event, however often it is sent.
    """
    is_response = run.tags.get("protocol") == PROTOCOL
    told = {
        "object": "event",
        "id": delivery.id,
        "type": f"{'response' if is_response else 'run'}.{state}",
        "created_at": int(run.ended or run.created),
        "data": {"id": f"{RESPONSE}{run.run_id}" if is_response else run.run_id},
    }
    return json.dumps(told, separators=(",", ":")).encode()


def signed_headers(delivery: Delivery, body: bytes, secret: str) -> dict[str, str]:
    """Return the headers of a notice that is sent now.

    Raises:
        MissingExtra: standardwebhooks is not installed.
    """
    try:
        from standardwebhooks import Webhook  # noqa: PLC0415 - only for those who have webhooks
    except ImportError:
        raise MissingExtra("webhooks", "serve") from None
    now = datetime.fromtimestamp(int(time.time()), UTC)
    return {
        "content-type": "application/json",
        "webhook-id": delivery.id,
        _SECONDS: str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(delivery.id, now, body.decode()),
    }
