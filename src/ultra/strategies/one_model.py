"""One model, whose answer stands: what a service runs when a client names a model and no ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.strategies.base import Answer

if TYPE_CHECKING:
    from ultra.strategies.base import RunContext

__all__ = ["OneModel"]


class OneModel(Struct, frozen=True):
    """Ask one model, and let its answer stand."""

    async def run(self, context: RunContext) -> Answer:
        """Ask the model of highest weight; see `Strategy.run`."""
        with context.step("answer"):
            responses = await context.ask_all(context.request, models=context.models[:1], samples=1)
        return Answer(responses[0] if responses else None, "primary")
