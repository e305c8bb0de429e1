"""Batches of runs, as clients of a service in this process make and read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from helpers.services import Answer, get
from ultra.service.batches.endpoint import BatchObject
from ultra.service.batches.lines import ResultLine

if TYPE_CHECKING:
    from ultra.service.core import Service

__all__ = ["BATCH", "body_of", "ended", "results_of"]

BATCH = "/v1/runs/batch"


def body_of(count: int, model: str = "a") -> bytes:
    lines = [
        {"custom_id": f"c{number}", "body": {"prompt": f"Question {number}?", "model": model}}
        for number in range(count)
    ]
    return b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"


async def ended(service: Service, batch_id: str, **more: Any) -> BatchObject:
    """The batch, once it has ended."""
    while True:
        batch = msgspec.json.decode(
            (await get(service, f"{BATCH}/{batch_id}", **more)).body, type=BatchObject
        )
        if batch.ended_at is not None:
            return batch
        await trio.sleep(0.02)


def results_of(answer: Answer) -> list[ResultLine]:
    assert answer.headers["content-type"].startswith("application/jsonl")
    return [msgspec.json.decode(line, type=ResultLine) for line in answer.body.splitlines()]
